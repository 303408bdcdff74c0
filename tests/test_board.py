"""Sums in memory that a machine's workers share, and when they go another way."""

import gc
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
from tests.several_ranks import WORKERS, with_ranks

pytestmark = pytest.mark.skipif(board._machine() == "", reason="this machine offers no board")

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
    for worker in with_ranks(many_totals, tmp_path / "ranks"):
        assert worker["shared"]
        for total, value in zip(worker["found"], wanted, strict=True):
            assert total.dtype == value.dtype and torch.equal(total, value)


def large(ranks: Ranks) -> torch.Tensor:
    numbers = torch.arange(2 * board.ROOM // 4 + 3, dtype=torch.float32)  # two places and a bit
    total = ranks.total(numbers * (ranks.rank + 1))
    return torch.stack([(total - 3 * numbers).abs().max(), total[-1]])


def test_what_is_larger_than_a_place_goes_in_parts(tmp_path):
    for found in with_ranks(large, tmp_path / "ranks"):
        assert found.tolist() == [0.0, 3.0 * (2 * board.ROOM // 4 + 2)]


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
    found = with_ranks(partial(without, change, tmp_path / "other"), tmp_path / "ranks")
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
        time.sleep(3)  # its process lives on, as one of Ray's does
        return f"{error} {time.monotonic() - started < 10}"
    return "nothing was noticed"


def test_every_other_worker_notices_in_seconds_that_one_is_lost(tmp_path):
    found = with_ranks(partial(one_leaves, tmp_path / "ranks"), tmp_path / "ranks", workers=3)
    assert found == ["worker 1 was lost True", "left", "worker 1 was lost True"]


def one_is_late(left: Path, ranks: Ranks) -> str:
    ranks.total(torch.ones(1))
    board.TIMEOUT = 1.5
    if ranks.rank == 1:
        while not left.exists():
            time.sleep(0.01)
        return "late"
    try:
        ranks.total(torch.ones(1))
    except RuntimeError as error:
        left.touch()
        return str(error)
    return "it came"


def test_nobody_waits_for_ever(tmp_path):
    found = with_ranks(partial(one_is_late, tmp_path / "left"), tmp_path / "ranks")
    assert found == ["another worker did not come for 2 seconds", "late"]


def the_last_leaves_at_once(ranks: Ranks) -> float:
    """The sum is there when the other looks whether it lives."""
    if ranks.rank == 0:
        board.Board._wait = looking_only_at_life
    ranks.total(torch.ones(1))
    return ranks.total(torch.ones(1)).item()


def looking_only_at_life(own: board.Board) -> None:
    while own.counts.min() < own.done:
        time.sleep(0.2)
    own._look_for_others()


def test_one_that_has_added_all_is_not_lost(tmp_path):
    assert with_ranks(the_last_leaves_at_once, tmp_path / "ranks") == [2.0, 2.0]


def different(ranks: Ranks) -> str:
    try:
        ranks.total(torch.ones(3 + ranks.rank))
    except RuntimeError as error:
        return str(error)
    return "added up"


def test_sums_of_different_sizes_are_refused(tmp_path):
    message = "workers add up different numbers of bytes: [12, 16]"
    assert with_ranks(different, tmp_path / "ranks") == [message, message]


def in_the_order_of_ranks(ranks: Ranks) -> bool:
    draws = [torch.rand(5000, generator=torch.Generator().manual_seed(r)) for r in range(5)]
    total = ranks.total(draws[ranks.rank])
    return torch.equal(total, draws[0] + draws[1] + draws[2] + draws[3] + draws[4])


def test_five_workers_add_up_in_the_order_of_ranks(tmp_path):
    assert all(with_ranks(in_the_order_of_ranks, tmp_path / "ranks", workers=5))


def no_lock(*_: object) -> None:
    raise OSError("no locks available")


def one_fails(ranks: Ranks) -> dict:
    if ranks.rank == 1:
        board.fcntl.lockf = no_lock
    total = ranks.total(torch.ones(1)).item()
    gc.collect()
    files = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    left = [file for file in files if "maskgit-board" in file]
    return {"total": total, "shared": ranks._board is not None, "left": left}


def test_one_that_cannot_open_it_leaves_nothing_and_nobody_behind(tmp_path):
    wanted = {"total": 2.0, "shared": False, "left": []}
    assert with_ranks(one_fails, tmp_path / "ranks") == [wanted, wanted]


def copied(ranks: Ranks) -> dict:
    ranks.total(torch.ones(1))
    copy = pickle.loads(pickle.dumps(ranks))
    return {"same": copy == ranks, "opened": "_board" in vars(copy)}


def test_a_copy_for_another_process_has_no_board(tmp_path):
    for found in with_ranks(copied, tmp_path / "ranks"):
        assert found == {"same": True, "opened": False}
