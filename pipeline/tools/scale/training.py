"""One training that passes every step count. The learning rate is constant after its warm-up, so
that the averaged weights at some step are those of a training that ends there."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.config.params import Params
from pipeline.config.paths import CURVES, TOKENS
from pipeline.data.tokens import TokenCache
from pipeline.runtime.dag import stage_key
from pipeline.runtime.files import tree_hash
from pipeline.runtime.runs import run_dir
from pipeline.sampling import Network
from pipeline.tools.scale.grid import BASELINE, Training
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.training.loop import save_checkpoint, train
from pipeline.training.loop.checkpoints import newest_checkpoint
from pipeline.training.transformer import TransformerTask

# What a training here does not share with the stage of its network: values of its own, and how the
# stage runs it.
NOT_SHARED = (
    "seed",
    "training.steps",
    "training.mask_schedule",
    "training.label_smoothing",
    "training.other_label_smoothings",
    "training.checkpoint_every",
    "autoregressive.steps",
    "evaluation.seeds",
    "ray",
    CURVES.as_posix(),
    "stages",
    "pipeline/training/networks.py",
)


def training_dir(training: Training, params: Params) -> Path:
    """Where its checkpoints lie: named by all that its weights depend on."""
    baseline = training.network == BASELINE
    stage = "train_autoregressive" if baseline else "train_transformer"
    own: dict[str, Any] = {"label_smoothing": training.label_smoothing, "seed": training.seed}
    if not baseline:
        curve = tree_hash(CURVES / f"{training.network}.csv")
        own |= {"schedule": training.network, "curve": curve}
    return run_dir("scale", stage_key(stage, NOT_SHARED) | own, params.ray.folder)


class CheckpointEachCount:
    """A session of the training loop that keeps one checkpoint for each step count."""

    rank = 0
    who: Mapping[str, float] = {}

    def __init__(self, folder: Path, steps: int):
        """
        Args:
            steps: the step count that is wanted; later checkpoints are left alone.
        """
        self.folder, self.steps = folder, steps

    def average(self, row: dict[str, float]) -> dict[str, float]:
        return row

    def load(self) -> dict[str, Any] | None:
        found = sorted(self.folder.glob("step*.pt"), reverse=True)
        last = self._path(self.steps).name
        return newest_checkpoint(path for path in found if path.name <= last)

    def save(self, state: dict[str, Any], row: dict[str, float]) -> None:
        save_checkpoint(state, self._path(state["step"]))

    def settle(self) -> None:
        """Nothing waits: it is saved at once."""

    def _path(self, steps: int) -> Path:
        return self.folder / f"step{steps:09d}.pt"


def networks_at(
    training: Training, steps: list[int], params: Params, device: torch.device
) -> Iterator[tuple[int, Network, float]]:
    """Train to each step count in turn; yield it, the averaged network (which the next segment
    changes) and its validation NLL.

    A checkpoint is kept at each count, from which a later call goes on or measures again.
    """
    baseline, folder = training.network == BASELINE, training_dir(training, params)
    changes: dict[str, Any] = {"label_smoothing": training.label_smoothing}
    if not baseline:
        changes["mask_schedule"] = training.network
    own = params.model_copy(update={"training": params.training.model_copy(update=changes)})
    task = (AutoregressiveTask if baseline else TransformerTask)(
        own, TOKENS, TokenCache(TOKENS, "train").num_classes, seed=training.seed, device=device
    )
    for count in sorted(steps):
        history = train(
            task,
            name=training.name,
            run=folder.name,
            steps=count,
            every=count,
            seed=training.seed,
            session=CheckpointEachCount(folder, count),
        )
        network = task.average.module
        assert isinstance(network, Network)  # what the two tasks train
        yield count, network, history[-1]["val_nll"]
