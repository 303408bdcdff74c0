"""Batches whose pictures are slow, damaged or too much, for loaders; and a training that takes them
until it is ended: `python -m tests.data.strange_batches LOADERS`, which prints its steps."""

import os
import signal
import sys
import time
from typing import Any

import torch

from pipeline.data.images.batches import Batch, Batches
from pipeline.data.images.loading import prepared
from pipeline.runtime.errors import UserError
from pipeline.runtime.process import cores, set_up

CPU = torch.device("cpu")


class Strange(Batches):
    """A batch is its step. What befalls it is in the step's own part.

    Args:
        read_at, crop_at: steps whose pictures are damaged as they are read, or decoded.
        killed_at: the step whose process is killed.
    """

    def __init__(self, read_at: int = -1, crop_at: int = -1, killed_at: int = -1):
        self.read_at, self.crop_at, self.killed_at = read_at, crop_at, killed_at

    def read(self, step: int) -> Any:
        if step == self.read_at:
            raise UserError(f"data/images/{step}.parquet is damaged; make it again")
        return bytes(10)

    def crop(self, step: int, stored: Any) -> Any:
        if step == self.crop_at:
            raise UserError(f"picture {step} is damaged; make it again")
        if step == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor([step])

    def finish(self, step: int, cropped: Any) -> Batch:
        return cropped, cropped


class Threads(Strange):
    """The threads that a batch is made with."""

    def finish(self, step: int, cropped: Any) -> Batch:
        return torch.tensor([cores()]), torch.tensor([torch.get_num_threads()])


class Endless(Strange):
    """Large and slow: always on the way to a loader that works."""

    def read(self, step: int) -> Any:
        return bytes(20_000_000)

    def crop(self, step: int, stored: Any) -> Any:
        time.sleep(0.2)
        return torch.tensor([step])


def main(loaders: int) -> None:
    set_up()
    batches = prepared(Endless(), loaders, CPU)
    try:
        for step in range(10_000):
            batches(step)
            print(step, flush=True)
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main(int(sys.argv[1]))
