"""Files that somebody copied from one run directory to another, with their list of hashes, are none
of that run's: they are made again."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline.runtime.checksums import as_noted, disown, keep_if_whole, note_hash, write_noted
from pipeline.runtime.dag import stage_outputs
from pipeline.runtime.files import SUMS, tree_hash
from pipeline.runtime.outbox import LOG
from pipeline.runtime.runs import run_dir
from tests.images import write_batches
from tests.outage_trial import TIMED
from tests.project import Project
from tests.test_damaged_outbox import begin, check, end, not_all_sent

# What a run directory has besides what it keeps.
OWN = {"key.json", ".lock", ".owner.json"}
# Those that have several run directories of the same files.
STAGES = ("evaluate", "sweep", "temperature", "reject", "cas", "train_transformer")


@pytest.fixture
def two(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """The run directories of two seeds."""
    monkeypatch.chdir(tmp_path)
    one, other = (run_dir("evaluate", {"seed": seed}) for seed in (0, 1))
    return one, other


@pytest.mark.parametrize("below", ["", "cells"])
def test_a_row_of_another_run_is_made_again(two, below, capsys):
    ours, theirs = (folder / below for folder in two)
    for folder, value in ((ours, 1), (theirs, 2)):
        folder.mkdir(exist_ok=True)
        write_noted(folder / "row.json", {"value": value})
    for name in ("row.json", SUMS):
        shutil.copy(theirs / name, ours / name)
    assert as_noted(theirs / "row.json") and not as_noted(ours / "row.json")
    assert not keep_if_whole(ours / "row.json")
    assert "row.json is damaged or was not finished; it is made again" in capsys.readouterr().out
    write_noted(ours / "row.json", {"value": 1})  # over the other's list
    assert keep_if_whole(ours / "row.json")


def test_batches_of_another_run_are_made_again(two):
    made = []

    def batches(value: int):
        return [lambda n=n: made.append(n) or np.full((2, 3), value) for n in range(3)]

    for value, folder in enumerate(two):
        write_batches(folder / "set.npy", batches(value), "set")
    shutil.copytree(two[1], two[0], dirs_exist_ok=True, ignore=lambda *_: OWN)
    made.clear()
    write_batches(two[0] / "set.npy", batches(0), "set")
    assert made == [0, 1, 2] and not np.load(two[0] / "set.npy").any()


def test_a_published_list_names_no_run(two, tmp_path):
    model, published = two[0] / "model", tmp_path / "models/main"
    model.mkdir()
    (model / "weights").write_bytes(b"1")
    note_hash(model / "weights")
    listed = (model / SUMS).read_text()
    assert listed.startswith(f"# of {two[0].name}\n")
    disown(shutil.copytree(model, published))
    assert (published / SUMS).read_text() == listed.partition("\n")[2]
    if shutil.which("sha256sum"):
        for folder in (model, published):
            command = ("sha256sum", "--strict", "-c", SUMS)
            result = subprocess.run(command, cwd=folder, capture_output=True, check=True)
            assert result.stdout == b"weights: OK\n" and not result.stderr


def test_records_of_another_run_are_not_sent_as_its_own(server, tmp_path):
    folder = tmp_path / "outbox"
    runs = [begin(folder, name) for name in ("one", "other")]
    one, other = map(end, runs)
    shutil.copy(one / LOG, other / LOG)
    said = not_all_sent(folder)
    assert "(open does not say which run begins, or another than the folder's)" in said
    assert f"delete the folder {other}" in said
    check(server, "one")


def outputs(project: Project, stage: str) -> dict[str, str]:
    """The content of all that the stage has made, but for times."""
    return {
        str(path): tree_hash(project.folder / path)
        for path in stage_outputs(stage, project.folder)
        if not any(timed in str(path) for timed in TIMED)
    }


def copy_over(theirs: Path, ours: Path) -> int:
    """Copy what both run directories keep, but for checkpoints: of another run's nothing begins."""
    copied = 0
    for file in filter(Path.is_file, theirs.rglob("*")):
        target = ours / file.relative_to(theirs)
        if target.is_file() and file.name not in OWN and file.suffix != ".pt":
            shutil.copyfile(file, target)
            copied += 1
    return copied


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_publishes_its_own(finished, tmp_path, stage):
    """Every run directory has the files of another one, where that has files of the same names."""
    project = finished.copy(tmp_path / "project")
    before, runs = outputs(project, stage), Path("runs", stage)
    folders = sorted(
        p.relative_to(project.folder).parent for p in project.folder.glob(f"{runs}/**/key.json")
    )
    copied = [
        copy_over(finished.folder / theirs, project.folder / ours)
        for ours, theirs in zip(folders, [*folders[1:], folders[0]], strict=True)
    ]
    assert sum(copied) > 1
    said = project.stage(stage)
    assert stage == "train_transformer" or "it is made again" in said
    assert outputs(project, stage) == before
