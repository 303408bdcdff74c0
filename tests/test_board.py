"""Sums in memory that a machine's workers share, and when they go another way."""

import os
import pickle
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from pipeline.runtime import board
from pipeline.runtime.ranks import Ranks
from tests.two_ranks import WORKERS, with_two_ranks

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


def drawn(number: int, rank: int) -> torch.Tensor:
    """A worker's values: of many shapes and kinds, some of them views with gaps."""
    noise = torch.Generator().manual_seed(1000 * rank + number)
    shape = [(), (0,), (7,), (3, 5), (2, 3, 4), (1000, 3)][number % 6]
    values = 100 * torch.rand(shape, generator=noise)
    if number % 4 == 0 and values.ndim > 1:
        values = values.mT
    return values.to(DTYPES[number % len(DTYPES)])


def many_totals(ranks: Ranks) -> dict:
    """Two hundred sums, of workers that take turns in being late."""
    late, found = torch.Generator().manual_seed(ranks.rank), []
    for number in range(200):
        if torch.rand((), generator=late) < 0.2:
            time.sleep(0.005)
        found.append(ranks.total(drawn(number, ranks.rank)))
    return {"found": found, "shared": ranks._board is not None}


def test_the_totals_of_workers_that_come_late_are_their_sums(tmp_path):
    wanted = [
        torch.stack([drawn(number, rank) for rank in range(WORKERS)]).sum(0, dtype=kind)
        for number in range(200)
        for kind in [DTYPES[number % len(DTYPES)]]
    ]
    for worker in with_two_ranks(many_totals, tmp_path / "ranks"):
        assert worker["shared"]
        for total, value in zip(worker["found"], wanted, strict=True):
            assert total.dtype == value.dtype and torch.equal(total, value)


def large(ranks: Ranks) -> torch.Tensor:
    ranks.total(torch.ones(1))
    full, beyond = (torch.ones(board.ROOM // 4 + more) for more in (0, 1))
    return torch.stack([ranks.total(values).sum() for values in (full, beyond)])


def test_what_has_no_room_goes_by_gloo(tmp_path):
    for found in with_two_ranks(large, tmp_path / "ranks"):
        assert found.tolist() == [2 * board.ROOM // 4, 2 * (board.ROOM // 4 + 1)]


def other_machines(ranks: Ranks) -> str:
    return f"machine {ranks.rank}"


def without(change: str, other: Path, ranks: Ranks) -> dict:
    if change == "machines apart":
        board._machine = partial(other_machines, ranks)
    elif change == "another processor":
        board.platform.machine = lambda: "aarch64"
    elif change == "no memory":
        board.os.posix_fallocate = refused
    elif ranks.rank == 1:  # in a container of its own, where the path leads to something else
        if change == "a pipe there":
            os.mkfifo(other)
        elif change == "a file there":
            other.write_bytes(bytes(board._size(WORKERS)))
        board.os.open = partial(opened_for, other, os.open)
    total = ranks.total(torch.tensor([1.0 + ranks.rank]))
    return {"total": total.item(), "shared": ranks._board is not None}


def opened_for(other: Path, open_file: Callable[..., int], path: str, *rest, **named) -> int:
    return open_file(other if str(path).startswith("/proc/") else path, *rest, **named)


def refused(*_: int) -> None:
    raise OSError("no space")


@pytest.mark.parametrize(
    "change",
    [
        *("machines apart", "another processor", "no memory"),
        *("nothing there", "a pipe there", "a file there"),
    ],
)
def test_workers_that_share_no_memory_have_the_same_totals(change, tmp_path):
    found = with_two_ranks(partial(without, change, tmp_path / "other"), tmp_path / "ranks")
    assert found == WORKERS * [{"total": 3.0, "shared": False}]


def one_leaves(folder: Path, ranks: Ranks) -> str:
    ranks.total(torch.ones(1))
    if ranks.rank == 1:
        torch.save("left", folder / "1.pt")
        os._exit(0)
    started = time.monotonic()
    try:
        ranks.total(torch.ones(1))
    except RuntimeError as error:
        return f"{error} {time.monotonic() - started < 10}"
    return "nothing was noticed"


def test_a_lost_worker_is_noticed_in_seconds(tmp_path):
    found = with_two_ranks(partial(one_leaves, tmp_path / "ranks"), tmp_path / "ranks")
    assert found == ["worker 1 was lost True", "left"]


def one_waits(ranks: Ranks) -> str:
    ranks.total(torch.ones(1))
    board.TIMEOUT = 1.5
    if ranks.rank == 1:
        time.sleep(5)
        return "late"
    try:
        ranks.total(torch.ones(1))
    except RuntimeError as error:
        return str(error)
    return "it came"


def test_nobody_waits_for_ever(tmp_path):
    found = with_two_ranks(one_waits, tmp_path / "ranks")
    assert found == ["worker 1 did not come for half an hour", "late"]


def left_over(ranks: Ranks) -> dict:
    before = set(os.listdir("/dev/shm"))
    ranks.total(torch.ones(1))
    new = sorted(set(os.listdir("/dev/shm")) - before)
    copy = pickle.loads(pickle.dumps(ranks))
    return {"files": new, "same": copy == ranks, "opened": "_board" in vars(copy)}


def test_nothing_lies_around_and_a_copy_for_another_process_has_no_board(tmp_path):
    for found in with_two_ranks(left_over, tmp_path / "ranks"):
        assert found == {"files": [], "same": True, "opened": False}
