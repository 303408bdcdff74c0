"""What this run found, in plain sentences made from its numbers, whether or not it is the paper's."""

import math
from typing import NamedTuple

from analysis.formatting import number, spread


class Measured(NamedTuple):
    """A value of something that was measured, and its standard deviation, NaN if unknown."""

    name: str
    value: float
    std: float = math.nan

    def __str__(self) -> str:
        return spread(self.value, self.std)


def contrast(
    label: str,
    first: Measured,
    second: Measured,
    *,
    lower_is_better: bool = False,
    spread_over: str = "seeds",
    paper_has_first_better: bool = True,
) -> str:
    """Say which of two is better by a metric, by how much, and whether that is more than noise.

    Args:
        first: where the paper compares the two, the one that it found better.
        spread_over: what the standard deviations are over: seeds, bootstrap resamples, …
        paper_has_first_better: the paper compares the two.
    """
    for side in (first, second):
        if math.isnan(side.value):
            return f"{label}: no comparison, as {side.name} has no value."
    if first.value == second.value:
        return f"{label}: {first.name} and {second.name} are equal ({number(first.value)})."
    first_wins = (first.value < second.value) == lower_is_better
    better, worse = (first, second) if first_wins else (second, first)
    agreement = ""
    if paper_has_first_better:
        agreement = ", as in the paper" if first_wins else ", unlike in the paper"
    gap, noise = abs(first.value - second.value), math.hypot(first.std, second.std)
    return (
        f"{label}: **{better.name}** is better than {worse.name} here{agreement} ({better} against "
        f"{worse}); {significance(gap, noise, spread_over)}."
    )


def significance(gap: float, noise: float, spread_over: str) -> str:
    """Set a gap against the combined standard deviation of what it lies between."""
    if math.isnan(noise):
        return f"nothing measured here says whether the gap of {number(gap)} is noise"
    relation = "more" if gap > noise else "no more"
    return (
        f"the gap of {number(gap)} is {relation} than the combined standard deviation over "
        f"{spread_over}, {number(noise, like=gap)}"
    )
