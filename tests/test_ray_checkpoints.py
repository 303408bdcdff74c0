"""The files of a Ray Train run after a kill and a bad disk: Ray itself takes what is left."""

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.train import CheckpointConfig
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
from ray.train.v2._internal.execution.storage import StorageContext

from pipeline.runtime.errors import PassingError, UserError
from pipeline.training.loop import load_checkpoint, save_checkpoint
from pipeline.training.loop.ray_checkpoints import (
    CHECKPOINT,
    LISTING,
    checkpoints_now,
    checkpoints_of,
    remove_damaged,
    remove_passed,
    remove_unlisted,
    unlisted_checkpoint,
)
from tests.damage import cut, failing


def state(step: int) -> dict[str, Any]:
    """What a loop keeps at a step."""
    task = {"w": torch.ones(3)}
    return {"task": task, "step": step, "history": [{"step": step}], "run": "a/run"}


def run_with(folder: Path, *steps: int, before: int = 0) -> Path:
    """A run with a checkpoint at each of the steps, and the listing that Ray writes of them.

    Args:
        before: checkpoints that it had, and removed.
    """
    names = [f"checkpoint_2026-11-26_10-00-{step:02}.000001" for step in steps]
    for step, name in zip(steps, names, strict=True):
        save_checkpoint(state(step), folder / name / CHECKPOINT)
    results = [
        {"version": 0, "checkpoint_dir_name": name, "metrics": {"step": 1}} for name in names
    ]
    listing = {
        "ray_version": "2.60.0",
        "checkpoint_results": results,
        "checkpoint_report_indices": list(range(before, before + len(steps))),
        "latest_checkpoint_result": results[-1],
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": before + len(steps),
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }
    (folder / LISTING).write_text(json.dumps(listing))
    return folder


def begun(run: Path) -> int:
    """The step from which the run goes on, by Ray's listing or without it."""
    remove_damaged(run)
    unlisted = unlisted_checkpoint(run)
    if unlisted is None:
        remove_unlisted(run)
    storage = StorageContext(storage_path=str(run.parent), experiment_dir_name=run.name)
    ray = CheckpointManager(CheckpointConfig(num_to_keep=2), storage)  # raises as in a run
    latest = ray.latest_checkpoint_result
    path = Path(latest.checkpoint.path, CHECKPOINT) if latest else unlisted
    return load_checkpoint(path)["step"] if path else 0


def test_no_bit_of_the_listing_stops_a_run_or_costs_a_checkpoint(tmp_path):
    run = run_with(tmp_path / "run", 20, 40)
    whole = (run / LISTING).read_bytes()
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1
        (run / LISTING).write_bytes(changed)
        assert begun(run) == 40, bytes(changed)
        assert len(list(run.glob("checkpoint_2*"))) == 2


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b"[1]", b"\xff"])
def test_a_listing_of_nothing_is_as_none(tmp_path, content):
    run = run_with(tmp_path / "run", 20, 40)
    (run / LISTING).write_bytes(content)
    assert begun(run) == 40


def test_a_listed_checkpoint_that_has_gone_is_not_missed(tmp_path):
    run = run_with(tmp_path / "run", 20, 40)
    newest = max(run.glob("checkpoint_2*"))
    os.remove(newest / CHECKPOINT)
    newest.rmdir()
    assert begun(run) == 20


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    run = run_with(tmp_path / "run", 20, 40, before=3)
    cut(max(run.glob("checkpoint_2*")) / CHECKPOINT)
    assert begun(run) == 20


def test_where_the_first_one_is_damaged_training_begins_anew(tmp_path, capsys):
    run = run_with(tmp_path / "run", 20)
    cut(next(run.glob("checkpoint_2*")) / CHECKPOINT)
    assert begun(run) == 0
    assert "it was the first" in capsys.readouterr().out


def test_the_last_one_that_is_left_is_not_the_first(tmp_path):
    run = run_with(tmp_path / "run", 40, before=1)
    cut(next(run.glob("checkpoint_2*")) / CHECKPOINT)
    with pytest.raises(UserError, match="every checkpoint in"):
        begun(run)


def test_after_a_clock_was_set_back_the_newest_is_the_one_that_came_last(tmp_path):
    """Ray names checkpoints by the time of day."""
    run = run_with(tmp_path / "run", 40, 20)  # that of 20 came later
    early, late = sorted(run.glob("checkpoint_2*"))
    assert checkpoints_of(run, SimpleNamespace(path=early), None) == [
        early / CHECKPOINT,
        late / CHECKPOINT,
    ]
    cut(early / CHECKPOINT)
    assert begun(run) == 40
    assert [*run.glob("checkpoint_2*")] == [late]


def test_what_a_run_began_with_is_not_forgotten_when_ray_lists_others(tmp_path):
    run = run_with(tmp_path / "run", 40)
    newest = next(run.glob("checkpoint_2*"))
    began = run / "checkpoint_2026-11-25_10-00-20.000001" / CHECKPOINT
    save_checkpoint(state(20), began)
    found = checkpoints_of(run, SimpleNamespace(path=newest), began)
    assert found == [newest / CHECKPOINT, began]


def test_what_a_lost_worker_wrote_is_gone_on_from_though_ray_was_not_told(tmp_path):
    """It is written while training goes on, and Ray asks for it about once a second."""
    run = run_with(tmp_path / "run", 20, 40)
    early, late = sorted(path / CHECKPOINT for path in run.glob("checkpoint_2*"))
    newer = run / "checkpoint_2026-11-26_10-00-59.000001" / CHECKPOINT
    save_checkpoint(state(60), newer)
    listed = SimpleNamespace(path=late.parent)
    assert checkpoints_now(run, listed, None) == [newer, late, early]
    remove_passed(run, newer)  # nobody else has it
    assert newer.exists()
    remove_passed(run, late)
    assert not newer.exists() and late.exists() and early.exists()
    assert checkpoints_now(run, listed, None) == [late, early]


def test_what_a_lost_worker_wrote_is_found_where_ray_knows_of_none(tmp_path):
    run = tmp_path / "run"
    first, second = (run / f"checkpoint_2026-11-26_10-00-0{n}.000001" / CHECKPOINT for n in (1, 2))
    assert checkpoints_now(run, None, None) == []
    save_checkpoint(state(20), first)
    assert checkpoints_now(run, None, None) == [first]
    save_checkpoint(state(40), second)
    assert checkpoints_now(run, None, None) == [second, first]
    assert checkpoints_now(run, None, first) == [second, first]  # which the run began with
    assert checkpoints_now(run, None, second) == [second, first]


@pytest.mark.parametrize("listed", [True, False])
def test_what_cannot_be_read_now_is_not_removed(tmp_path, monkeypatch, listed):
    run = run_with(tmp_path / "run", 1, 2)
    if not listed:
        (run / LISTING).unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    error = OSError(errno.ESTALE, "Stale file handle")
    places = [(os, "stat"), (Path, "is_dir"), (torch, "load")] + [(Path, "lstat")] * listed
    for place, name in places:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, failing(getattr(place, name), error))
            with pytest.raises((PassingError, OSError), match="Stale file handle"):
                begun(run)
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert begun(run) == 2
