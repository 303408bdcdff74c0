"""Numbers and tables as text: Markdown and LaTeX."""

import math
import re
from collections.abc import Iterable

import pandas as pd

NONE = "–"
LATEX = {
    "\\": r"\textbackslash{}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "±": r"$\pm$",
    "–": "--",
    "…": r"\dots{}",
    "×": r"$\times$",
    "∗": r"$^*$",
    "ρ": r"$\rho$",
    "γ": r"$\gamma$",
    "→": r"$\to$",
    "∞": r"$\infty$",
    "−": "$-$",
}


def number(value: float, like: float | None = None) -> str:
    """Four significant digits, below 1 three, or as many decimals as `like` has; "–" for none."""
    if math.isnan(value):
        return NONE
    scale = abs(value if like is None else like)
    if math.isinf(scale):
        return f"{value:g}"
    exponent = math.floor(math.log10(scale)) if scale else 0
    decimals = 3 - exponent if exponent >= 0 else 2 - exponent
    return f"{value:.{min(max(decimals, 0), 6)}f}"


def spread(mean: float, std: float) -> str:
    """ "mean ± std", without a spread where there is none (a single seed)."""
    if math.isnan(mean) or math.isnan(std):
        return number(mean)
    return f"{number(mean)} ± {number(std, like=mean)}"


def spreads(cells: pd.DataFrame, metric: str, mean: str = "_mean", std: str = "_std") -> list[str]:
    """A column of "mean ± std"; `mean` and `std` are what its columns' names end with."""
    pairs = zip(cells[f"{metric}{mean}"], cells[f"{metric}{std}"], strict=True)
    return [spread(*pair) for pair in pairs]


def printed(values: pd.Series, decimals: int) -> list[str]:
    """A column of the paper's values with so many decimals, or more where it prints more; "–" for
    none."""
    return [
        NONE if pd.isna(value) else max(f"{value:.{decimals}f}", f"{value:g}", key=len)
        for value in values
    ]


def count(value: float) -> str:
    """An integer with its thousands set apart; "–" for none."""
    return NONE if math.isnan(value) else f"{int(value):,}"


def millions(value: float) -> str:
    """A number of parameters as the paper writes it: 227M, 1.4B; "–" for none."""
    if math.isnan(value):
        return NONE
    if value >= 1e9:
        return f"{value / 1e9:.1f}B"
    return f"{value / 1e6:.0f}M" if value >= 1e7 else f"{value / 1e6:.2f}M"


def percent(value: float) -> str:
    """A share: 0.125 is 12.5%."""
    return NONE if math.isnan(value) else f"{100 * value:.1f}".removesuffix(".0") + "%"


def listed(items: Iterable[str]) -> str:
    """ "a, b and c"."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def extent(values: pd.Series) -> str:
    """An integer, or the range of several: "100", "100 to 400"."""
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def is_text(column: pd.Series) -> bool:
    """Whether a column of strings holds words and no numbers, but for what is missing."""
    words = [bool(re.match(r"[^\W\d_]|\d+ [a-z]", value)) for value in column if value != NONE]
    return bool(words) and all(words)


def markdown(table: pd.DataFrame) -> str:
    """A table of strings in Markdown: text to the left, numbers to the right."""
    align = ["left" if is_text(table[name]) else "right" for name in table]
    return table.to_markdown(index=False, disable_numparse=True, colalign=align)


def latex(table: pd.DataFrame, caption: str) -> str:
    """A table of strings in LaTeX; it needs the packages booktabs and graphicx."""
    align = "".join("l" if is_text(table[name]) else "r" for name in table)
    lines = [" & ".join(map(_escape, row)) + r" \\" for row in table.itertuples(index=False)]
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{_escape(caption)}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            " & ".join(map(_escape, table.columns)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def _escape(text: str) -> str:
    """Words between ** in bold, and LaTeX's own characters as such."""
    escaped = "".join(LATEX.get(character, character) for character in text)
    return re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", escaped)
