"""Where runs, downloads and a user's own files may lie: not where DVC, git or a stage would take
them for their own."""

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.config.paths import CODE, CURVES, OUTPUTS
from pipeline.runtime.dag import DVC_FILE
from pipeline.runtime.project import in_project, lies_in

STORAGE, DOWNLOADS = "ray.storage_path", "data.download_dir"
KEPT = (Path(".git"), Path(".dvc"))  # what git and DVC keep


def check_places(places: Mapping[str, str | None]) -> None:
    """Look at the places that params name, by the param's key; each may be one that links lead to.

    Raises:
        ValueError: files would lie where they do not stay or do not belong.
    """
    root = in_project("").resolve()
    given = {key: root / place for key, place in places.items() if place}
    for key, place in given.items():
        for folder in OUTPUTS:
            # DVC deletes what a stage has made before the stage could read a file there.
            if lies_in(place, root / folder):
                raise ValueError(
                    f"{key}: it lies in {folder}, whose content DVC deletes before a stage "
                    f"runs; move it to another folder before you run anything"
                )
    _check_storage(root, given[STORAGE])
    for key, instead in ((STORAGE, "runs"), (DOWNLOADS, "data/raw")):
        _check_folder(key, root, given[key], instead)


def _check_storage(root: Path, given: Path) -> None:
    """Refuse to keep runs around the project, or around what a stage makes."""
    if lies_in(root, given):
        raise ValueError(
            f"{STORAGE}: the project lies in it; give a folder of its own, such as runs"
        )
    if lies_in(given / CURVES.name, root / CURVES):  # the stage's run directories, and its output
        raise ValueError(
            f"{STORAGE}: {CURVES}, which a stage makes, would lie among its runs; give a folder of "
            f"its own, such as runs"
        )


def _check_folder(key: str, root: Path, given: Path, instead: str) -> None:
    """Refuse what DVC hashes for a stage, what git and DVC keep, and what is no folder."""
    for folder in (*CODE, *KEPT):
        if lies_in(given, root / folder):
            whose = "which DVC hashes" if folder in CODE else f"which {folder.name[1:]} keeps"
            raise ValueError(
                f"{key}: it lies in {folder}, {whose}; give a folder such as {instead}"
            )
    there = next(place for place in (given, *given.parents) if os.path.exists(place))
    if there.is_relative_to(root):
        if not (root / DVC_FILE).exists():  # params of a project elsewhere, or of a preset
            return
        there = there.relative_to(root)
    if not (root / there).is_dir():
        raise ValueError(f"{key}: {there} is no folder; give a folder such as {instead}")
