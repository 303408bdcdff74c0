"""Two workers in processes of their own, connected as Ray Train connects them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.data.ranks import Ranks

WORKERS = 2


def with_ranks(function: Callable[[Ranks], Any], folder: Path, backend: str = "gloo") -> list[Any]:
    """What function(ranks) returns in each worker: tensors and plain values.

    Args:
        function: importable, or a partial of what is.
        backend: "gloo", for tensors of a CPU, or "nccl", where each worker has a GPU of its own.
    """
    folder.mkdir()
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "pipeline.training.tokenizer"])
    processes = [
        context.Process(target=_worker, args=(function, folder, rank, backend))
        for rank in range(WORKERS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * WORKERS
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORKERS)]


def _worker(function: Callable[[Ranks], Any], folder: Path, rank: int, backend: str) -> None:
    torch.set_num_threads(1)
    if backend == "nccl":
        torch.cuda.set_device(rank)  # that `pick_device` picks then
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group(backend, meeting, rank=rank, world_size=WORKERS)
    torch.save(function(Ranks(rank, WORKERS)), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
