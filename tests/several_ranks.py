"""Workers in processes of their own, connected as Ray Train connects them; two if not said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.data.ranks import Ranks

WORKERS = 2


def with_ranks(
    function: Callable[[Ranks], Any], folder: Path, workers: int = WORKERS, backend: str = "gloo"
) -> list[Any]:
    """function(ranks) of each of so many workers, and what each returned: tensors and plain values.

    Args:
        function: importable, or a partial of what is.
        backend: "gloo", for tensors of a CPU, or "nccl", where each worker has a GPU of its own.
    """
    folder.mkdir()
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "pipeline.training.tokenizer"])
    processes = [
        context.Process(target=_worker, args=(function, folder, rank, workers, backend))
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * workers
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(workers)]


def _worker(
    function: Callable[[Ranks], Any], folder: Path, rank: int, workers: int, backend: str
) -> None:
    torch.set_num_threads(1)
    if backend == "nccl":
        torch.cuda.set_device(rank)  # that `pick_device` picks then
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group(backend, meeting, rank=rank, world_size=workers)
    torch.save(function(Ranks(rank, workers)), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
