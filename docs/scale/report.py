"""Makes the tables of docs/scale.md, and its curves, from the rows in this folder:
`python -m docs.scale.report`.

A ± is half of the 95% t interval of a mean over training seeds. Two settings are compared seed by
seed, since a seed fixes initialisation, batches and views; p is the paired t test's, with Holm's
correction over all comparisons of the page.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from tabulate import tabulate

from analysis.exhibits.drawing import figure, schedule_colours
from analysis.exhibits.statistics import half_width, holm, one_sample
from pipeline.runtime.files import write_text

FOLDER = Path(__file__).parent
PAGE = FOLDER.with_suffix(".md")
FID, IS, ACCURACY = "fid_classifier", "is_classifier", "class_accuracy"
BASELINE = "autoregressive"
USUAL = 4.5  # choice temperature
Where = dict[str, Any]  # column → value of the rows that are meant
Pair = tuple[str, str, Where, Where]  # name, metric, and where a and b of a − b lie


def load(folder: Path = FOLDER) -> pd.DataFrame:
    """All rows of the folder's CSV files that are of one network."""
    paths = [path for path in sorted(folder.glob("*.csv")) if path.stem != "networks"]
    return pd.concat([pd.read_csv(path) for path in paths])


def chosen(rows: pd.DataFrame, where: Where) -> pd.DataFrame:
    """The rows that have those values. Unless `where` says otherwise, decoded with the schedule of
    their training at the usual choice temperature; the baseline's rows have none of T's."""
    baseline = (rows["network"] == BASELINE).to_numpy()
    keep = np.ones(len(rows), dtype=bool)
    if "decode_schedule" not in where:
        keep &= (rows["decode_schedule"] == rows["network"]).to_numpy() | baseline
    for column, value in ({"choice_temperature": USUAL} | where).items():
        free = baseline & (column in ("iterations", "choice_temperature"))
        keep &= (rows[column] == value).to_numpy() | free
    return rows[keep]


def by_seed(rows: pd.DataFrame, where: Where, metric: str) -> pd.Series:
    """The metric of each seed."""
    found = chosen(rows, where).set_index("seed")[metric]
    assert found.index.is_unique, f"several rows of a seed fit {where}"
    return found.sort_index()


def text(values: pd.Series, digits: int = 2) -> str:
    """Mean ± half width (n)."""
    if values.empty:
        return "–"
    mean = f"{values.mean():.{digits}f}"
    if len(values) == 1:
        return f"{mean} (1)"
    return f"{mean} ± {half_width(values):.{digits}f} ({len(values)})"


def grid(
    rows: pd.DataFrame, lines: dict[str, Where], columns: dict[str, Where], metric: str
) -> str:
    """A table of `text`, a line and a column for each name."""
    body = [
        [name, *(text(by_seed(rows, own | where, metric)) for where in columns.values())]
        for name, own in lines.items()
    ]
    return tabulate(body, headers=["", *columns], tablefmt="github", disable_numparse=True)


def comparisons(rows: pd.DataFrame, pairs: list[Pair]) -> str:
    """A table of differences: name, metric, mean ± half width (n), and p."""
    lines, values = [], []
    for name, metric, a, b in pairs:
        gap = (by_seed(rows, a, metric) - by_seed(rows, b, metric)).dropna()
        lines.append([name, metric.split("_")[0].upper(), text(gap)])
        values.append(one_sample(gap).p)
    for line, p, corrected in zip(lines, values, holm(values), strict=True):
        line += ["–", "–"] if np.isnan(p) else [f"{p:.3f}", f"{corrected:.2f}"]
    return tabulate(
        lines,
        headers=["a − b", "of", "mean ± (n)", "p", "p (Holm)"],
        tablefmt="github",
        disable_numparse=True,
    )


def sizes(rows: pd.DataFrame) -> str:
    """A table of other networks, a line each: FID and share recognised after so many steps."""
    shape = ["network", "layers", "hidden", "mlp", "dropout", "otherwise"]
    rows = rows.assign(
        otherwise=rows["otherwise"].fillna(""),
        cell=[f"{f:.2f}, {a:.0%}" for f, a in zip(rows[FID], rows[ACCURACY], strict=True)],
    )
    wide = rows.pivot(index=shape, columns="steps", values="cell").fillna("–").reset_index()
    return tabulate(
        wide.values.tolist(),
        headers=[*shape, *(f"{steps} steps" for steps in wide.columns[len(shape) :])],
        tablefmt="github",
        disable_numparse=True,
    )


def network(name: str, smoothing: float = 0.1, tokens: int = 49, **more: Any) -> Where:
    return {"network": name, "label_smoothing": smoothing, "tokens": tokens} | more


def draw(axes: Axes, rows: pd.DataFrame, lines: dict[str, Where], along: str, metric: str) -> None:
    """A point for each seed and a line through their means, dashed and open without label
    smoothing. The baseline, which knows no T, is level along it."""
    colours = schedule_colours([where["network"] for where in lines.values()])
    level: list[tuple[pd.Series, dict[str, Any], dict[str, Any]]] = []
    ticks: set[int] = set()
    for name, where in lines.items():
        found, smoothed = chosen(rows, where), where["label_smoothing"] > 0
        if found.empty:
            continue
        colour = colours[where["network"]]
        line: dict[str, Any] = {
            "color": colour,
            "label": name,
            "linestyle": "-" if smoothed else "--",
        }
        points: dict[str, Any] = {
            "color": colour,
            "fillstyle": "full" if smoothed else "none",
            "alpha": 0.7,
        }
        if where["network"] == BASELINE and along == "iterations":
            level.append((found[metric], line, points))
            continue
        mean = found.groupby(along)[metric].mean()
        axes.plot(mean.index, mean, **line)
        axes.plot(found[along], found[metric], "o", **points)
        ticks |= set(mean.index)
    for values, line, points in level:
        axes.plot([min(ticks), max(ticks)], [values.mean()] * 2, **line)
        axes.plot([max(ticks)] * len(values), values, "o", **points)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(ticks), [f"{tick:g}" for tick in sorted(ticks)])
    axes.set_xlabel({"steps": "training steps", "iterations": "T"}[along])
    if metric == FID:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 7, 8)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()


STEPS = {"300 steps": {"steps": 300}, "600": {"steps": 600}, "1200": {"steps": 1200}}
AT_1200 = {f"T = {t}": {"iterations": t, "steps": 1200} for t in (2, 4, 8, 24)}
FINE = {
    f"{steps} steps, T = {t}": {"iterations": t, "steps": steps}
    for steps in (400, 800)
    for t in (4, 8, 16)
}
TEMPERATURES = {f"{c:g}": {"choice_temperature": c} for c in (0, 1, 2, 4.5, 8)}
DECODED = {
    name: {"decode_schedule": name} for name in ("exponential", "cosine", "linear", "logarithmic")
}
COSINE, COSINE_SHARP = network("cosine"), network("cosine", 0.0)
RASTER, RASTER_SHARP = network(BASELINE), network(BASELINE, 0.0)
SMALL = {  # 7×7 tokens
    "exponential": network("exponential"),
    "cosine": COSINE,
    "linear": network("linear"),
    "autoregressive": RASTER,
    "cosine, without smoothing": COSINE_SHARP,
    "autoregressive, without smoothing": RASTER_SHARP,
}
LARGE = {  # 14×14
    name: where | {"tokens": 196, "samples": 500}
    for name, where in SMALL.items()
    if where["network"] in ("cosine", BASELINE)
}


def tables(rows: pd.DataFrame) -> dict[str, str]:
    """Every table of the page."""
    at_8 = {name: where | {"iterations": 8} for name, where in SMALL.items()}
    noisy = {
        "cosine": at(COSINE, 1200, 8),
        "cosine, without smoothing": at(COSINE_SHARP, 1200, 8),
    }
    trained = {f"trained with {n}": at(network(n), 1200, 8) for n in ("cosine", "exponential")}
    return {
        "fid-steps": grid(rows, at_8, STEPS, FID),
        "accuracy-steps": grid(rows, at_8, STEPS, ACCURACY),
        "fid-iterations": grid(rows, SMALL, AT_1200, FID),
        "is-iterations": grid(rows, SMALL, AT_1200, IS),
        "fid-tokens": grid(rows, LARGE, FINE, FID),
        "accuracy-tokens": grid(rows, LARGE, FINE, ACCURACY),
        "fid-temperature": grid(rows, noisy, TEMPERATURES, FID),
        "fid-decoding": grid(rows, trained, DECODED, FID),
        "networks": sizes(pd.read_csv(FOLDER / "networks.csv")),
        "comparisons": comparisons(rows, pairs()),
    }


def at(where: Where, steps: int, iterations: int) -> Where:
    return where | {"steps": steps, "iterations": iterations}


def pairs() -> list[Pair]:
    """The comparisons of the page, chosen when most of seed 0 was measured and before any other
    seed was."""
    found: list[Pair] = []
    for kind, a, b in (
        ("with smoothing", COSINE, RASTER),
        ("without smoothing", COSINE_SHARP, RASTER_SHARP),
    ):
        for steps in (300, 1200):
            name = f"cosine − autoregressive, {kind}, {steps} steps"
            found += [(name, metric, at(a, steps, 8), at(b, steps, 8)) for metric in (FID, IS)]
    for name, a, b in (
        ("cosine", COSINE_SHARP, COSINE),
        ("autoregressive", RASTER_SHARP, RASTER),
    ):
        title = f"{name}, without − with smoothing, 1200 steps"
        found.append((title, FID, at(a, 1200, 8), at(b, 1200, 8)))
    for steps in (300, 1200):
        for name in ("exponential", "cosine", "logarithmic"):
            a, b = at(network(name), steps, 8), at(network("linear"), steps, 8)
            found.append((f"{name} − linear, {steps} steps", FID, a, b))
    for name in ("cosine", "exponential"):
        for t in (4, 24):
            a, b = at(network(name), 1200, t), at(network(name), 1200, 8)
            found.append((f"{name}, T = {t} − T = 8, 1200 steps", FID, a, b))
    return found


def figures(rows: pd.DataFrame, folder: Path = FOLDER, dpi: int = 110) -> None:
    """Every figure of the page: FID (left) and IS (right)."""
    at_8 = {name: where | {"iterations": 8} for name, where in SMALL.items()}
    at_1200 = {name: where | {"steps": 1200} for name, where in SMALL.items()}
    fine = {name: where | {"steps": 800} for name, where in LARGE.items()}
    for name, lines, along in (
        ("steps", at_8, "steps"),
        ("iterations", at_1200, "iterations"),
        ("tokens", fine, "iterations"),
    ):
        with figure(folder / f"{name}.png", (10, 3.4), dpi) as canvas:
            for axes, metric in zip(canvas.subplots(1, 2), (FID, IS), strict=True):
                draw(axes, rows, lines, along, metric)
                axes.set_ylabel(f"{metric.split('_')[0].upper()} (classifier)")
            axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


def filled(page: str, tables: dict[str, str]) -> str:
    """The page with its tables, each between `<!-- name -->` and `<!-- end -->`."""
    for name, table in tables.items():
        before, begin, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert end, f"the page has no place for {name}"
        page = f"{before}{begin}{table}\n{end}{after}"
    return page


if __name__ == "__main__":
    all_rows = load()
    figures(all_rows)
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), tables(all_rows)))
