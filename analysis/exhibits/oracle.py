"""The effect of decoding alone: exact conditional probabilities replace the network."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.exhibits import formatting as fmt
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.claims import Claim, Part, by_pairs
from analysis.exhibits.drawing import log_steps, panels, schedule_colours
from analysis.exhibits.results import Results
from analysis.exhibits.statistics import flipped, nested_choice
from pipeline.config.params import RELEASE, Params

ERROR, LIKELIHOOD = "pair_error", "log_likelihood"
METRICS = (ERROR, LIKELIHOOD, "token_entropy")
BEST, EVERY = "the best T", "every T"
ALL, EXACT = "all", "exact"  # names in the columns `group` and `sampler`


def table(results: Results, params: Params) -> Table:
    """Token-pair error, defined in the table's note: a row per decoding setting, a column per T."""
    cells = results.oracle[results.oracle["group"] == ALL].drop(columns="group")
    names = [name for name in cells if name not in {*METRICS, "iterations"}]
    order = {"sort": False, "dropna": False}
    own = cells.fillna({"iterations": 0}).groupby([*names, "iterations"], **order)[ERROR].first()
    wide = 1000 * own.unstack("iterations").sort_index(axis=1)
    readable = wide.index.to_frame(index=False).map(fmt.setting)
    for t in wide:
        readable[f"T = {t:g}" if t else "no decoding"] = wide[t].map(fmt.number).to_numpy()
    return Table(
        name="oracle",
        title="Decoding with exact conditional probabilities",
        cells=cells,
        columns=readable,
        notes=[
            "Token-pair error × 1,000: total variation between the distributions of token pairs "
            "in the samples and in a hidden Markov chain, averaged over the distances 1, 2, 4 "
            f"and 8. Each row draws {params.oracle.total_tokens:,} tokens per T; the sampler "
            f"{EXACT} draws from the distribution itself."
        ],
        folded=True,
    )


def chart(results: Results, params: Params) -> Figure:
    """The token-pair error (see `table`) against T, for the samplers `random` and `confidence`."""
    return Figure(
        name="oracle",
        title="Figure 8 without a network",
        alt="Two charts with a curve for each mask schedule: error by number of iterations.",
        paper="each schedule has a best T; concave schedules are better than linear and convex.",
        draw=partial(_draw, results),
        chart=True,
    )


def claims(results: Results, params: Params) -> list[Claim]:
    """Claims about decoding alone. A claim holds only if it holds for every number of tokens N. Its
    n is the number of groups that the samples of a setting are divided into."""
    ours = _rows(results, RELEASE.sampler)
    steps = sorted(set(ours.loc[ours["schedule"] == "cosine", "iterations"]))
    if not steps:
        return []
    order, t = ("cosine", "linear", "logarithmic"), RELEASE.iterations
    best = [Way(RELEASE.sampler, schedule, BEST) for schedule in order]
    random = [Way("random", schedule, EVERY) for schedule in order]
    fewest, most = (Way(RELEASE.sampler, "cosine", each) for each in (steps[0], steps[-1]))
    half, whole = (Way("random", "cosine", each) for each in (t / 2, t))
    later, ordered = ([*pairwise(ways)] for ways in (best, random))
    compared: dict[str, tuple[str, list[tuple[Way, Way]]]] = {
        "the best T lies between the extremes": (ERROR, [(best[0], fewest), (best[0], most)]),
        "linear needs more iterations than cosine, logarithmic yet more": ("iterations", later),
        "many iterations give too probable samples": (LIKELIHOOD, [(Way(EXACT), most)]),
        f"in random order, {t} iterations beat half as many": (ERROR, [(whole, half)]),
        "in random order, cosine beats linear, which beats logarithmic": (ERROR, ordered),
    }
    return [
        Claim(
            said=f"with exact probabilities, {said}",
            exhibit="oracle",
            shown_in="Figure 8 without a network",
            measure={ERROR: "token-pair error", "iterations": "T"}.get(metric, "log-likelihood"),
            sign=-1,
            parts=[
                part
                for n in params.oracle.tokens
                for first, second in ways
                for part in _compared(results, n, first, second, metric)
            ],
            noise="groups of samples",
            networks=(),
        )
        for said, (metric, ways) in compared.items()
    ]


class Way(NamedTuple):
    """A way to decode: a sampler, a mask schedule, and T, which is a number, `BEST` (the T with the
    least token-pair error in another group) or `EVERY` (the mean over all T)."""

    sampler: str
    schedule: str = ""
    iterations: float | str = EVERY

    def __str__(self) -> str:
        t = f"T = {self.iterations:g}" if self.iterations not in (BEST, EVERY) else self.iterations
        return f"{self.schedule} at {t}" if self.schedule else "the distribution itself"


def _compared(results: Results, tokens: int, first: Way, second: Way, metric: str) -> list[Part]:
    ours, theirs = (_metrics(results, tokens, way)[metric] for way in (first, second))
    return by_pairs(ours, theirs, f"N = {tokens}, {first} and {second}", flipped)


def _rows(results: Results, sampler: str) -> pd.DataFrame:
    """A sampler's rows for every schedule, T and group; all other settings are the authors'."""
    rows = results.oracle[results.oracle["sampler"] == sampler]
    others = {name for name in rows if hasattr(RELEASE, name)}
    for name in others - {"sampler", "schedule", "iterations"} if sampler != EXACT else ():
        value = getattr(RELEASE, name)
        rows = rows[rows[name].isna() if value is None else rows[name] == value]
    return rows.rename(columns={"group": "seed"})  # as `nested_choice` expects


def _metrics(results: Results, tokens: int, way: Way) -> pd.DataFrame:
    """Each group's metrics at `way`'s T: a number, another group's best T, or the mean over T."""
    rows = _rows(results, way.sampler)
    rows = rows[(rows["tokens"] == tokens) & (rows["seed"] != ALL)]
    rows = rows[rows["schedule"] == way.schedule] if way.schedule else rows
    if way.iterations == BEST:
        rows = nested_choice(rows, "iterations", ERROR)
    elif way.iterations != EVERY:
        rows = rows[rows["iterations"] == way.iterations]
    return rows.groupby("seed")[[*METRICS, "iterations"]].mean()


def _draw(results: Results, path: Path, narrow: bool = False) -> None:
    """Draw the errors for the largest N. The dotted line is the error of the sampler `exact`."""
    largest = results.oracle["tokens"].max()
    names = ("random", RELEASE.sampler, EXACT)
    random, confident, real = (_rows(results, name).query("seed == @ALL") for name in names)
    with panels(path, narrow, (9.8, 3.7), tall=6.4, ncols=2) as (drawn, legend):
        for axes, rows, title in zip(drawn, (random, confident), names[:2], strict=True):
            rows = rows[rows["tokens"] == largest]
            colours = schedule_colours(list(rows["schedule"].unique()))
            for name, line in rows.groupby("schedule", sort=False):
                look: Any = {"marker": "o", "color": colours[name], "label": fmt.setting(name)}
                axes.plot(line["iterations"], line[ERROR], **look)
            exact = real.loc[real["tokens"] == largest, ERROR]
            legend["real samples"] = axes.axhline(exact.item(), color="k", ls=":")
            log_steps(axes, rows["iterations"])
            axes.set(xlabel="T", ylabel="token-pair error", title=f"{title}, N = {largest}")
