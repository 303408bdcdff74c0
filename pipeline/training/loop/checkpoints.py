"""Writes and reads checkpoints, in a run directory or in Ray Train's storage."""

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

CHECKPOINT = "checkpoint.pt"  # the newest checkpoint of a training run
BEFORE = "checkpoint.before.pt"  # the previous checkpoint
State = dict[str, Any]  # {task, step, history}


class RunDirCheckpoints:
    """Stores the two newest checkpoints of a training run without Ray Train, in its run directory.
    A thread writes each checkpoint while training continues."""

    def __init__(self, folder: Path):
        self.path, self.before = folder / CHECKPOINT, folder / BEFORE
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future | None = None

    def load(self) -> State | None:
        """Load the newest checkpoint that is not damaged, and delete newer, damaged ones. Returns
        None if no undamaged checkpoint exists."""
        download(self.path.parent)
        remove_temporary(self.path.parent)
        for path in (self.path, self.before):
            if path.exists():
                try:
                    return load_checkpoint(path)
                except PassingError:
                    raise
                except UserError as error:
                    print(f"{error}; file deleted; using the previous one, if any", flush=True)
                    path.unlink()
        return None

    def save(self, state: State) -> None:
        """Start to write a checkpoint in a thread. Raises a `UserError` if the previous checkpoint
        could not be written."""
        self.wait()  # so that only one copy of the state is in memory
        self._writing = self._pool.submit(self._write, snapshot(state))

    def wait(self) -> None:
        """Wait until the last checkpoint is written. Raises a `UserError` if writing failed."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, state: State) -> None:
        save_checkpoint(state, self.path, self.before)
        upload(self.path)


class RayTrainCheckpoints:
    """Stores checkpoints with Ray Train. The first worker writes each checkpoint, and all workers
    report it to Ray."""

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
        """Do nothing: Ray Train itself waits for the last upload."""


def snapshot(state: Any) -> Any:
    """Copy a training state to CPU memory, so that the next step does not change the copy."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(snapshot(value) for value in state)
    return state


def save_checkpoint(state: State, path: Path, before: Path | None = None) -> None:
    """Write a checkpoint to `path`, and move the previous file at `path` to `before`. If writing
    fails, a `UserError` is raised and existing files are kept."""
    with atomic_file(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch raises this error if the disk is full
            raise OSError(errno.ENOSPC, f"disk full? {str(error).splitlines()[0]}") from error
        if before and path.exists():
            os.replace(path, before)


def load_checkpoint(path: Path) -> State:
    """Read a checkpoint that `save_checkpoint` wrote, without executing code in the file. Raises a
    `UserError` if the file is damaged, or a `PassingError` if a later try may succeed, for example
    after a lack of memory."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types of errors for damaged files
        require_readable(path, error)
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(str(path), f"the checkpoint is damaged ({reason})") from error
