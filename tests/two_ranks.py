"""Two workers in processes of their own, connected as Ray Train connects them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.runtime.ranks import Ranks

WORKERS = 2


def with_two_ranks(function: Callable[[Ranks], Any], folder: Path) -> list[Any]:
    """function(ranks) of each of two workers, and what each returned: tensors and plain values.

    Args:
        function: importable, or a partial of what is.
    """
    folder.mkdir()
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "pipeline.training.tokenizer"])
    processes = [
        context.Process(target=_worker, args=(function, folder, rank)) for rank in range(WORKERS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * WORKERS
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORKERS)]


def _worker(function: Callable[[Ranks], Any], folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=WORKERS)
    torch.save(function(Ranks(rank, WORKERS)), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
