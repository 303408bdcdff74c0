"""A claim, and the comparisons that it stands on."""

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from analysis.exhibits.comparisons.inference import NAN, Effect
from pipeline.config.params import Params

BETTER = "**{}** is better than {}"
HYPOTHESIS = "hypothesis"  # in the source of what the paper only supposes
# What n counts.
SEEDS, TIMINGS, SCHEDULES = "training seeds", "timings of each in one process", "schedules"


class Setup(NamedTuple):
    """The params that claims depend on."""

    label_smoothing: float  # of both networks' main trainings
    mask_schedule: str  # of the main model
    best_by: str  # the metric that chooses T: fid, is
    tokens: int  # of an image
    released: bool  # the transformer's weights were not trained here
    labels: str  # of samples: training, uniform

    @classmethod
    def of(cls, params: Params) -> "Setup":
        return cls(
            params.training.label_smoothing,
            params.training.mask_schedule,
            params.analysis.best_by,
            params.num_tokens,
            bool(params.transformer.pretrained),
            params.evaluation.labels,
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """One comparison of two sides, as numbers and in words.

    Args:
        effect: the first side less the second, or how far the two agree.
        values: what was measured of each side; empty where the effect says all.
        won: the sentence where the first side is on the claim's side of the second; lost, where it
            is the other way round; tied, where it is open.
        kind: what the effect is.
        where: the conditions that it is of, where a claim's parts differ in them.
        sides: which two, where they do in that.
    """

    effect: Effect
    values: tuple[float, ...] = ()
    won: str
    lost: str
    tied: str
    kind: str = "difference"
    where: str = ""
    sides: str = ""

    @property
    def turned(self) -> "Part":
        """The same with its sides changed, where there are two."""
        if not self.values:
            return self
        effect = self.effect
        other = replace(effect, value=-effect.value, low=-effect.high, high=-effect.low)
        turned = replace(self, effect=other, values=self.values[::-1])
        return replace(turned, won=self.lost, lost=self.won)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Something that the paper says, or that one would expect, and what it is measured by here.

    Args:
        said: the claim in plain words.
        source: where the paper has it; empty for an expectation of ours.
        exhibit: name of the table or figure that shows its numbers; `shown_in` is how readers
            know it.
        measure: what is compared, as in the tables: "FID (classifier)".
        sign: of the effect if the claim holds.
        parts: all of them must hold; empty where nothing was measured.
        whole: the sentence where all of several parts hold.
        noise: what n counts, and what another run would draw again.
        fewest: the n that a test needs. Where seeds choose T for one another it is three: of two
            each would choose by what the other reports.
        caveat: why the claim's holding would be no finding; empty where it would be one.
        lacking: why nothing can be tested, whatever n is; empty where something can.
    """

    said: str
    source: str
    exhibit: str
    shown_in: str
    measure: str
    sign: int
    parts: list[Part] = field(default_factory=list)
    whole: str = ""
    noise: str = SEEDS
    fewest: int = 2
    caveat: str = ""
    lacking: str = ""

    @property
    def line(self) -> str:
        """The claim, with its caveat."""
        return f"{self.said}, {self.caveat}" if self.caveat else self.said

    @property
    def mixed(self) -> bool:
        """Whether some parts point to the claim and others away from it."""
        values = [part.effect.value * self.sign for part in self.parts]
        return any(value > 0 for value in values) and any(value < 0 for value in values)

    @property
    def weakest(self) -> Part | None:
        """The part that supports the claim least; None where nothing was measured."""
        measured = [part for part in self.parts if not math.isnan(part.effect.value)]
        return max(measured, key=self._support) if measured else None

    @property
    def p(self) -> float:
        """Two-sided p of all parts together; NaN where one of them could not be tested.

        The claim holds if every part does (intersection-union: the greatest of the one-sided p),
        and fails if any part is the other way round (the least of them, times their number).
        """
        effects = [part.effect for part in self.parts]
        if self.lacking or self.n < self.fewest or any(math.isnan(effect.p) for effect in effects):
            return NAN
        holds = max(effect.one_sided(self.sign) for effect in effects)
        fails = len(effects) * min(effect.one_sided(-self.sign) for effect in effects)
        return min(1.0, 2 * min(holds, fails))

    @property
    def n(self) -> int:
        return min((part.effect.n for part in self.parts), default=0)

    def _support(self, part: Part) -> float:
        """The part's one-sided p; without one, how far its value is on the other side."""
        if math.isnan(part.effect.p):
            return -self.sign * part.effect.value
        return part.effect.one_sided(self.sign)


def versus(
    first: str,
    second: str,
    effect: Effect,
    values: tuple[float, ...] = (),
    *,
    relation: str = BETTER,
    noise: str = SEEDS,
    where: str = "",
    several: bool = False,
) -> Part:
    """A comparison of two named sides.

    Args:
        relation: the sentence that puts one side before the other, with {} for each.
        several: whether other parts of the claim are of other sides.
    """
    return Part(
        effect=effect,
        values=values,
        won=relation.format(first, second),
        lost=relation.format(second, first),
        tied=f"{first} and {second} do not differ by more than {noise} explain",
        where=where,
        sides=f"{first} and {second}" if several else "",
    )
