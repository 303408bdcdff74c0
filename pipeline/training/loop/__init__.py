"""Trainings that survive kills: the training and its loop (`training`), running it (`run`),
checkpoints, averaged weights, and losses that diverge (`divergence`)."""

from pipeline.training.loop.average import Average, averaged_weights
from pipeline.training.loop.checkpoints import (
    RunDirCheckpoints,
    load_checkpoint,
    save_checkpoint,
)
from pipeline.training.loop.divergence import Diverged, SpikeGuard
from pipeline.training.loop.run import require_workers, run_training
from pipeline.training.loop.training import Task, Training, Workers, train

__all__ = [
    "Average",
    "Diverged",
    "RunDirCheckpoints",
    "SpikeGuard",
    "Task",
    "Training",
    "Workers",
    "averaged_weights",
    "load_checkpoint",
    "require_workers",
    "run_training",
    "save_checkpoint",
    "train",
]
