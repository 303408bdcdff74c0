"""The checkpoints of a Ray Train run, as files: Ray's list of them may be damaged, or missing."""

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.training.loop.checkpoints import load_checkpoint, newest_whole

CHECKPOINT = "checkpoint.pt"
LISTING = "checkpoint_manager_snapshot.json"  # Ray's, of the checkpoints that it knows


def remove_damaged(run: Path) -> None:
    """Remove the newest checkpoints that are damaged, and the listing with them: Ray would count
    them among those that it keeps, in place of whole ones.

    Raises:
        UserError: all of them are damaged.
    """
    listed = _listed(run)
    found = [path for path in run.glob(f"checkpoint_*/{CHECKPOINT}") if path.parent.name in listed]
    _, damaged = newest_whole(sorted(found, reverse=True))
    for path in damaged:
        (run / LISTING).unlink(missing_ok=True)
        shutil.rmtree(path.parent)


def _listed(run: Path) -> str:
    """The text of Ray's listing; empty where there is none."""
    listing = run / LISTING
    return listing.read_text(errors="replace") if listing.exists() else ""


def unlisted_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint of a run whose listing is missing or damaged.

    Ray uploads a checkpoint and then writes the listing in place. A kill between the two would lose
    a first checkpoint; one within the second, or a full disk, would stop every later run.
    """
    listing = run / LISTING
    try:
        json.loads(listing.read_bytes())
        return None
    except FileNotFoundError:
        pass
    except ValueError:
        listing.unlink()
    for path in sorted(run.glob(f"checkpoint_*/{CHECKPOINT}"), reverse=True):
        try:
            load_checkpoint(path)
            return path
        except Exception:  # cut short too; torch has many names for that
            continue
    return None


def remove_unlisted(run: Path) -> None:
    """Remove what kills left of uploads, which Ray does not list and nothing will use."""
    listed = _listed(run)
    for folder in run.glob("checkpoint_*/"):
        if folder.name not in listed:
            shutil.rmtree(folder, ignore_errors=True)


def checkpoints_of(run: Path, listed: Any, unlisted: Path | None) -> list[Path]:
    """The run's checkpoints, the newest first: the one that Ray knows, else the unlisted one, and
    those before it (their names are dates)."""
    newest = Path(listed.path) / CHECKPOINT if listed else unlisted
    if newest is None:
        return []
    found = run.glob(f"checkpoint_*/{CHECKPOINT}")
    older = (path for path in found if path.parent.name < newest.parent.name)
    return [newest, *sorted(older, reverse=True)]
