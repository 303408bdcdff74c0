"""What this run found, in plain sentences made from its numbers, whatever the paper found."""

import math
from typing import NamedTuple

from analysis.exhibits.formatting import number, spread


class Measured(NamedTuple):
    """A value that was measured, and its standard deviation: NaN if unknown, 0 if it has none."""

    name: str
    value: float
    std: float = math.nan

    def __str__(self) -> str:
        return spread(self.value, self.std) if self.std else number(self.value)


def contrast(
    label: str,
    first: Measured,
    second: Measured,
    *,
    lower_is_better: bool = False,
    noise: str = "seeds",
    paper_has_first_better: bool = True,
) -> str:
    """Say which of two is better by a metric, by how much, and whether that is more than noise.

    Args:
        first: where the paper compares the two, the one that it found better.
        noise: what the standard deviations are over: seeds, bootstrap.
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
    return (
        f"{label}: **{better.name}** is better than {worse.name}{agreement} ({better} against "
        f"{worse}); {significance(better, worse, noise)}."
    )


def significance(first: Measured, second: Measured, noise: str) -> str:
    """Set the gap between two values against the standard deviation of their difference."""
    gap, std = abs(first.value - second.value), math.hypot(first.std, second.std)
    if math.isnan(std):
        return f"nothing measured here says whether the gap of {number(gap)} is noise"
    relation = "more" if gap > std else "no more"
    return (
        f"the gap of {number(gap)} is {relation} than their combined standard deviation of "
        f"{number(std)} ({noise})"
    )
