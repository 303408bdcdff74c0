"""What decoding alone does: samples with exact conditional probabilities, without a network."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.exhibits import formatting as fmt
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.claims import GROUPS, Claim, Part
from analysis.exhibits.drawing import log_steps, panels, schedule_colours
from analysis.exhibits.results import Results, plain
from analysis.exhibits.statistics import flipped, nested_choice, pairs
from pipeline.config.params import RELEASE, Params

ERROR, LIKELIHOOD = "pair_error", "log_likelihood"
METRICS = (ERROR, LIKELIHOOD, "token_entropy")
Way = tuple[Any, ...]  # sampler, schedule, and a value of T or one of these:
BEST, EVERY = "best", "every"
ALL, EXACT = "all", "exact"  # names in the columns `group` and `sampler`


def table(results: Results, params: Params) -> Table:
    """The error of pairs for every way to decode, with a column for each T."""
    cells = results.oracle[results.oracle["group"] == ALL].drop(columns="group")
    names = [name for name in cells if name not in {*METRICS, "iterations"}]
    order = {"sort": False, "dropna": False}
    own = cells.fillna({"iterations": 0}).groupby([*names, "iterations"], **order)[ERROR].first()
    wide = 1000 * own.unstack("iterations").sort_index(axis=1)
    readable = wide.index.to_frame(index=False).map(_text)
    for t in wide:
        readable[f"T = {t:g}" if t else "no decoding"] = wide[t].map(fmt.number).to_numpy()
    return Table(
        name="oracle",
        title="Decoding with exact conditional probabilities",
        cells=cells,
        readable=readable,
        notes=[
            "Error of pairs × 1,000: total variation between pairs of tokens in the samples and in "
            "the known distribution (a hidden Markov chain), averaged over the distances 1, 2, 4 "
            f"and 8. Each row draws {params.oracle.total_tokens:,} tokens per T; the sampler "
            f"{EXACT} draws from the distribution itself."
        ],
        folded=True,
    )


def chart(results: Results, params: Params) -> Figure:
    """The error of pairs against T, with tokens in random order and with the paper's sampler."""
    return Figure(
        name="oracle",
        title="Figure 8 without a network",
        alt="Two charts with a curve for each mask schedule: error by number of iterations.",
        paper="each schedule has a best T; concave schedules are better than linear and convex.",
        draw=partial(_draw, results),
        chart=True,
    )


def claims(results: Results, params: Params) -> list[Claim]:
    """Claims about decoding alone, which must hold for every number of tokens N. n counts groups of
    samples; another group of samples chooses each group's best T."""
    rows = {name: _rows(results, name) for name in (RELEASE.sampler, "random", EXACT)}
    steps, t = sorted(set(rows[RELEASE.sampler]["iterations"])), RELEASE.iterations
    if not steps or rows[EXACT].empty:
        return []

    def compare(first: Way, second: Way, what: str, metric: str = ERROR) -> list[Part]:
        """Compare two ways to decode, for each N; a way without rows is left out."""
        found = []
        for n in params.oracle.tokens:
            a, b = pairs(*(_metrics(rows[way[0]], n, *way[1:])[metric] for way in (first, second)))
            effect = Part(flipped(a, b), (a.mean(), b.mean()), f"N = {n}, {what}")
            found += [effect] if len(a) else []
        return found

    def ordered(sampler: str, iterations: str, metric: str) -> list[Part]:
        """Compare schedules with less concave ones."""
        found = []
        for names in pairwise(("cosine", "linear", "logarithmic")):
            first, second = ((sampler, name, iterations) for name in names)
            found += compare(first, second, " and ".join(names), metric)
        return found

    best, fewest, most = ((RELEASE.sampler, "cosine", each) for each in (BEST, steps[0], steps[-1]))
    claim = partial(
        Claim,
        source="",
        exhibit="oracle",
        shown_in="Figure 8 without a network",
        measure="error of pairs",
        sign=-1,
        noise=GROUPS,
        networks=(),
    )
    alone = "with exact probabilities"
    return [
        claim(
            said=f"{alone}, the best T lies between the fewest and the most iterations",
            parts=compare(best, fewest, "best, fewest") + compare(best, most, "best, most"),
        ),
        claim(
            said=f"{alone}, less concave schedules need more iterations",
            measure="best T",
            parts=ordered(RELEASE.sampler, BEST, "iterations"),
        ),
        claim(
            said=f"{alone}, many iterations give samples that are too probable",
            measure="log-likelihood",
            sign=1,
            parts=compare(most, (EXACT,), "most, real", LIKELIHOOD),
        ),
        claim(
            said=f"{alone} and in random order, {t} iterations are better than half as many",
            parts=compare(("random", "cosine", t), ("random", "cosine", t / 2), f"{t}, {t // 2}"),
        ),
        claim(
            said=f"{alone} and in random order, less concave schedules than cosine are worse",
            measure="mean error of pairs over all T",
            parts=ordered("random", EVERY, ERROR),
        ),
    ]


def _rows(results: Results, sampler: str) -> pd.DataFrame:
    """The rows of a sampler with the release's other settings, for each group and for `ALL`."""
    rows = results.oracle[results.oracle["sampler"] == sampler]
    for name in {*rows} - {"sampler", "schedule", "iterations"} if sampler != EXACT else ():
        rows = rows[rows[name] == getattr(RELEASE, name)] if hasattr(RELEASE, name) else rows
    return rows.rename(columns={"group": "seed"})


def _metrics(
    rows: pd.DataFrame, tokens: int, schedule: str = "", iterations: float | str = EVERY
) -> pd.DataFrame:
    """Metrics by group: at a T, at the T that is best for another group, or averaged over T."""
    rows = rows[(rows["tokens"] == tokens) & (rows["seed"] != ALL)]
    rows = rows[rows["schedule"] == schedule] if schedule else rows
    if iterations == BEST:
        rows = nested_choice(rows, "iterations", ERROR)
    elif iterations != EVERY:
        rows = rows[rows["iterations"] == iterations]
    return rows.groupby("seed")[[*METRICS, "iterations"]].mean()


def _text(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else plain(str(value))
    return fmt.NONE if text == "nan" else text


def _draw(results: Results, path: Path, narrow: bool = False) -> None:
    """Draw the results with the most tokens; the dotted line is the error of real samples."""
    largest = results.oracle["tokens"].max()
    names = ("random", RELEASE.sampler, EXACT)
    random, confident, real = (_rows(results, name).query("seed == @ALL") for name in names)
    with panels(path, narrow, (9.8, 3.7), tall=6.4, ncols=2) as (drawn, legend):
        for axes, rows, title in zip(drawn, (random, confident), names[:2], strict=True):
            rows = rows[rows["tokens"] == largest]
            colours = schedule_colours(list(rows["schedule"].unique()))
            for name, line in rows.groupby("schedule", sort=False):
                look: Any = {"marker": "o", "color": colours[name], "label": plain(name)}
                axes.plot(line["iterations"], line[ERROR], **look)
            exact = real.loc[real["tokens"] == largest, ERROR]
            legend["real samples"] = axes.axhline(exact.item(), color="k", ls=":")
            log_steps(axes, rows["iterations"])
            axes.set(xlabel="T", ylabel="error of pairs", title=f"{title}, N = {largest}")
