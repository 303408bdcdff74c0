"""Speed (Figure 4): time per image, and speed-up over autoregressive decoding."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.patches import Patch

from analysis.exhibits import drawing, paper
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.claims import TIMINGS, Claim, Part
from analysis.exhibits.formatting import count, extent, listed, millions, number
from analysis.exhibits.results import Results
from analysis.exhibits.statistics import separation
from pipeline.config.params import Params

METHODS = {
    "maskgit": "MaskGIT",
    "ar_cached": "autoregressive, cached",
    "ar_uncached": "autoregressive, uncached",
}
COLOURS = dict(zip(METHODS, (drawing.BLUE, drawing.ORANGE, drawing.VERMILION), strict=True))
BASELINES = ("ar_uncached", "ar_cached")
STYLES = ("-", "--", ":")


def claims(results: Results, params: Params) -> list[Claim]:
    """Claims that MaskGIT is faster than the baseline at every batch size. The paper mentions no
    key-value cache, so its claim is tested against a baseline without a cache."""
    sizes = set(results.speed["tokens"])
    tokens = params.num_tokens if params.num_tokens in sizes else max(sizes)
    timed = results.speed[results.speed["tokens"] == tokens]
    return [
        Claim(
            said=f"MaskGIT decodes faster than the autoregressive baseline{addition}",
            source=source,
            exhibit="figure4",
            shown_in="Figure 4",
            measure=f"seconds per image of {tokens} tokens",
            sign=-1,
            parts=_timed(timed, baseline, how),
            noise=TIMINGS,
            networks=(),
        )
        for baseline, how, addition, source in (
            ("ar_uncached", "without a cache", "", "4.2, Figure 4"),
            ("ar_cached", "with a cache", " with a key-value cache", ""),
        )
    ]


def _timed(rows: pd.DataFrame, baseline: str, how: str) -> list[Part]:
    """Compare MaskGIT with the method `baseline`. Returns one comparison for each batch size."""
    known = rows.set_index(["method", "batch_size"]).to_dict("index")
    return [
        Part(
            separation(
                (ours["low"], ours["high"]),
                (theirs["low"], theirs["high"]),
                int(min(ours["repeats"], theirs["repeats"])),
            ),
            (ours["seconds_per_image"], theirs["seconds_per_image"]),
            sides=f"batch {batch}, {how}",
        )
        for (method, batch), theirs in known.items()
        if method == baseline and (ours := known.get(("maskgit", batch)))
    ]


def table(results: Results, params: Params) -> Table:
    """Seconds per image and MaskGIT's speed-ups, by method, tokens and batch size."""
    cells = with_speedups(results.speed)
    bf16 = params.decoding.bf16 and params.autoregressive.bf16
    precision = ", in bfloat16 where it is faster" if bf16 else ", in float32"
    device = listed(sorted(set(results.speed["device"].astype(str))))
    return Table(
        name="speed",
        title="Figure 4 in numbers: time per image",
        cells=cells,
        columns={
            "method": cells["method"].map(METHODS),
            "tokens": cells["tokens"].map(count),
            "batch": cells["batch_size"].map(count),
            "forward passes": cells["iterations"].map(count),
            "seconds per image": cells["seconds_per_image"].map(number),
            "fastest": cells["low"].map(number),
            "slowest": cells["high"].map(number),
            "times as fast as uncached": cells["speedup_ar_uncached"].map(number),
            "times as fast as cached": cells["speedup_ar_cached"].map(number),
        },
        notes=[
            f"Times are the median, minimum and maximum of {extent(results.speed['repeats'])} runs "
            f"on {device} with {extent(results.speed['threads'])} threads{precision}. The "
            f"networks have {millions(results.speed['parameters'].max())} parameters and random "
            "weights; no tokenizer is timed. A pass of MaskGIT covers all tokens of an image; a "
            "pass of the baseline covers the tokens so far, or one token with a cache. The paper "
            "mentions neither batch size nor cache, so its speed-up has no single counterpart here."
        ],
        timed=True,
    )


def chart(results: Results, params: Params) -> Figure:
    """Time per image and speed-up against the number of tokens."""
    cells = with_speedups(results.speed)
    return Figure(
        name="figure4",
        title="Figure 4: time per image, and speed-up over autoregressive decoding with and "
        "without a cache",
        alt="Two charts. Left: seconds per image by number of tokens for MaskGIT and for "
        "autoregressive decoding with and without a cache. Right: MaskGIT's speed-up over "
        "both.",
        paper=f"MaskGIT is up to {paper.MAX_SPEEDUP} times as fast as VQGAN's decoding, and "
        "its lead grows with the number of tokens; the paper does not say if VQGAN had a cache.",
        here=_findings(cells),
        draw=partial(_draw, cells),
        chart=True,
    )


def with_speedups(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort the timings, and add MaskGIT's speed-up over each baseline at the same number of tokens
    and batch size; NaN for the baselines."""
    sizes = ["tokens", "batch_size"]
    ours = rows["method"] == "maskgit"
    cells = rows.assign(rank=rows["method"].map(list(METHODS).index))
    for baseline in BASELINES:
        seconds = rows[rows["method"] == baseline].set_index(sizes)["seconds_per_image"]
        theirs = seconds.reindex(pd.MultiIndex.from_frame(cells[sizes])).to_numpy()
        cells[f"speedup_{baseline}"] = (theirs / cells["seconds_per_image"]).where(ours)
    cells = cells.sort_values(["batch_size", "tokens", "rank"]).drop(columns="rank")
    return cells.reset_index(drop=True)


def _findings(cells: pd.DataFrame) -> list[str]:
    """The speed-ups at the largest and smallest token counts, a sentence for each batch size."""
    found = []
    for batch, rows in cells[cells["method"] == "maskgit"].groupby("batch_size"):
        few, many = rows.iloc[0], rows.iloc[-1]
        pairs = {"uncached": "speedup_ar_uncached", "cached": "speedup_ar_cached"}
        most = [f"**{many[column]:.3g} times** as fast as {name}" for name, column in pairs.items()]
        least = [f"{few[column]:.3g}" for column in pairs.values()]
        found.append(
            f"Batch {count(batch)}, {count(many['tokens'])} tokens: MaskGIT is {listed(most)} "
            f"autoregressive decoding; with {count(few['tokens'])} tokens, {listed(least)} times."
        )
    return found


def _draw(cells: pd.DataFrame, path: Path, narrow: bool = False) -> None:
    batches = sorted(set(cells["batch_size"]))
    styles = {batch: STYLES[i % len(STYLES)] for i, batch in enumerate(batches)}
    with drawing.panels(path, narrow, (9.4, 3.6), tall=7.0) as ((left, right), legend):
        for (method, batch), rows in cells.groupby(["method", "batch_size"]):
            band = (rows["seconds_per_image"], rows["low"], rows["high"])
            drawing.curve(left, rows["tokens"], *band, COLOURS[method], ls=styles[batch])
        for baseline in BASELINES:
            for batch, rows in cells[cells["method"] == "maskgit"].groupby("batch_size"):
                look: dict[str, Any] = {"color": COLOURS[baseline], "ls": styles[batch]}
                right.plot(rows["tokens"], rows[f"speedup_{baseline}"], marker="o", **look)
        right.axhline(1, color="#999999", lw=0.8)
        for axes in (left, right):
            axes.set_yscale("log")
            drawing.log_steps(axes, cells["tokens"])
            drawing.plain_numbers(axes.yaxis, logarithmic=True)
            axes.set_xlabel("tokens of an image")
        left.set_ylabel("seconds per image")
        right.set_ylabel("MaskGIT: times as fast")
        for method, label in METHODS.items():
            legend[label] = left.plot([], [], color=COLOURS[method])[0]
        for batch in batches:
            legend[f"batch {batch}"] = left.plot([], [], color="#666666", ls=styles[batch])[0]
        legend["from the fastest\nto the slowest"] = Patch(color="#666666", alpha=0.15, lw=0)
