"""Numbers and tables as text: Markdown and LaTeX."""

import math

import pandas as pd

LATEX = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "±": r"$\pm$", "–": "--", "×": r"$\times$"}


def number(value: float, like: float | None = None) -> str:
    """Four significant digits, or as many decimals as `like` is printed with; "–" for none."""
    if math.isnan(value):
        return "–"
    scale = abs(value if like is None else like)
    if math.isinf(scale):
        return f"{value:g}"
    decimals = 3 - math.floor(math.log10(scale)) if scale else 3
    return f"{value:.{min(max(decimals, 0), 4)}f}"


def spread(mean: float, std: float) -> str:
    """ "mean ± std", without a spread where there is none (a single seed)."""
    if math.isnan(mean) or math.isnan(std):
        return number(mean)
    return f"{number(mean)} ± {number(std, like=mean)}"


def markdown(table: pd.DataFrame) -> str:
    """A table of strings in Markdown: text to the left, numbers to the right."""
    align = ["left"] + ["right"] * (len(table.columns) - 1)
    return table.to_markdown(index=False, disable_numparse=True, colalign=align)


def latex(table: pd.DataFrame, caption: str) -> str:
    """A table of strings in LaTeX; it needs the packages booktabs and graphicx."""
    lines = [" & ".join(map(_escape, row)) + r" \\" for row in table.itertuples(index=False)]
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{_escape(caption)}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
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
    return "".join(LATEX.get(character, character) for character in text)
