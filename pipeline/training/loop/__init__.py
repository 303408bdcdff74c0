"""The training loop (`train`), its checkpoints (`checkpoints`) and averaged weights (`average`)."""

from pipeline.training.loop.average import averaged, averaged_weights
from pipeline.training.loop.checkpoints import RunDirSession, load_checkpoint, save_checkpoint
from pipeline.training.loop.train import Diverged, Session, Task, train

__all__ = [
    "Diverged",
    "RunDirSession",
    "Session",
    "Task",
    "averaged",
    "averaged_weights",
    "load_checkpoint",
    "save_checkpoint",
    "train",
]
