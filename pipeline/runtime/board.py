"""Sums over the workers of one machine, in memory that they share.

gloo, which torch has for CPUs, sends by TCP: a hundred numbers take it 0.3 to 0.7 ms between two
workers on two cores, as long as a layer of a small network, and 0.02 ms here.
"""

import contextlib
import fcntl
import os
import platform
import secrets
import stat
import time
from mmap import mmap
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

ROOM = 1 << 20  # bytes of a worker's place; what is larger goes in parts
LINE = 64  # bytes that cores exchange; two workers' counts do not share one
SPIN = 1e-3  # seconds in which a waiting worker looks without pause, then NAP apart
NAP = 1e-4
LOOK = 1.0  # seconds between looks at whether the others are alive; then it looks LONG_NAP apart
LONG_NAP = 5e-3
TIMEOUT = 1800.0  # seconds, as of torch's process groups

# Where a core's stores are seen by the others in their order, which `Board.total` relies on.
ORDERED = "x86_64"


class Board:
    """Where each of a machine's workers writes its numbers, and reads all others'.

    Each has two places, of known size, and a count of what it wrote. It writes into its places in
    turn, counts, and reads when all have counted as far. What it overwrites was read by all: they
    have written since.

    Args:
        file: the shared memory. A worker locks a byte of it for as long as it lives (closing any
            descriptor of it would end that).
    """

    def __init__(self, file: IO[bytes], rank: int, workers: int):
        self.file, self.rank, self.workers = file, rank, workers
        memory = np.frombuffer(mmap(file.fileno(), _size(workers)), np.uint8)
        lines = memory[: workers * LINE].view(np.int64).reshape(workers, -1)
        self.counts, self.sizes = lines[:, 0], (lines[:, 1], lines[:, 2])
        with torch.inference_mode(False):
            places = torch.from_numpy(memory[workers * LINE :])
            self.places = places.view(2, workers, ROOM)
        self._views: dict[tuple[int, int, torch.dtype], tuple[Tensor, ...]] = {}
        self.done = 0
        fcntl.lockf(file, fcntl.LOCK_EX, 1, rank)

    def total(self, values: Tensor) -> Tensor:
        """Values (any shape, on the CPU) added up in the order of ranks.

        Raises:
            RuntimeError: a worker was lost, did not come for half an hour, or adds another number
                of bytes.
        """
        if values.nbytes <= ROOM:
            return self._total(values.flatten()).view(values.shape)
        parts = values.flatten().split(ROOM // values.itemsize)
        return torch.cat([self._total(part) for part in parts]).view(values.shape)

    def _total(self, values: Tensor) -> Tensor:
        self.done += 1
        turn, size = self.done % 2, values.nbytes
        rows, sizes = self._rows(turn, size, values.dtype), self.sizes[turn]
        rows[self.rank].copy_(values)
        sizes[self.rank] = size
        self.counts[self.rank] = self.done
        self._wait()
        if (sizes != size).any():
            raise RuntimeError(f"workers add up different numbers of bytes: {sizes.tolist()}")
        total = rows[0] + rows[1]
        for others in rows[2:]:
            total += others
        return total

    def _rows(self, turn: int, size: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Each worker's place for so many bytes. A training has a few sizes, again and again."""
        key = turn, size, dtype
        if key not in self._views:
            self._views[key] = self.places[turn, :, :size].view(dtype).unbind()
        return self._views[key]

    def _wait(self) -> None:
        began = looked = time.monotonic()
        while self.counts.min() < self.done:
            now = time.monotonic()
            if now - began < SPIN:
                os.sched_yield()  # to a thread of this worker's, perhaps
                continue
            time.sleep(NAP if now - began < LOOK else LONG_NAP)
            if now - looked > LOOK:
                looked = now
                self._look_for_others()
                if now - began > TIMEOUT:
                    raise RuntimeError(f"another worker did not come for {TIMEOUT:.0f} seconds")

    def _look_for_others(self) -> None:
        for rank in range(self.workers):
            if rank == self.rank:
                continue
            try:
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, rank)
            except OSError:  # it lives, and holds it
                continue
            fcntl.lockf(self.file, fcntl.LOCK_UN, 1, rank)  # for who looks next
            if self.counts[rank] < self.done:  # else it had nothing more to add
                raise RuntimeError(f"worker {rank} was lost")


def open_board(rank: int, workers: int) -> Board | None:
    """A board for the workers of torch's process group (gloo), all of whom call this at once; None
    where they do not share a machine that offers what it needs."""
    machines = [""] * workers
    torch.distributed.all_gather_object(machines, _machine())
    if machines[0] == "" or len(set(machines)) > 1:
        return None
    file, name = _create(workers) if rank == 0 else (None, None)
    names, board = [name], None
    torch.distributed.broadcast_object_list(names, src=0)
    if names[0] is not None:
        with contextlib.suppress(OSError, ValueError):
            board = Board(file or _open(*names[0], workers), rank, workers)
    boards = torch.tensor(int(board is not None))
    # This waits for all, too: before, one that has not locked its byte would seem lost.
    torch.distributed.all_reduce(boards, torch.distributed.ReduceOp.MIN)
    return board if boards else None


def _size(workers: int) -> int:
    return workers * (LINE + 2 * ROOM)


def _machine() -> str:
    """What this start of this machine is called by its system; empty where there is no board."""
    if platform.machine() != ORDERED or not hasattr(os, "memfd_create"):
        return ""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""


def _create(workers: int) -> tuple[IO[bytes], tuple[str, str]] | tuple[None, None]:
    """Shared memory without a name in any folder, which ends with its last process; the path by
    which others open it, and what stands in it. None where there is too little."""
    word = secrets.token_hex(16)
    try:
        file = os.fdopen(os.memfd_create("maskgit-board"), "r+b", buffering=0)
        os.posix_fallocate(file.fileno(), 0, _size(workers))  # later, it would be a crash
        os.pwrite(file.fileno(), word.encode(), workers * LINE)
    except OSError:
        return None, None
    return file, (f"/proc/{os.getpid()}/fd/{file.fileno()}", word)


def _open(path: str, word: str, workers: int) -> IO[bytes]:
    """What another process created.

    Raises:
        OSError: this process, in another container perhaps, cannot reach it; the path may then
            lead to anything, of which nothing is to be opened that waits or acts.
        ValueError: it holds something else.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is no file")
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags), "r+b", buffering=0)
    found = os.pread(file.fileno(), len(word), workers * LINE)
    if os.fstat(file.fileno()).st_size != _size(workers) or found.decode() != word:
        raise OSError(f"{path} is another file")
    return file
