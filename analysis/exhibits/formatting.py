"""Formats numbers and tables as text, Markdown and LaTeX.

In all tables, "±" is half the width of a 95% interval. The column's heading, or a column of the
table, says what the interval is computed over, such as seeds.
"""

import math
import re
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from analysis.exhibits.results import LOWER_IS_BETTER, metric_label
from pipeline.config.params import Params

NONE = "–"
LATEX: dict[str, str | int | None] = {letter: f"\\{letter}" for letter in "_%&#${}"}
LATEX |= {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
LATEX |= {"±": r"$\pm$", "×": r"$\times$", "∗": r"$^*$", "→": r"$\to$", "∞": r"$\infty$"}
LATEX |= {"ρ": r"$\rho$", "γ": r"$\gamma$", "−": "$-$", "–": "--", "…": r"\dots{}"}


def number(value: float, like: float | None = None) -> str:
    """Format with four significant digits (three below 1), or with as many decimals as `like`."""
    if math.isnan(value):
        return NONE
    scale = abs(value if like is None else like)
    if math.isinf(scale):
        return f"{value:g}"
    exponent = math.floor(math.log10(scale)) if scale else 0
    decimals = 3 - exponent if exponent >= 0 else 2 - exponent
    return f"{value:.{min(max(decimals, 0), 6)}f}"


def spread(mean: float, std: float) -> str:
    """Format as "mean ± std", or as the mean alone if `std` is NaN (a single seed)."""
    if math.isnan(mean) or math.isnan(std):
        return number(mean)
    return f"{number(mean)} ± {number(std, like=mean)}"


def printed(values: pd.Series, decimals: int) -> list[str]:
    """Format the paper's values with at least `decimals` decimals; NaN is "–"."""
    return [
        NONE if pd.isna(value) else max(f"{value:.{decimals}f}", f"{value:g}", key=len)
        for value in values
    ]


def count(value: float) -> str:
    """Format an integer with thousands separators; NaN is "–"."""
    return NONE if math.isnan(value) else f"{int(value):,}"


def millions(value: float) -> str:
    """Format a number of parameters as the paper does: 227M, 1.4B. NaN is "–"."""
    if math.isnan(value):
        return NONE
    if value >= 1e9:
        return f"{value / 1e9:.1f}B"
    return f"{value / 1e6:.0f}M" if value >= 1e7 else f"{value / 1e6:.2f}M"


def percent(value: float) -> str:
    """Format a fraction as a percentage: 0.125 is 12.5%. NaN is "–"."""
    return NONE if math.isnan(value) else f"{100 * value:.1f}".removesuffix(".0") + "%"


def listed(items: Iterable[str]) -> str:
    """Join items as in "a, b and c"."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def extent(values: pd.Series) -> str:
    """The integer in a column, or the range of the column's integers: "100", "100 to 400"."""
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def seeds_of(seeds: pd.Series, params: Params) -> str:
    """Name the seeds behind the intervals: "3 training seeds". Empty for one seed (no interval)."""
    repeated = seeds[seeds > 0]  # without rows that have no seed, such as a floor
    if repeated.empty or repeated.max() < 2:
        return ""
    kind = "sampling" if params.transformer.pretrained else "training"
    return f"{extent(repeated)} {kind} seeds"


def counted_label(name: str, extractor: str, samples: pd.Series) -> str:
    """The label of a metric. If the metric is FID, the label includes the number of samples, since
    FID's bias depends on this number: "FID (classifier) of 320 samples"."""
    label = metric_label(name, extractor)
    if name != f"fid_{extractor}" or samples.dropna().empty:
        return label
    return f"{label} of {extent(samples.dropna())} samples"


def heading(label: str, over: str) -> str:
    """A column's heading: `label` and, if not empty, `over` (such as "over 3 training seeds")."""
    return f"{label}, ± 95% interval over {over}" if over else label


def columns(
    cells: pd.DataFrame, labels: Mapping[str, str], over: str, among: pd.Series | None = None
) -> dict[str, list[str]]:
    """Format several metrics (`labels`: metric → label). Returns a dict of heading → column. `over`
    (such as "3 training seeds") is explained in `heading`, and `among` in `column`."""
    return {heading(label, over): column(cells, name, among) for name, label in labels.items()}


def column(cells: pd.DataFrame, metric: str, among: pd.Series | None = None) -> list[str]:
    """Format a metric's columns from `statistics.over_seeds` as "mean ± half of the 95% interval".
    `among` marks comparable rows; the best mean of these rows is bold, unless all are equal."""
    means = cells[f"{metric}_mean"]
    texts = [spread(*pair) for pair in zip(means, cells[f"{metric}_ci95"], strict=True)]
    if among is None:
        return texts
    means = means.where(among)
    best = means.min() if metric.startswith(LOWER_IS_BETTER) else means.max()
    tied = np.isclose(means, best, rtol=1e-9, atol=0)  # equal except for rounding
    if tied.sum() == means.count():
        return texts
    return [f"**{text}**" if first else text for text, first in zip(texts, tied, strict=True)]


def is_text(column: pd.Series) -> bool:
    """Whether all strings of a column are words, not numbers; missing values are ignored."""
    words = [bool(re.match(r"[^\W\d_]|\d+ [a-z]", value)) for value in column if value != NONE]
    return bool(words) and all(words)


def markdown(table: pd.DataFrame) -> str:
    """Format a table of strings as Markdown, with text left-aligned and numbers right-aligned."""
    align = ["left" if is_text(table[name]) else "right" for name in table]
    return table.to_markdown(index=False, disable_numparse=True, colalign=align)


def setting(value: object) -> str:
    """Format the value of a decoding setting, or a name: "square root" for "square_root"."""
    text = f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")
    return NONE if text == "nan" else text


def latex(table: pd.DataFrame, caption: str) -> str:
    """Format a table of strings as LaTeX, which needs the packages booktabs and graphicx."""
    align = "".join("l" if is_text(table[name]) else "r" for name in table)
    cells = table.rename(columns=_escape).map(_escape)
    tabular = cells.to_latex(index=False, column_format=align, escape=False).rstrip()
    return rf"""\begin{{table}}[t]
\centering
\caption{{{_escape(caption)}}}
\resizebox{{\textwidth}}{{!}}{{%
{tabular}}}
\end{{table}}
"""


def _escape(text: str) -> str:
    """Escape special characters of LaTeX, and set words between ** in bold."""
    return re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", text.translate(str.maketrans(LATEX)))
