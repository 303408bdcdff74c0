"""Replicates: the trainings of the two networks that Table 1 compares.

A replicate is one training of a network with a seed, and everything that is drawn from the model
with that seed. Main ones have the main label smoothing; those of other values are for an ablation.
"""

from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.config.params import Params
from pipeline.config.paths import AUTOREGRESSIVE, SAMPLES, TRANSFORMER
from pipeline.runtime.errors import ArgumentError

NetworkName = Literal["transformer", "autoregressive"]
NETWORKS: dict[NetworkName, Path] = {"transformer": TRANSFORMER, "autoregressive": AUTOREGRESSIVE}


class Replicate(NamedTuple):
    """One training of a network."""

    network: NetworkName
    seed: int
    trained: int  # the seed of its training: another one where released weights take its place
    other_label_smoothing: float | None = None  # in place of the main one

    @property
    def main(self) -> bool:
        return self.other_label_smoothing is None

    @property
    def name(self) -> str:
        """Tells it from the others of its network."""
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
    """The replicates that every table is about, one for each of `evaluation.seeds`.

    Those of released weights share one model, published under the first seed, and differ by the
    seeds of their samples alone.
    """
    seeds = params.evaluation.seeds
    if _released(params, network):
        return [Replicate(network, seed, trained=seeds[0]) for seed in seeds]
    return [Replicate(network, seed, trained=seed) for seed in seeds]


def main_replicate(params: Params, network: NetworkName, seed: int | None) -> Replicate:
    """The one of that seed; the first if None.

    Raises:
        ArgumentError: there is none.
    """
    known = main_replicates(params, network)
    wanted = params.evaluation.seeds[0] if seed is None else seed
    for replicate in known:
        if replicate.seed == wanted:
            return replicate
    raise ArgumentError(
        f"there is no replicate {seed}; use one of {', '.join(str(r.seed) for r in known)} "
        f"(evaluation.seeds)"
    )


def replicates(params: Params, network: NetworkName) -> list[Replicate]:
    """The main ones, and those of `training.other_label_smoothings`; released weights have none of
    these."""
    others = [
        Replicate(network, seed, seed, other_label_smoothing=value)
        for value in params.training.other_label_smoothings
        for seed in params.evaluation.seeds
    ]
    return main_replicates(params, network) + ([] if _released(params, network) else others)


def label_smoothing(params: Params, replicate: Replicate) -> float:
    """The one that it is trained with."""
    other = replicate.other_label_smoothing
    return params.training.label_smoothing if other is None else other


def _released(params: Params, network: NetworkName) -> bool:
    return network == "transformer" and params.transformer.pretrained is not None
