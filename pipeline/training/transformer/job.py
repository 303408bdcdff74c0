"""One training of a transformer, which leaves a model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.config.params import Params
from pipeline.data.ranks import Ranks
from pipeline.runtime.files import read_json
from pipeline.training.loop import TrainingJob, Workers
from pipeline.training.transformer.task import TransformerTask, no_look


@dataclass(frozen=True)
class TransformerRecipe:
    """Builds a worker's task. Paths are absolute."""

    task: type[TransformerTask]
    params: dict[str, Any]  # `Params.model_dump()`
    tokens_dir: str
    num_classes: int
    seed: int
    on_evaluate: Callable[[Any, int], None] = no_look

    def __call__(self, ranks: Ranks, device: torch.device) -> TransformerTask:
        params = Params.model_validate(self.params)
        wrap = partial(_data_parallel, bf16=params.training.bf16_gradients)
        return self.task(
            params,
            self.tokens_dir,
            self.num_classes,
            seed=self.seed,
            device=device,
            ranks=ranks,
            wrap=wrap if ranks.workers > 1 else lambda module: module,
            on_evaluate=self.on_evaluate,
        )


def _data_parallel(module: nn.Module, bf16: bool) -> nn.Module:
    """The module, of which each worker has a copy.

    Args:
        bf16: gradients travel in bfloat16, and are added up in it.
    """
    from ray.train.torch import prepare_model

    parallel: Any = prepare_model(module)
    if bf16:
        parallel.register_comm_hook(None, _in_bfloat16)
    return parallel


def _in_bfloat16(
    group: Any, bucket: torch.distributed.GradBucket
) -> torch.futures.Future[torch.Tensor]:
    """torch's hook, which by its own name is refused on CPUs, where it works too."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

    return bf16_compress_hook(group, bucket)


@dataclass(frozen=True, kw_only=True)
class TransformerJob(TrainingJob):
    """The training of a network that is kept in the job's folder."""

    recipe: TransformerRecipe
    network: str  # the kind of its model, as `save_model` takes it

    @property
    def params(self) -> Params:
        return Params.model_validate(self.recipe.params)

    @property
    def model(self) -> Path:
        """The folder of its finished model, the last thing that it writes."""
        return Path(self.folder, "model")

    @property
    def trained(self) -> Path:
        """The file with its history, and the seconds of the process that ended it."""
        return Path(self.folder, "training.json")

    @property
    def history(self) -> list[dict[str, float]]:
        """Its rows of losses and measurements, one for each checkpoint."""
        return read_json(self.trained, "history")["history"]

    @property
    def finished(self) -> bool:
        """Whether its history and its model are there."""
        return self.trained.exists() and self.model.exists()


def transformer_job(
    params: Params,
    recipe: TransformerRecipe,
    *,
    network: str,
    name: str,
    folder: Path,
    workers: int,
) -> TransformerJob:
    """The job of a recipe, with the steps and workers of its params.

    Args:
        name: in messages.
        folder: absolute, its own.
    """
    return TransformerJob(
        name=name,
        recipe=recipe,
        steps=params.training.steps,
        every=params.training.checkpoint_every,
        seed=recipe.seed,
        folder=str(folder),
        workers=Workers.of(params.ray, workers),
        network=network,
    )
