"""The training loop (`train`), its checkpoints (`checkpoints`) and averaged weights (`average`); a
training as a whole (`job`, `run`), by one process or by several under Ray Train (`ray_train`)."""

from pipeline.training.loop.average import Average, averaged_weights
from pipeline.training.loop.checkpoints import (
    RunDirSession,
    load_checkpoint,
    save_checkpoint,
)
from pipeline.training.loop.finite import Diverged
from pipeline.training.loop.job import TrainingJob, Workers
from pipeline.training.loop.run import require_workers, run_training
from pipeline.training.loop.train import Session, Task, train

__all__ = [
    "Average",
    "Diverged",
    "RunDirSession",
    "Session",
    "Task",
    "TrainingJob",
    "Workers",
    "averaged_weights",
    "load_checkpoint",
    "require_workers",
    "run_training",
    "save_checkpoint",
    "train",
]
