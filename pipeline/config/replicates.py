"""Lists the replicates (training runs) of MaskGIT and the baseline (Table 1). Main replicates use
`training.label_smoothing`; the ablation's replicates use `training.other_label_smoothings`."""

from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.config.params import Params
from pipeline.config.paths import AUTOREGRESSIVE, SAMPLES, TRANSFORMER
from pipeline.runtime.errors import ArgumentError

NetworkName = Literal["transformer", "autoregressive"]
NETWORKS: dict[NetworkName, Path] = {"transformer": TRANSFORMER, "autoregressive": AUTOREGRESSIVE}
# Params that list the replicates: work on one replicate does not depend on other replicates.
LISTED = ("evaluation.seeds", "training.label_smoothing", "training.other_label_smoothings")


class Replicate(NamedTuple):
    """A training run of a network with a seed, and the samples that the trained model draws with
    the same seed."""

    network: NetworkName
    seed: int
    trained: int  # seed of the training run; for released weights, the first replicate's seed
    other_label_smoothing: float | None = None  # None for training.label_smoothing

    @property
    def main(self) -> bool:
        return self.other_label_smoothing is None

    @property
    def name(self) -> str:
        return f"{self._group}/seed{self.seed}"

    @property
    def folder(self) -> Path:
        """The trained model's folder, in a DVC output."""
        return NETWORKS[self.network] / self._group / f"seed{self.trained}"

    @property
    def samples(self) -> Path:
        """The samples' folder, in a DVC output. Runs with other label smoothings have none."""
        return SAMPLES / self.network / f"seed{self.seed}"

    @property
    def _group(self) -> str:
        return "main" if self.main else f"smoothing_{self.other_label_smoothing}"


def main_replicates(params: Params, network: NetworkName) -> list[Replicate]:
    """The training runs of a network with `training.label_smoothing`: one per seed in
    `evaluation.seeds`. With released weights, all seeds share one model; only samples differ."""
    seeds, released = params.evaluation.seeds, _released(params, network)
    return [Replicate(network, seed, seeds[0] if released else seed) for seed in seeds]


def main_replicate(params: Params, network: NetworkName, seed: int | None) -> Replicate:
    """The training run of a network with `training.label_smoothing` and `seed` (None: the first
    seed). Raises an `ArgumentError` if the seed is not in `evaluation.seeds`."""
    known = {replicate.seed: replicate for replicate in main_replicates(params, network)}
    wanted = params.evaluation.seeds[0] if seed is None else seed
    if wanted not in known:
        way_out = f"use one of {', '.join(map(str, known))}"
        raise ArgumentError("evaluation.seeds", f"does not contain {seed}", way_out)
    return known[wanted]


def replicates(params: Params, network: NetworkName) -> list[Replicate]:
    """All training runs of a network: `main_replicates` and, except for released weights, one run
    for each pair of a value in `training.other_label_smoothings` and a seed."""
    others = [] if _released(params, network) else params.training.other_label_smoothings
    return main_replicates(params, network) + [
        Replicate(network, seed, seed, value)
        for value in others
        for seed in params.evaluation.seeds
    ]


def label_smoothing(params: Params, replicate: Replicate) -> float:
    """The label smoothing of a training run."""
    other = replicate.other_label_smoothing
    return params.training.label_smoothing if other is None else other


def _released(params: Params, network: NetworkName) -> bool:
    return network == "transformer" and params.transformer.pretrained is not None
