"""Two workers in separate processes, connected as in Ray Train."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

from pipeline.data.ranks import Ranks

WORKERS = 2


def with_ranks(function: Callable[[Ranks], Any], folder: Path, backend: str = "gloo") -> list[Any]:
    """Return the results of function(ranks) in each worker: tensors and plain values.

    Args:
        function: importable, or a partial of what is.
        backend: "gloo" for CPU tensors, or "nccl" if each worker has its own GPU.
    """
    folder.mkdir()
    given = (function, folder, backend)
    multiprocessing.set_forkserver_preload(["torch", "pipeline.training.tokenizer"])
    multiprocessing.start_processes(_worker, given, WORKERS, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORKERS)]


def _worker(rank: int, function: Callable[[Ranks], Any], folder: Path, backend: str) -> None:
    torch.set_num_threads(1)
    if backend == "nccl":
        torch.cuda.set_device(rank)  # which `pick_device` then picks
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group(backend, meeting, rank=rank, world_size=WORKERS)
    torch.save(function(Ranks(rank, WORKERS)), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
