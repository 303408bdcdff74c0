"""The scoreboard: every claim of the paper in a line, and what this run says of it."""

import math

import pandas as pd

from analysis.exhibits.base import Table
from analysis.exhibits.claims import NOT_SHOWN, SHOWN, UNDECIDED, Verdict, judge, p_value
from analysis.exhibits.comparisons.claim import HYPOTHESIS, Setup
from analysis.exhibits.comparisons.learned import SWEPT, barely_trained
from analysis.exhibits.formatting import NONE, count, percent
from analysis.exhibits.inputs.results import Results
from pipeline.config.params import Params


def table(results: Results, params: Params) -> Table:
    """Claim, verdict, numbers and p, with a link to the table or figure that holds them."""
    verdicts = judge(results, params)
    tested = verdicts[0].comparisons
    return Table(
        name="scoreboard",
        title="What of the paper is shown here",
        cells=pd.DataFrame(map(_row, verdicts)),
        readable=pd.DataFrame(
            {
                "claim": [verdict.claim.line for verdict in verdicts],
                "verdict": [verdict.brief for verdict in verdicts],
                "measured here": [_measured(verdict) for verdict in verdicts],
                "p, corrected": [p_value(verdict.adjusted) for verdict in verdicts],
                "n": [str(verdict.claim.n) for verdict in verdicts],
                "paper": [verdict.claim.source or NONE for verdict in verdicts],
                "shown in": [verdict.claim.shown_in for verdict in verdicts],
            }
        ),
        notes=[
            "Shown here: the data agree with the claim, and chance does not explain it; not shown "
            "here: they contradict it, or one of its parts where these differ; undecided: too few "
            "or too noisy to tell, all comparisons considered. In brackets: 95% intervals, of one "
            f"comparison each. p is corrected (Holm) for the {tested} comparisons that could be "
            "tested (of all but the times as if times were alike, which is stricter), so that of "
            "reports of pure noise one in twenty, at most, on average, decides anything at all. "
            "Tests: Welch's t between the networks, paired t by seed between what shares one, t of "
            "one sample for edits against copied pixels, which no seed changes, exact permutations "
            "for orderings and timings. n: training seeds, timings of each in one process (another "
            "process may differ), or schedules. Of a claim's parts all must hold: the numbers are "
            "of the one that supports it least, p of all together. What is marked as a hypothesis "
            "the paper only supposes. A claim without a section is our own.",
            "One tokenizer and one classifier were trained: what their seeds would change is in no "
            "number. Conclusions are about this data set at this size, and about these networks "
            "after so much training: others of the same cost may turn them.",
        ],
        here=[*_barely_trained(results, params), _count(verdicts)],
        files=[
            "evaluation/rows.csv",
            "cas/rows.csv",
            "sweep/rows.csv",
            "sweep/crossing.csv",
            "editing/rows.csv",
            "rejection/rows.csv",
            "reconstruction/rows.csv",
            "speed_timings.csv",
        ],
        timed=True,
        links=[verdict.claim.exhibit for verdict in verdicts],
    )


def _barely_trained(results: Results, params: Params) -> list[str]:
    """Which networks have learned too little for anything to be told of them; nothing of those
    whose samples, or the real images beside them, are out of date."""
    if "figure5" in results.left_out:
        return []
    hidden = {SWEPT} if "figure8" in results.left_out else set()
    return [
        f"**Barely trained: {name}.** {percent(each.share)} of {count(each.samples)} samples are "
        f"recognised as their class (95% interval over samples {percent(each.low)} to "
        f"{percent(each.high)}); guessing finds {percent(each.chance)}, and of held-out real "
        f"images {percent(each.real)} are. No comparison of quality with {name} is decided."
        for name, each in barely_trained(results, Setup.of(params)).items()
        if name not in hidden
    ]


def _count(verdicts: list[Verdict]) -> str:
    """The paper's claims apart from what it supposes, and from ours."""
    words: dict[str, list[str]] = {"claims": [], "hypotheses": [], "ours": []}
    for verdict in verdicts:
        source = verdict.claim.source
        kind = "ours" if not source else "hypotheses" if HYPOTHESIS in source else "claims"
        words[kind].append(verdict.word)
    claims, supposed, ours = words.values()
    return (
        f"Of the paper's {len(claims)} claims: **shown here {claims.count(SHOWN)}**, not shown "
        f"{claims.count(NOT_SHOWN)}, undecided {claims.count(UNDECIDED)}; of {len(supposed)} "
        f"that it supposes: {_of(supposed)}; of {len(ours)} more of ours: {_of(ours)}."
    )


def _of(words: list[str]) -> str:
    return (
        f"shown here {words.count(SHOWN)}, not shown {words.count(NOT_SHOWN)}, undecided "
        f"{words.count(UNDECIDED)}"
    )


def _measured(verdict: Verdict) -> str:
    """The numbers, after what they are unless the claim says it."""
    measure = verdict.claim.measure
    return verdict.numbers if measure in verdict.claim.said else f"{measure}: {verdict.numbers}"


def _row(verdict: Verdict) -> dict[str, str | float]:
    """A line of the CSV, which has ten digits."""
    part, claim = verdict.claim.weakest, verdict.claim
    effect = part.effect if part else None
    return {
        "claim": claim.line,
        "source": claim.source,
        "verdict": verdict.word,
        "measure": claim.measure,
        "effect": effect.value if effect else math.nan,
        "low": effect.low if effect else math.nan,
        "high": effect.high if effect else math.nan,
        "p": verdict.p,
        "p_holm": verdict.adjusted,
        "n": claim.n,
        "exhibit": claim.exhibit,
    }
