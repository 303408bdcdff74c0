"""Tests all claims, and writes the sentences that report the verdicts.

Tables and figures draw no conclusions. On average, one of twenty comparisons without an effect has
a p below 5% by chance. Each p is therefore corrected (Holm) for all comparisons of its
`Claim.family`, and a claim is decided only if its corrected p is below 5%.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import pandas as pd
from scipy import stats

from analysis.exhibits.base import Table
from analysis.exhibits.formatting import NONE, count, listed, number, percent
from analysis.exhibits.results import MODELS, NETWORKS, Results
from analysis.exhibits.statistics import ALPHA, LEVEL, MOST, NAN, POWER, Effect, holm, paired
from pipeline.config.params import Params

HYPOTHESIS = "hypothesis"  # in the source of a claim that the paper only supposes
# The kinds of values that n counts.
SEEDS, TIMINGS = "training seeds", "timings of each in one process"
DIFFERENCE, RATIO, RHO = "difference", "ratio", "Spearman's ρ"  # kinds of effects
ONE = {SEEDS: "training seed", TIMINGS: "timing of each"}  # singular
SWEPT = "the sweep's models"
NEAR = 0.1  # near chance: less than this part of the way from chance to real images' accuracy
# The exhibits whose first claims open the report: quality, speed, schedules, T, editing.
HEADLINES = ("table1-table", "figure4", "table3-table", "figure8", "table2-table")
P_LEAST = 0.0001  # a smaller p is shown as "< 0.0001"
RELEASED = "the weights are of one training run, and seeds differ only in what is sampled"
UNKNOWN = "the results that show whether its networks have learned anything are out of date"
SHOWN, NOT_SHOWN, UNDECIDED = "shown here", "not shown here", "undecided"
CERTAIN = "by construction"


@dataclass(frozen=True)
class Part:
    """One comparison that tests a claim: of two means, or of a trend or a correlation with 0."""

    effect: Effect  # the first side minus the second (logarithms for a ratio), or a correlation
    values: tuple[float, ...] = ()  # the mean of each side; empty if there is only an effect
    sides: str = ""  # names of the two sides, if the claim does not name them
    kind: str = DIFFERENCE  # the name of the effect

    @property
    def estimate(self) -> tuple[float, float, float]:
        """The effect and the ends of its interval; log ratios are converted to ratios."""
        found = (self.effect.value, self.effect.low, self.effect.high)
        value, low, high = map(math.exp, found) if self.kind == RATIO else found
        return value, low, high

    @property
    def numbers(self) -> str:
        """The comparison in words: "0.590 against 0.690, difference −0.100 (−0.140 to −0.060)"."""
        text, known = " against ".join(map(number, self.values)), not math.isnan(self.effect.low)
        if known or not self.values:
            sizes = self.values if self.kind == DIFFERENCE else self.estimate[:1]
            like = max(map(abs, sizes))
            value, low, high = (number(x, like).replace("-", "−") for x in self.estimate)
            interval = f" ({low} to {high})" * known
            text += f"{', ' * bool(text)}{self.kind} {value}{interval}"
        return f"{self.sides}: {text}" if self.sides else text


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper, or one of our own, and the comparisons that test the claim."""

    said: str  # the claim in plain words
    exhibit: str  # anchor (HTML id) of the table or figure with the numbers
    shown_in: str  # label of the table or figure
    measure: str  # name of the compared metric, as in the tables: "FID (classifier)"
    sign: int  # 1 if the claim expects a positive effect, −1 if a negative one
    source: str = ""  # section of the paper; empty for a claim of our own
    # Comparisons that must all hold; empty if nothing was measured.
    parts: list[Part] = field(default_factory=list)
    noise: str = SEEDS  # what n counts
    # The compared networks; if one is barely trained, the claim is not tested.
    networks: Sequence[str] = (MODELS["transformer"],)
    fewest: int = 2  # the smallest n for a test: three if another seed chooses each seed's T
    certain: str = ""  # why the claim is bound to hold; empty if the claim can fail

    @property
    def family(self) -> tuple[str, bool]:
        """Claims of the same family are corrected together for multiple comparisons: the paper's
        claims of one section, or our own about one table or figure. Timings are kept apart."""
        return self.source.split(",")[0] or self.exhibit, self.noise == TIMINGS

    @property
    def weakest(self) -> Part | None:
        """The comparison that supports the claim least; None if nothing was measured."""
        measured = [part for part in self.parts if not math.isnan(part.effect.value)]
        return max(measured, key=self._support) if measured else None

    @property
    def p(self) -> float:
        """The claim's two-sided p: twice the smaller of two one-sided p. The first tests that all
        comparisons hold (intersection-union: their largest p). The second tests that any of them is
        reversed (Bonferroni: their number × their smallest p in the opposite direction). NaN if one
        could not be tested, if n is below `fewest`, or if the claim holds by construction."""
        effects = [part.effect for part in self.parts]
        untested = any(math.isnan(effect.p) for effect in effects)
        if self.certain or self.n < self.fewest or untested:
            return NAN
        holds = max(effect.one_sided(self.sign) for effect in effects)
        fails = len(effects) * min(effect.one_sided(-self.sign) for effect in effects)
        return min(1.0, 2 * min(holds, fails))

    @property
    def n(self) -> int:
        return min((part.effect.n for part in self.parts), default=0)

    def _support(self, part: Part) -> float:
        """How weak the support of `part` is: its one-sided p, or −`sign` × effect if p is NaN."""
        if math.isnan(part.effect.p):
            return -self.sign * part.effect.value
        return part.effect.one_sided(self.sign)


def by_pairs(
    ours: pd.Series, theirs: pd.Series, sides: str = "", test: Callable[..., Effect] = paired
) -> list[Part]:
    """Compare two series by seed. Returns a list of one comparison, empty without common seeds."""
    a, b = ours.align(theirs, join="inner")
    return [Part(test(a, b), (a.mean(), b.mean()), sides)] if len(a) else []


@dataclass(frozen=True)
class Verdict:
    """A claim with this run's verdict."""

    claim: Claim
    p: float  # uncorrected; NaN if no test is possible
    adjusted: float  # p corrected for all comparisons of the claim's family
    comparisons: int  # number of comparisons in the family
    untested: str = ""  # why this claim cannot be tested on its networks; empty if it can

    @property
    def word(self) -> str:
        """The verdict: "shown here", "not shown here" (a comparison contradicts the claim),
        "undecided", or "by construction" (the claim cannot fail)."""
        if self.claim.certain:
            return CERTAIN
        if math.isnan(self.adjusted) or self.adjusted >= ALPHA:
            return UNDECIDED
        part = self.claim.weakest
        agrees = part is not None and part.effect.value * self.claim.sign > 0
        return SHOWN if agrees else NOT_SHOWN

    @property
    def mixed(self) -> bool:
        """Whether the verdict is "not shown here" but some comparisons have the expected sign."""
        values = [part.effect.value * self.claim.sign for part in self.claim.parts]
        return self.word == NOT_SHOWN and any(value > 0 for value in values)

    @property
    def power(self) -> tuple[float, float]:
        """The power of the test of the weakest comparison, and the least n for a power of 80%."""
        part = self.claim.weakest
        if part is None or math.isnan(self.p):
            return NAN, NAN
        against = part.effect.value * self.claim.sign < 0  # then Bonferroni corrects over the parts
        level = ALPHA / self.comparisons / (len(self.claim.parts) if against else 1)
        power, needed = part.effect.power(level)
        return power, max(needed, self.claim.fewest)

    @property
    def power_text(self) -> str:
        """The power in words: "34%, 80% needs n = 7"."""
        power, needed = self.power
        more = f"n = {needed:g}" if needed < MOST else f"n > {MOST}"
        return percent(round(power, 2)) + f", {percent(POWER)} needs {more}" * (power < POWER)

    @property
    def measured(self) -> str:
        """The numbers of the comparison that supports the claim least, with a 95% interval. The
        name of the metric comes first, unless the claim's text contains it."""
        part, measure = self.claim.weakest, self.claim.measure
        numbers = part.numbers if part else "not measured"
        return numbers if measure in self.claim.said else f"{measure}: {numbers}"

    @property
    def sentence(self) -> str:
        """The claim, the verdict, the numbers and p; words between ** are emphasized."""
        word = self.word + ": its parts differ" * self.mixed
        return f"{self.claim.said}: **{word}** ({self.measured}; {self._tested()})."

    def _tested(self) -> str:
        if math.isnan(self.adjusted):
            return self._untested()
        parts, p, many = len(self.claim.parts), p_value(self.p), "s" * (self.comparisons > 1)
        together = f" of all {parts} parts" if parts > 1 else ""
        power = f"; power {self.power_text}" * (self.power_text != NONE)
        return (
            f"p {p if p.startswith('<') else f'= {p}'}{together}, corrected for "
            f"{self.comparisons} comparison{many} {p_value(self.adjusted)}; "
            f"n = {self.claim.n} {self.claim.noise}{power}"
        )

    def _untested(self) -> str:
        """Why the claim has no p."""
        n, noise = self.claim.n, self.claim.noise
        if reason := self.untested or self.claim.certain:
            return reason
        if not n:
            return "n = 0"
        if n < 2:
            return f"n = {n}: one {ONE[noise]} tells nothing about others"
        if n < self.claim.fewest:
            return "each of two seeds chooses T for the other, so their values are not independent"
        return f"no spread over n = {n} {noise}: nothing can be tested"


def judge(
    claims: list[Claim], results: Results, params: Params, left_out: Collection[str] = ()
) -> list[Verdict]:
    """The verdicts on the claims, in the order of `claims`. `left_out` has the HTML ids of
    tables and figures whose results are out of date. Claims about these get no verdict, but count
    as comparisons with p = 1, so that the correction stays strict."""
    barely = barely_trained(results, params)
    reasons = [_reason(claim, barely, params, left_out) for claim in claims]
    p_values = [
        1.0 if claim.exhibit in left_out or reason == UNKNOWN else NAN if reason else claim.p
        for claim, reason in zip(claims, reasons, strict=True)
    ]
    families = pd.Series(p_values).groupby(pd.Series([claim.family for claim in claims]))
    corrected, tested = families.transform(holm), families.transform("count")
    return [
        Verdict(claim, NAN if reason else p, NAN if reason else adjusted, int(others), reason)
        for claim, reason, p, adjusted, others in zip(
            claims, reasons, p_values, corrected, tested, strict=True
        )
        if claim.exhibit not in left_out
    ]


def _reason(
    claim: Claim, barely: Collection[str], params: Params, left_out: Collection[str]
) -> str:
    """Why the claim is not tested, such as a barely trained network; empty if it is tested."""
    if not claim.networks:
        return ""
    if params.transformer.pretrained:
        return RELEASED
    # The stages evaluate and sweep show whether a network is barely trained.
    if "figure5" in left_out or ("figure8" in left_out and SWEPT in claim.networks):
        return UNKNOWN
    names = [name for name in claim.networks if name in barely]
    return f"barely trained, since few samples are recognised: {listed(names)}" if names else ""


def p_value(p: float) -> str:
    """Format p with two significant digits (more if p would be rounded to "0.05"). A p
    below 0.0001 is "< 0.0001"."""
    if math.isnan(p):
        return "–"
    if p < P_LEAST:
        return f"< {P_LEAST:g}"
    texts = [f"{p:.{digits}g}" for digits in range(2, 6)]
    return next((text for text in texts if float(text) != ALPHA), texts[0])


@dataclass(frozen=True)
class Recognised:
    """The share of samples whose class the reference classifier recognises, its 95% interval
    (Wilson, over samples), the share expected by chance, and the share for real images."""

    share: float
    low: float
    high: float
    samples: int
    chance: float
    real: float


def barely_trained(results: Results, params: Params) -> dict[str, Recognised]:
    """The networks (MaskGIT, VQGAN∗, the sweep's models) whose samples are recognised little better
    than by chance. The sweep is judged by its best (schedule, T). Empty for data of one class."""
    if results.data["classes"] < 2:
        return {}
    main = results.trained_with(params.training.label_smoothing)
    sets = {MODELS[name]: main[main["images"] == name] for name in NETWORKS}
    cells = results.sweep.groupby(["schedule", "iterations"])
    shares = cells["class_accuracy"].mean()
    if shares.notna().any():
        sets[SWEPT] = cells.get_group(shares.idxmax())
    found = {name: _near_chance(rows, results, params) for name, rows in sets.items()}
    return {name: each for name, each in found.items() if each}


def _near_chance(rows: pd.DataFrame, results: Results, params: Params) -> Recognised | None:
    """The share of recognised samples in all `rows` if it is near chance; otherwise, or if there
    are no samples, None. A share is near chance if the lower end of its interval is less than a
    tenth of the way from chance to the share for real images."""
    rows = rows.dropna(subset="class_accuracy")
    samples, data = int(rows["samples"].sum()), results.data
    if not samples:
        return None
    uniform = params.evaluation.labels == "uniform"
    chance = 1 / data["classes"] if uniform else data["largest_class"]
    found = round(float((rows["class_accuracy"] * rows["samples"]).sum()))
    interval = stats.binomtest(found, samples).proportion_ci(LEVEL, method="wilson")
    real = results.evaluation["real"]["class_accuracy"]
    if interval.low >= chance + NEAR * max(real - chance, 0.0):
        return None
    return Recognised(found / samples, interval.low, interval.high, samples, chance, real)


# The scoreboard: one line per claim, with this run's verdict


def headlines(verdicts: list[Verdict]) -> dict[str, list[Verdict]]:
    """The verdicts at the top of the report, in two lists: the paper's claims, and our own."""
    first = {verdict.claim.exhibit: verdict for verdict in reversed(verdicts)}
    found: dict[str, list[Verdict]] = {}
    for verdict in (first[name] for name in HEADLINES if name in first):
        whose = "Claims of the paper" if verdict.claim.source else "Our own claims"
        found.setdefault(whose, []).append(verdict)
    return found


def scoreboard(verdicts: list[Verdict], warned: list[str]) -> Table:
    """A row per claim: verdict, numbers, p, and a link to the table or figure with the numbers."""
    return Table(
        name="scoreboard",
        title="Which claims are shown here",
        cells=pd.DataFrame(map(_row, verdicts)),
        columns={
            "claim": [verdict.claim.said for verdict in verdicts],
            "verdict": [v.word + ": its parts differ" * v.mixed for v in verdicts],
            "measured here": [verdict.measured for verdict in verdicts],
            "p, corrected": [p_value(verdict.adjusted) for verdict in verdicts],
            "n": [str(verdict.claim.n) for verdict in verdicts],
            "power": [verdict.power_text for verdict in verdicts],
            "paper": [verdict.claim.source or NONE for verdict in verdicts],
            "shown in": [verdict.claim.shown_in for verdict in verdicts],
        },
        notes=[
            f"A claim is shown here if its corrected p is below {ALPHA:g} in its direction, and "
            "not shown here if p is that low in the other direction, for the claim or one of "
            "its parts. All other claims are undecided. The brackets hold 95% intervals. p is "
            "two-sided and corrected (Holm) for the comparisons of the claim's family: the "
            "paper's claims of one section, or our own about one table or figure, with claims "
            "about times apart. On pure noise, at most one family in twenty decides a claim.",
            "Welch's t test compares the networks; contrasts in a randomised block design, with "
            "seeds as blocks, compare schedules; paired t tests by seed compare other samples that "
            "share a seed, and one-sample t tests slopes and edits; Page's test compares "
            "orderings, and exact tests of permutations and signs compare timings and decoding "
            "without a network. n counts training seeds, timings of each method, or groups of "
            "samples. A claim with several comparisons (its parts) holds if all hold: the "
            "numbers are of the part that supports the claim least, and p is for all together. "
            "Power is the chance of a t test to decide, with this n and the first level of its "
            "family's correction, if the effect and spread are those measured. A hypothesis is a "
            "claim that the paper only supposes. A claim without a section is our own.",
            "One tokenizer and one classifier were trained, so no p covers their seeds. The "
            "conclusions hold for this data set, these networks and this length of training.",
        ],
        here=[*warned, _count(verdicts)],
        timed=True,
        links=[verdict.claim.exhibit for verdict in verdicts],
    )


def warnings(results: Results, params: Params, left_out: Collection[str]) -> list[str]:
    """A sentence about each barely trained network whose results are not out of date."""
    if "figure5" in left_out:
        return []
    return [
        f"**Barely trained: {name}.** The classifier recognises the class of {percent(each.share)} "
        f"of {count(each.samples)} samples (95% interval over samples: {percent(each.low)} to "
        f"{percent(each.high)}) and of {percent(each.real)} of held-out real images; guessing "
        f"finds {percent(each.chance)}. All claims about the quality of {name} are undecided."
        for name, each in barely_trained(results, params).items()
        if name != SWEPT or "figure8" not in left_out
    ]


def _count(verdicts: list[Verdict]) -> str:
    """Count the verdicts of the paper's claims, the paper's hypotheses, and our own claims. Claims
    that hold by construction have their own count."""
    words: dict[str, list[str]] = {"claims of the paper": [], "hypotheses": [], "own claims": []}
    for verdict in verdicts:
        source = verdict.claim.source
        kind = "own claims" if not source else "hypotheses" if HYPOTHESIS in source else ""
        words[kind or "claims of the paper"].append(verdict.word)
    counts = []
    for kind, each in words.items():
        certain = f", {CERTAIN} {each.count(CERTAIN)}" * (CERTAIN in each)
        counts.append(
            f"{len(each)} {kind}: **{SHOWN} {each.count(SHOWN)}**, not shown "
            f"{each.count(NOT_SHOWN)}, undecided {each.count(UNDECIDED)}{certain}"
        )
    return "; ".join(counts) + "."


def _row(verdict: Verdict) -> dict[str, str | float]:
    """The verdict's row of the scoreboard's CSV file."""
    part, claim = verdict.claim.weakest, verdict.claim
    estimate = (part.kind, *part.estimate) if part else ("", NAN, NAN, NAN)
    return {
        "claim": claim.said,
        "source": claim.source,
        "verdict": verdict.word,
        "measure": claim.measure,
        **dict(zip(("kind", "effect", "low", "high"), estimate, strict=True)),
        "p": verdict.p,
        "p_holm": verdict.adjusted,
        "n": claim.n,
        "power": verdict.power[0],
        "n_for_80": verdict.power[1],
        "exhibit": claim.exhibit,
    }
