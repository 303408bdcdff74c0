"""Batches that depend only on their step. `python -m tests.data.step_batches LOADERS` trains on
them until it is stopped, and prints its steps."""

import sys
import time
from typing import Any

import torch

from pipeline.data.images.batches import Batch, Batches, prepared
from pipeline.runtime.process import cores, set_up

CPU = torch.device("cpu")


class StepBatches(Batches):
    """A batch holds its step, and the numbers of cores and threads that made it."""

    def load(self, step: int) -> Any:
        time.sleep(0.2)
        return step

    def finish(self, step: int, loaded: Any) -> Batch:
        return torch.tensor([loaded]), torch.tensor([cores(), torch.get_num_threads()])


def main(loaders: int) -> None:
    set_up()
    batches = prepared(StepBatches(), loaders, CPU)
    try:
        for step in range(10_000):
            batches(step)
            print(step, flush=True)
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main(int(sys.argv[1]))
