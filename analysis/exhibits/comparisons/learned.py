"""Whether the networks have learned anything: what barely trained ones are compared by is noise."""

from dataclasses import dataclass

import pandas as pd
from scipy import stats

from analysis.exhibits.comparisons.claim import Setup
from analysis.exhibits.comparisons.inference import LEVEL
from analysis.exhibits.comparisons.networks import trained_with
from analysis.exhibits.inputs.metrics import MODELS, NETWORKS
from analysis.exhibits.inputs.results import Results

NEAR = 0.1  # of the way from chance to real images
SWEPT = "the sweep's models"


@dataclass(frozen=True)
class Recognised:
    """The share of samples whose class the reference classifier finds.

    Args:
        share: over all trainings; low and high: its 95% interval over samples (Wilson).
        samples: how many those are.
        chance: the share that guessing would find, at best.
        real: the share of held-out real images.
    """

    share: float
    low: float
    high: float
    samples: int
    chance: float
    real: float

    @property
    def near_chance(self) -> bool:
        """Whether the interval reaches into the lowest tenth of the way from chance to real
        images."""
        return self.low < self.chance + NEAR * max(self.real - self.chance, 0.0)


def barely_trained(results: Results, setup: Setup) -> dict[str, Recognised]:
    """Which networks are recognised near chance: MaskGIT, VQGAN∗, those of the sweep (at the cell
    where most of their samples are recognised). Of a single class there is nothing to recognise."""
    if results.data["classes"] < 2:
        return {}
    main = trained_with(results, setup.label_smoothing)
    sets = {MODELS[name]: main[main["images"] == name] for name in NETWORKS}
    cells = results.sweep.rows.groupby(["schedule", "iterations"])
    shares = cells["class_accuracy"].mean()
    if shares.notna().any():
        sets[SWEPT] = cells.get_group(shares.idxmax())
    found = {name: recognised(rows, results, setup) for name, rows in sets.items() if len(rows)}
    return {name: each for name, each in found.items() if each.near_chance}


def recognised(rows: pd.DataFrame, results: Results, setup: Setup) -> Recognised:
    """Of sets of samples together; of none NaN, which is not near chance."""
    rows = rows.dropna(subset="class_accuracy")
    samples = int(rows["samples"].sum())
    data = results.data
    chance = 1 / data["classes"] if setup.labels == "uniform" else data["largest_class"]
    real = results.evaluation["real"]["class_accuracy"]
    if not samples:
        nan = float("nan")
        return Recognised(nan, nan, nan, 0, chance, real)
    found = round(float((rows["class_accuracy"] * rows["samples"]).sum()))
    interval = stats.binomtest(found, samples).proportion_ci(LEVEL, method="wilson")
    share = found / samples
    return Recognised(share, interval.low, interval.high, samples, chance, real)
