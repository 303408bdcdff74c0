"""One training of a transformer, as plain values that travel to its workers."""

from dataclasses import dataclass
from typing import Any

from pipeline.runtime.failures import Failure
from pipeline.training.transformer.task import TransformerTask


@dataclass(frozen=True)
class TrainingJob:
    """The description of a training that every worker gets, in plain values."""

    params: dict[str, Any]  # `Params.model_dump()`
    tokens_dir: str  # absolute
    num_classes: int
    task: type[TransformerTask]
    seed: int
    name: str  # in messages
    run_dir: str  # absolute: the run's name and storage path

    @property
    def failure(self) -> Failure:
        return Failure(self.run_dir)
