"""The keepers of a loop's state under Ray Train: where the nodes share a folder, and where not."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import torch

from pipeline.runtime.folders import atomic_folder
from pipeline.runtime.ranks import Ranks
from pipeline.runtime.store import follow
from pipeline.training.loop.behind import snapshot
from pipeline.training.loop.checkpoints import RunDirSession, newest_whole, save_checkpoint
from pipeline.training.loop.ray_checkpoints import CHECKPOINT, checkpoints_now


class RayTrainSession:
    """Checkpoints through Ray Train; the first worker writes, all report together."""

    who: Mapping[str, float] = {}

    def __init__(
        self,
        run_dir: Path,
        on_row: Callable[[dict[str, float]], None],
        unlisted: Path | None,
        ranks: Ranks,
    ):
        self.ranks, self.rank = ranks, ranks.rank
        self.folder, self.on_row, self.unlisted = run_dir, on_row, unlisted
        self._kept = Event()
        self._kept.set()

    def average(self, row: dict[str, float]) -> dict[str, float]:
        return _average(row, self.ranks)

    def load(self) -> dict[str, Any] | None:
        import ray.train

        found = checkpoints_now(self.folder, ray.train.get_checkpoint(), self.unlisted)
        state, _ = newest_whole(found, print if self.rank == 0 else lambda line: None)
        return state

    def save(self, state: dict[str, Any], row: dict[str, float]) -> None:
        import ray.train

        self.settle()
        if self.rank != 0:
            ray.train.report(row, checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC)
            return
        self.on_row(row)  # first: a kill in between repeats the row, which is logged once
        self._kept.clear()
        try:
            ray.train.report(
                row,
                checkpoint=ray.train.Checkpoint(str(self.folder)),  # of which nothing is read
                checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
                checkpoint_upload_fn=partial(self._upload, snapshot(state)),
                delete_local_checkpoint_after_upload=False,
            )
        except BaseException:  # nothing is on its way
            self._kept.set()
            raise

    def settle(self) -> None:
        self._kept.wait()

    def _upload(self, state: dict[str, Any], _: Any, name: str) -> Any:
        """Write a checkpoint to where Ray looks for it, in Ray's thread."""
        import ray.train

        try:
            with atomic_folder(self.folder / name) as folder:
                save_checkpoint(state, folder / CHECKPOINT)
                follow(folder / CHECKPOINT, self.folder)
        finally:
            self._kept.set()
        return ray.train.Checkpoint(str(self.folder / name))


class SentSession(RunDirSession):
    """Checkpoints where the nodes share no folder: the first worker writes them to its run
    directory, and sends them home, from where all workers have them when they start."""

    def __init__(self, run_dir: Path, on_row: Callable[[dict[str, float]], None], ranks: Ranks):
        super().__init__(run_dir, on_row)
        self.ranks, self.rank = ranks, ranks.rank

    def average(self, row: dict[str, float]) -> dict[str, float]:
        return _average(row, self.ranks)

    def save(self, state: dict[str, Any], row: dict[str, float]) -> None:
        import ray.train

        if self.rank == 0:
            super().save(state, row)
        ray.train.report(row)


def _average(row: dict[str, float], ranks: Ranks) -> dict[str, float]:
    if ranks.workers == 1:
        return row
    import ray.train.torch

    device = ray.train.torch.get_device()
    values = torch.tensor(list(row.values()), dtype=torch.float64, device=device)
    return dict(zip(row, (ranks.total(values) / ranks.workers).tolist(), strict=True))
