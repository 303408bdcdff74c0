"""The checkpoints of a Ray Train run, as files: Ray's list of them may be damaged, or missing."""

from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import read_json, remove, remove_temporary
from pipeline.runtime.store import CHECKPOINT, LISTING
from pipeline.training.loop.checkpoints import (
    INSTEAD,
    Damaged,
    load_checkpoint,
    newest_whole,
)

PARTS = {  # of the listing, without which Ray does not take it
    *("checkpoint_results", "checkpoint_report_indices", "current_report_index"),
    *("latest_checkpoint_result", "pending_training_results", "pending_validation_specs"),
    *("validated_checkpoint_dir_names", "timed_out_validation_checkpoint_dir_names"),
    "failed_validation_checkpoint_dir_names",
}
RESULT = {"checkpoint_dir_name", "metrics"}  # of each checkpoint in it


def remove_damaged(run: Path) -> None:
    """Remove the newest checkpoints that are damaged, and the listing with them: Ray would count
    them among those that it keeps, in place of whole ones.

    Raises:
        UserError: all of them are damaged, and there were others before.
    """
    listing = _listing(run)
    found = (run / name / CHECKPOINT for name in reversed(_names(listing)))
    _, damaged = newest_whole(
        found,
        first=listing is not None and listing["current_report_index"] == 1,
    )
    for path in damaged:
        remove(run / LISTING)
        remove(path.parent)


def _listing(run: Path) -> dict[str, Any] | None:
    """Ray's listing; None where there is none that Ray takes.

    Raises:
        PassingError: it cannot be read now, which says nothing of what is in it.
    """
    try:
        listing = read_json(run / LISTING)
        results = [*listing["checkpoint_results"], listing["latest_checkpoint_result"]]
        whole = listing.keys() >= PARTS and all(one.keys() >= RESULT for one in results)
        there = whole and all((run / name).is_dir() for name in _names(listing))
    except (OSError, UserError, ValueError, LookupError, TypeError, AttributeError) as error:
        require_readable(run / LISTING, error, INSTEAD)
        return None
    return listing if there and results[-1]["checkpoint_dir_name"] in _names(listing) else None


def _names(listing: dict[str, Any] | None) -> list[str]:
    """The folders of the checkpoints that it lists, as they came: by their names, which are dates,
    they may have another order, since clocks are set back."""
    return [one["checkpoint_dir_name"] for one in listing["checkpoint_results"]] if listing else []


def unlisted_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint of a run whose listing is missing or damaged; those that are not
    whole are removed.

    Ray uploads a checkpoint and then writes the listing in place. A kill between the two would lose
    a first checkpoint; one within the second, a full disk, or a changed bit would stop every later
    run.
    """
    if _listing(run):
        return None
    remove(run / LISTING)
    for path in sorted(run.glob(f"checkpoint_*/{CHECKPOINT}"), reverse=True):
        try:
            load_checkpoint(path)
            return path
        except Damaged as error:  # cut short, perhaps
            print(f"{error}; looking for the one before", flush=True)
            remove(path.parent)
    return None


def remove_unlisted(run: Path) -> None:
    """Remove what kills left of uploads, which Ray does not list and nothing will use."""
    listed = _names(_listing(run))
    for folder in run.glob("checkpoint_*/"):
        if folder.name not in listed:
            remove(folder)


def remove_passed(run: Path, newest: Path) -> None:
    """Remove what lost workers left half written, and what they wrote and Ray was not told of, once
    it knows the newest. No worker may be left."""
    remove_temporary(run, below=True)
    if newest.parent.name in _names(_listing(run)):
        remove_unlisted(run)


def checkpoints_now(run: Path, listed: Any, unlisted: Path | None) -> list[Path]:
    """As `checkpoints_of`, and before them those that lost workers have written and Ray was not yet
    told of. For a worker that takes their place: what earlier runs left is removed by then."""
    known = checkpoints_of(run, listed, unlisted)
    names = {path.parent.name for path in known} | set(_names(_listing(run)))
    last = max(names, default="")
    found = sorted(run.glob(f"checkpoint_*/{CHECKPOINT}"), reverse=True)
    return [*(path for path in found if path.parent.name > last), *known]


def checkpoints_of(run: Path, listed: Any, unlisted: Path | None) -> list[Path]:
    """The run's checkpoints, the newest first: the one that Ray knows, else the unlisted one, and
    those before it (by their names, where Ray does not list them).

    Args:
        listed: Ray's newest.
        unlisted: the one that the run began with where there was no listing.
    """
    newest = Path(listed.path) / CHECKPOINT if listed else unlisted
    if newest is None:
        return []
    names = _names(_listing(run))
    if newest.parent.name not in names:
        found = run.glob(f"checkpoint_*/{CHECKPOINT}")
        older = (path for path in found if path.parent.name < newest.parent.name)
        return [newest, *sorted(older, reverse=True)]
    before = [run / name / CHECKPOINT for name in names[: names.index(newest.parent.name)]]
    began = [] if unlisted is None or unlisted in before else [unlisted]
    return [newest, *reversed(before), *began]
