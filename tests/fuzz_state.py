"""Hostile state of runs: checkpoints, finished parts of a killed run, cells, curves."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.data.images.writing import write_shards
from pipeline.experiments.ablation.trial import Cell, Trial
from pipeline.runtime.checksums import note_hash
from pipeline.runtime.files import write_json
from pipeline.training.loop import RunDirSession, Workers, load_checkpoint, save_checkpoint
from tests.fuzz_caches import damage
from tests.fuzzing import Case
from tests.interruption import fit
from tests.test_loop import ToyTask
from tests.test_shards import FakeSource

ODD = ("empty", "folder", "fifo")


def cases(random: random.Random) -> list[Case]:
    made = [Case("good checkpoint", "accept", partial(_checkpoint, [], None))]
    newest, both = ["checkpoint.pt"], ["checkpoint.pt", "checkpoint.before.pt"]
    for how in [*ODD, "gone", *(random.randrange(2**32) for _ in range(16))]:
        made.append(Case(f"newest checkpoint: {how}", "accept", partial(_checkpoint, newest, how)))
    for how in ODD:
        made.append(Case(f"both checkpoints: {how}", "refuse", partial(_checkpoint, both, how)))
    for number, state in enumerate(STATES):
        made.append(
            Case(f"checkpoint of something else {number}", "refuse", partial(_state, state))
        )
    for name, weights in (
        ("shape", {"weight": torch.ones(9), "bias": torch.ones(2)}),
        ("keys", {}),
    ):
        made.append(Case(f"checkpoint of another {name}", "refuse", partial(_weights, weights)))
    made.append(Case("checkpoint of another run", "refuse", _another_run))
    for how in ["empty", "gone", *(random.randrange(2**32) for _ in range(12))]:
        made.append(Case(f"shard of a killed run: {how}", "accept", partial(_shard, how)))
    for name, content in CELLS.items():
        for noted in (False, True):
            must = "refuse" if noted else "accept"  # it is measured again
            run = partial(_cell, content, noted)
            made.append(Case(f"cell: {name}, {'as noted' if noted else 'damaged'}", must, run))
    for name, losses in LOSSES.items():
        made.append(Case(f"loss: {name}", "refuse", partial(_loss, losses)))
    return made


def _checkpoint(names: list[str], how: int | str | None, folder: Path) -> None:
    fit(ToyTask(), RunDirSession(folder), steps=9)
    for name in names:
        damage(folder / name, how)
    task = ToyTask()
    history = fit(task, RunDirSession(folder), steps=12)
    assert [row["step"] for row in history] == [3, 6, 9, 12]
    straight = ToyTask()
    assert fit(straight, RunDirSession(folder / "straight"), steps=12) == history


def _state(state: Any, folder: Path) -> None:
    save_checkpoint(state, folder / "checkpoint.pt")
    fit(ToyTask(), RunDirSession(folder))


def _weights(weights: dict[str, torch.Tensor], folder: Path) -> None:
    fit(ToyTask(), RunDirSession(folder))
    state = load_checkpoint(folder / "checkpoint.pt")
    state["task"]["model"] = weights
    _state(state, folder)


def _another_run(folder: Path) -> None:
    fit(ToyTask(), RunDirSession(folder))
    _state(load_checkpoint(folder / "checkpoint.pt") | {"run": "another"}, folder)


def _shard(how: int | str, folder: Path) -> None:
    whole = write_shards(FakeSource([10]), list(range(10)), "train", 4, folder / "whole")
    write_shards(FakeSource([10]), list(range(10)), "train", 4, folder / "killed")
    damage(folder / "killed/train-00001.parquet", how)
    again = write_shards(FakeSource([10]), list(range(10)), "train", 4, folder / "killed")
    assert again == whole


def _cell(content: bytes | dict, noted: bool, folder: Path) -> None:
    params = {"training": {"mask_schedule": "cosine"}, "transformer": {"pretrained": None}}
    params["evaluation"] = {"extractor": "classifier"}
    cell = Cell("cosine", 2, str(folder))
    alone = Workers(1, 1, False, 0)
    trial = Trial(0, [cell], [], str(folder), None, alone, params, str(folder), str(folder))
    path = cell.path
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_json(path, content)
    if noted:
        note_hash(path)
    assert trial.missing() == ([] if noted else [cell])
    if not noted:
        return
    trial.rows()
    trial.timings()


def _loss(value: Callable[[int], float], folder: Path) -> None:
    class Task(ToyTask):
        def step(self, step: int) -> dict[str, torch.Tensor]:
            return super().step(step) | {"loss": torch.tensor(value(step))}

    fit(Task(), RunDirSession(folder))


STATES: list[Any] = [{}, {"step": 3}, [1, 2], 7, {"task": 1, "step": 3}, torch.ones(3), "text"]
STATES += [
    {"task": task, "step": 3, "history": [{"step": 3}], "run": "toy"} for task in (None, {}, [1])
]
STATES += [{"task": {}, "step": 3, "history": [{"step": 3}]}]
CELLS: dict[str, bytes | dict] = {
    "empty": b"",
    "text": b"row",
    "cut": b'{"row": {"a": 1',
    "a list": b"[1, 2]",
    "null": b"null",
    "no row": {"timing": {}},
    "no timing": {"row": {}},
    "not UTF-8": b"\xff\xfe{}",
    "deep": b"[" * 200_000,
}
LOSSES: dict[str, Callable[[int], float]] = {
    "NaN at once": lambda step: float("nan"),
    "NaN at the end": lambda step: float("nan") if step == 10 else 1.0,
    "infinite": lambda step: float("inf") if step == 4 else 1.0,
    "negative infinite": lambda step: -float("inf") if step == 5 else 1.0,
}
