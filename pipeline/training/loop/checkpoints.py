"""Checkpoints: as files in a run directory, or in Ray Train's storage."""

import errno
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.data.ranks import Ranks
from pipeline.runtime.errors import PassingError, UserError
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import atomic_file, remove_temporary, temporary_beside
from pipeline.runtime.storage import download, upload

CHECKPOINT = "checkpoint.pt"  # the newest of a training
BEFORE = "checkpoint.before.pt"  # the one before
State = dict[str, Any]  # {task, step, history}


class RunDirCheckpoints:
    """Stores the two newest checkpoints of a training in one process, in its run directory. A
    thread writes a checkpoint while the training continues."""

    def __init__(self, folder: Path):
        self.path, self.before = folder / CHECKPOINT, folder / BEFORE
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future | None = None

    def load(self) -> State | None:
        """The newest checkpoint, or None. A damaged checkpoint is removed, and the one before it is
        used."""
        download(self.path.parent)
        remove_temporary(self.path.parent)
        for path in (self.path, self.before):
            if path.exists():
                try:
                    return load_checkpoint(path)
                except PassingError:
                    raise
                except UserError as error:
                    print(f"{error}; it is removed, the one before it is used", flush=True)
                    path.unlink()
        return None

    def save(self, state: State) -> None:
        """Begin to write a checkpoint, whole or not at all. Raises a `UserError` if the one before
        could not be written."""
        self.wait()  # before there is a second copy in memory
        self._writing = self._pool.submit(self._write, snapshot(state))

    def wait(self) -> None:
        """Wait until the last checkpoint is written; raises a `UserError` if it could not be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, state: State) -> None:
        save_checkpoint(state, self.path, self.before)
        upload(self.path)


class RayTrainCheckpoints:
    """Checkpoints in Ray Train's storage; the first worker writes, all report together."""

    def __init__(self, folder: Path, ranks: Ranks):
        self.path, self.ranks = folder / CHECKPOINT, ranks

    def load(self) -> State | None:
        import ray.train

        if (checkpoint := ray.train.get_checkpoint()) is None:
            return None
        with checkpoint.as_directory() as folder:
            return load_checkpoint(Path(folder, CHECKPOINT))

    def save(self, state: State) -> None:
        import ray.train

        checkpoint = None
        if self.ranks.rank == 0:
            folder = temporary_beside(self.path)
            save_checkpoint(state, folder / CHECKPOINT)
            checkpoint = ray.train.Checkpoint(str(folder))
        ray.train.report(
            state["history"][-1],
            checkpoint=checkpoint,
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
        )

    def wait(self) -> None:
        """Ray Train itself waits for the last upload."""


def snapshot(state: Any) -> Any:
    """A copy of a state in CPU memory, which the next step does not change."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(snapshot(value) for value in state)
    return state


def save_checkpoint(state: State, path: Path, before: Path | None = None) -> None:
    """Write a checkpoint, and move the one that was there to `before`. Raises a `UserError` if it
    cannot be written; what was there stays."""
    with atomic_file(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # what torch raises when the disk is full
            raise OSError(errno.ENOSPC, f"no space, or {str(error).splitlines()[0]}") from error
        if before and path.exists():
            os.replace(path, before)


def load_checkpoint(path: Path) -> State:
    """Read what `save_checkpoint` wrote, without running code from it.

    Raises:
        UserError: torch cannot load it.
        PassingError: it cannot be read now, but may be later.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types
        require_readable(path, error)
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(str(path), f"the checkpoint is damaged ({reason})") from error
