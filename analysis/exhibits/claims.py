"""Every comparison of the report, judged as one family, and the sentences that say what came of it.

No table or figure concludes anything but what stands here. Whoever looks at some twenty
comparisons finds one at p = 0.05 by chance; so each p is corrected for all of them (Holm), and only
a corrected p below 5% decides. The p of what repeats is corrected as if nothing were found of the
timings, which is stricter: else how long something took here would decide what another p is.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

from analysis.exhibits.comparisons import networks, samples, schedules
from analysis.exhibits.comparisons.claim import HYPOTHESIS, SEEDS, TIMINGS, Claim, Part, Setup
from analysis.exhibits.comparisons.inference import ALPHA, NAN, holm
from analysis.exhibits.comparisons.learned import SWEPT, barely_trained
from analysis.exhibits.formatting import listed, number
from analysis.exhibits.inputs.metrics import MODELS
from analysis.exhibits.inputs.results import Results
from pipeline.config.params import Params

P_LEAST = 0.0001  # no number here is worth a smaller p
RELEASED = "the weights are of one training, and the seeds only of what is drawn from them"
ONE = {SEEDS: "training seed", TIMINGS: "timing of each"}  # of several
UNKNOWN = "whether its networks have learned anything is out of date"
SHOWN, NOT_SHOWN, UNDECIDED = "shown here", "not shown here", "undecided"


@dataclass(frozen=True)
class Verdict:
    """A claim and what this run says of it.

    Args:
        p: of this claim alone; NaN where nothing can be tested.
        adjusted: p corrected for every comparison of the report.
        comparisons: how many those are.
        untested: why nothing can be concluded whatever the numbers are; empty where it can.
    """

    claim: Claim
    p: float
    adjusted: float
    comparisons: int
    untested: str = ""

    @property
    def word(self) -> str:
        """Shown here, not shown here (the data contradict the claim, or a part of it), or
        undecided."""
        if math.isnan(self.adjusted) or self.adjusted >= ALPHA:
            return UNDECIDED
        part = self.claim.weakest
        agrees = part is not None and part.effect.value * self.claim.sign > 0
        return SHOWN if agrees else NOT_SHOWN

    @property
    def brief(self) -> str:
        """The word, with n where that is why nothing is known, or that only a part fails."""
        if self.word == UNDECIDED:
            return UNDECIDED if self.claim.lacking else f"{UNDECIDED} (n = {self.claim.n})"
        return f"{self.word}: its parts differ" if self.mixed else self.word

    @property
    def mixed(self) -> bool:
        """Whether the claim fails by some of its parts, while others point to it."""
        return self.word == NOT_SHOWN and self.claim.mixed

    @property
    def numbers(self) -> str:
        """What was measured, of the part that supports the claim least, with its 95% interval."""
        part = self.claim.weakest
        return _of_sides(part) if part else "not measured"

    @property
    def sentence(self) -> str:
        """What this run says of the claim, with the numbers; words between ** are emphasized."""
        part, claim = self.claim.weakest, self.claim
        if part is None:
            return f"{self._open()}: it was not measured here."
        if math.isnan(self.adjusted):
            return f"{self._open()}: {self._untested()} ({_of_sides(part)})."
        if self.word == UNDECIDED:
            return f"{self._undecided(part)} ({_of_sides(part)}; {self._tested()})."
        numbers = _numbers(part if self.word == SHOWN else part.turned)
        return f"{claim.measure}: {self._decided(part)} ({numbers}; {self._tested()})."

    def _undecided(self, part: Part) -> str:
        """Nobody may say that two sides do not differ where they do but for the correction."""
        if min(self.p, part.effect.p) < ALPHA:
            family = f"the {self.comparisons} comparisons"
            return f"{self._open()}: not decided after correction for {family}"
        return f"{self.claim.measure}: undecided: {part.tied}"

    def _decided(self, part: Part) -> str:
        claim, shown = self.claim, self.word == SHOWN
        text = (claim.whole or part.won) if shown else part.lost
        if claim.source:
            says = "as in" if shown else "unlike in"
            text += f", {says} the paper{'’s hypothesis' if HYPOTHESIS in claim.source else ''}"
        if shown and claim.caveat:
            text += f", {claim.caveat}"
        if shown and claim.whole and len(claim.parts) > 1:
            text += f"; at the least {part.won.replace('**', '')}"
        return f"the parts of the claim differ: {text}" if self.mixed else text

    def _open(self) -> str:
        """The claim as a question, after what it is measured by unless it says that."""
        measure, said = self.claim.measure, self.claim.said
        return f"{'' if measure in said else f'{measure}: '}undecided whether {said}"

    def _tested(self) -> str:
        parts = len(self.claim.parts)
        together = f" of all {parts} parts" if parts > 1 else ""
        return (
            f"p {_equals(self.p)}{together}, corrected for {self.comparisons} comparisons "
            f"{p_value(self.adjusted)}; n = {self.claim.n} {self.claim.noise}"
        )

    def _untested(self) -> str:
        """Why there is no p."""
        n, noise = self.claim.n, self.claim.noise
        if self.untested or self.claim.lacking:
            return self.untested or self.claim.lacking
        if n < 2:
            return f"n = {n}: one {ONE[noise]} tells nothing of others"
        if n < self.claim.fewest and noise == TIMINGS:
            return f"n = {n} {noise} have no p below {2 / math.comb(2 * n, n):.2g}"
        if n < self.claim.fewest:
            return "each of two seeds has its T from the other, so that they do not vary freely"
        return f"no spread over n = {n} {noise}: nothing can be tested"


def judge(results: Results, params: Params) -> list[Verdict]:
    """Every claim with its verdict, in the order of the report."""
    return _judge(results, Setup.of(params))


@lru_cache(maxsize=1)  # every table asks, and means the same
def _judge(results: Results, setup: Setup) -> list[Verdict]:
    untested = _untested(results, setup)
    claims = [
        (claim, untested[module] if claim.noise != TIMINGS else "")
        for module in (networks, schedules, samples)
        for claim in module.claims(results, setup)
    ]
    out = [claim.exhibit in results.left_out for claim, _ in claims]
    # What is out of date is not shown, and still counted, as if nothing were found of it: else
    # leaving it out could decide others.
    p_values = [
        1.0 if left or reason == UNKNOWN else NAN if reason else claim.p
        for (claim, reason), left in zip(claims, out, strict=True)
    ]
    adjusted = _corrected(p_values, [claim.noise == TIMINGS for claim, _ in claims])
    tested = sum(not math.isnan(p) for p in p_values)
    judged = zip(claims, p_values, adjusted, out, strict=True)
    return [
        Verdict(claim, *((NAN, NAN) if reason else (p, corrected)), tested, reason)
        for (claim, reason), p, corrected, left in judged
        if not left
    ]


def _corrected(p_values: list[float], timed: list[bool]) -> list[float]:
    """Holm's p in the whole family; of what is not timed, at least that and without the times."""
    each = zip(p_values, timed, strict=True)
    alike = [1.0 if is_timed and not math.isnan(p) else p for p, is_timed in each]
    corrected = zip(holm(p_values), holm(alike), timed, strict=True)
    return [whole if is_timed else steady for whole, steady, is_timed in corrected]


def _untested(results: Results, setup: Setup) -> dict[ModuleType, str]:
    """Why no claim of a module can be tested: by what its networks are."""
    if setup.released:
        return dict.fromkeys((networks, schedules, samples), RELEASED)
    barely = barely_trained(results, setup)
    needed = {networks: MODELS.values(), schedules: (SWEPT,), samples: (MODELS["transformer"],)}
    found = {module: [name for name in names if name in barely] for module, names in needed.items()}
    reasons = {
        module: f"barely trained, and recognised near chance: {listed(names)}" if names else ""
        for module, names in found.items()
    }
    # By samples and images of the stage evaluate, and those of the sweep.
    if "figure5" in results.left_out:
        return dict.fromkeys(reasons, UNKNOWN)
    return reasons | ({schedules: UNKNOWN} if "figure8" in results.left_out else {})


def sentences(results: Results, params: Params, exhibit: str) -> list[str]:
    """What this run says of the claims that a table or figure shows, by its anchor."""
    verdicts = judge(results, params)
    return [verdict.sentence for verdict in verdicts if verdict.claim.exhibit == exhibit]


def p_value(p: float) -> str:
    """Two significant digits, more where they would read as the threshold itself, and a bound where
    p is smaller than anyone needs to know."""
    if math.isnan(p):
        return "–"
    if p < P_LEAST:
        return f"< {P_LEAST:g}"
    texts = [f"{p:.{digits}g}" for digits in range(2, 6)]
    return next((text for text in texts if float(text) != ALPHA), texts[0])


def _equals(p: float) -> str:
    return p_value(p) if p < P_LEAST else f"= {p_value(p)}"


def _of_sides(part: Part) -> str:
    """The same after which sides they are, where nothing else says so."""
    return f"{part.sides}: {_numbers(part)}" if part.sides else _numbers(part)


def _numbers(part: Part) -> str:
    """ "0.590 against 0.690, difference −0.100 (−0.140 to −0.060)", after where that is."""
    found = _found(part)
    return f"{part.where}: {found}" if part.where else found


def _found(part: Part) -> str:
    effect = part.effect
    text = " against ".join(number(value) for value in part.values)
    if math.isnan(effect.low) and part.values:
        return text
    like = max((abs(value) for value in part.values), default=effect.value)
    value, low, high = (signed(x, like) for x in (effect.value, effect.low, effect.high))
    found = f"{part.kind} {value}"
    if not math.isnan(effect.low):
        found += f" ({low} to {high})"
    return f"{text}, {found}" if text else found


def signed(value: float, like: float) -> str:
    """A number with a true minus sign, with as many decimals as `like` has."""
    return number(value, like=like).replace("-", "−")
