"""How the analysis writes labels, numbers and LaTeX."""

import math
import re

import pandas as pd

from analysis.exhibits.formatting import (
    count,
    latex,
    listed,
    millions,
    number,
    percent,
    printed,
    spread,
)
from analysis.exhibits.inputs.metrics import metric_label
from analysis.exhibits.intervals import column


def test_labels_and_numbers():
    assert metric_label("is_inception", "inception") == "IS (inception)"
    assert metric_label("precision_random", "random") == "precision (random)"
    assert metric_label("nll", "classifier") == "NLL"
    assert metric_label("is_splits", "classifier") == "is splits"
    assert number(181.5) == "181.5" and number(0.0) == "0.000" and number(float("nan")) == "–"
    assert number(0.5) == "0.500" and number(0.00123) == "0.00123" and number(-12.344) == "-12.34"
    assert spread(12.344, 0.5) == "12.34 ± 0.50"
    assert count(1234.0) == "1,234" and millions(226.97e6) == "227M" and millions(1.25e6) == "1.25M"
    assert millions(1.4e9) == "1.4B" and millions(13.5e9) == "13.5B"
    paper = pd.Series([182.1, 45, 58.06, float("nan")])
    assert printed(paper, 1) == ["182.1", "45.0", "58.06", "–"]  # nothing is rounded away
    assert percent(0.05) == "5%" and percent(0.985) == "98.5%"
    assert listed(["a"]) == "a" and listed(iter("abc")) == "a, b and c"


def test_latex_is_plain_ascii_with_as_many_cells_as_columns(outputs):
    files = sorted(outputs.rglob("*.tex"))
    assert {path.stem for path in files} == {path.stem for path in outputs.rglob("*.csv")}
    for path in files:
        text = path.read_text()
        assert text.isascii(), path
        columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1])
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        cells = [len(re.split(r"(?<!\\)&", row)) for row in rows]
        assert len(rows) > 1 and set(cells) == {columns}, path
        unescaped = re.sub(r"\\[{}]", "", text)
        assert unescaped.count("{") == unescaped.count("}")


def test_latex_escapes_what_names_may_hold():
    text = latex(pd.DataFrame({"a": ["x_1 & 50% #2 $^~{\\}"], "b": ["1"]}), "c")
    assert r"x\_1 \& 50\% \#2 \$\textasciicircum{}\textasciitilde{}\{\textbackslash{}\}" in text


def test_the_best_mean_of_those_that_compete_is_bold():
    cells = pd.DataFrame({"fid_x_mean": [2.0, 1.0, 0.5], "fid_x_ci95": [0.1, 0.1, 0.1]})
    cells["recall_x_mean"], cells["recall_x_ci95"] = [0.2, 0.2, 0.9], math.nan
    networks = pd.Series([True, True, False])  # the last are real images
    marked = ["2.000 ± 0.100", "**1.000 ± 0.100**", "0.500 ± 0.100"]
    assert column(cells, "fid_x", networks) == marked
    assert column(cells, "recall_x", networks) == ["0.200", "0.200", "0.900"]  # none is best
    assert column(cells, "fid_x")[1] == "1.000 ± 0.100"
    cells["recall_x_mean"] = [(0.1 + 0.2) / 3, 0.3 / 3, 0.9]  # the same but for a sum's rounding
    assert "**" not in "".join(column(cells, "recall_x", networks))


def test_bold_words_are_bold_in_latex():
    text = latex(pd.DataFrame({"model": ["a"], "FID": ["**1.0 ± 0.1**"]}), "")
    assert r"a & \textbf{1.0 $\pm$ 0.1} \\" in text
