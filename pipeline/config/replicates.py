"""Replicates: the trainings of the two networks that Table 1 compares.

A replicate is one training of a network with a seed, and everything that is sampled from the model
with that seed. Main replicates have `training.label_smoothing`; the others are an ablation of it.
Here are also the numbers of trainings of the sweep and of CAS.
"""

from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.config.params import Params
from pipeline.config.paths import AUTOREGRESSIVE, SAMPLES, TRANSFORMER
from pipeline.runtime.errors import ArgumentError

NetworkName = Literal["transformer", "autoregressive"]
NETWORKS: dict[NetworkName, Path] = {"transformer": TRANSFORMER, "autoregressive": AUTOREGRESSIVE}
CAS_SETS = 6  # MaskGIT's and the baseline's samples and real images, augmented and not


class Replicate(NamedTuple):
    """One training of a network."""

    network: NetworkName
    seed: int
    trained: int  # the seed of its training; for released weights, of the first replicate
    other_label_smoothing: float | None = None  # in place of the main one

    @property
    def main(self) -> bool:
        return self.other_label_smoothing is None

    @property
    def name(self) -> str:
        """A name that is unique among the replicates of the network."""
        return f"{self._group}/seed{self.seed}"

    @property
    def folder(self) -> Path:
        """The folder of its published model."""
        return NETWORKS[self.network] / self._group / f"seed{self.trained}"

    @property
    def samples(self) -> Path:
        """The folder of its published samples; only main replicates have one."""
        return SAMPLES / self.network / f"seed{self.seed}"

    @property
    def _group(self) -> str:
        return "main" if self.main else f"smoothing_{self.other_label_smoothing}"


def main_replicates(params: Params, network: NetworkName) -> list[Replicate]:
    """The replicates that the tables show, one for each of `evaluation.seeds`.

    With released weights they share one model, published under the first seed, and differ only by
    the seeds of their samples.
    """
    seeds, released = params.evaluation.seeds, _released(params, network)
    return [Replicate(network, seed, seeds[0] if released else seed) for seed in seeds]


def main_replicate(params: Params, network: NetworkName, seed: int | None) -> Replicate:
    """The main replicate of a seed; the first main replicate for None.

    Raises:
        ArgumentError: no replicate has this seed.
    """
    known = {replicate.seed: replicate for replicate in main_replicates(params, network)}
    wanted = params.evaluation.seeds[0] if seed is None else seed
    if wanted not in known:
        way_out = f"use one of {', '.join(map(str, known))}"
        raise ArgumentError("evaluation.seeds", f"there is no replicate {seed}", way_out)
    return known[wanted]


def replicates(params: Params, network: NetworkName) -> list[Replicate]:
    """The main replicates and those of `training.other_label_smoothings`. Released weights have
    only main replicates."""
    others = [] if _released(params, network) else params.training.other_label_smoothings
    return main_replicates(params, network) + [
        Replicate(network, seed, seed, value)
        for value in others
        for seed in params.evaluation.seeds
    ]


def label_smoothing(params: Params, replicate: Replicate) -> float:
    """The label smoothing that a replicate is trained with."""
    other = replicate.other_label_smoothing
    return params.training.label_smoothing if other is None else other


def _released(params: Params, network: NetworkName) -> bool:
    return network == "transformer" and params.transformer.pretrained is not None


def trial_count(params: Params) -> int:
    """The number of trainings of the sweep."""
    return len(params.sweep.schedules) * len(params.sweep.seeds)


def classifier_count(params: Params) -> int:
    """The number of trainings of CAS."""
    return CAS_SETS * len(params.evaluation.seeds)
