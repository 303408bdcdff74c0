"""What the analysis says of its numbers: who wins, by which extractor and against what."""

import re

import pandas as pd
import pytest

from analysis.exhibits import figure10
from analysis.exhibits.inputs.metrics import measure_note
from analysis.exhibits.inputs.results import read_results
from tests.synthetic_results import analyse, curves_of, write_results, write_tables
from tests.synthetic_tables import reconstruction_rows

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.parametrize("extractor", ["classifier", "inception"])
def test_fid_and_is_always_carry_their_extractor(tmp_path, params, extractor):
    results = write_results(tmp_path / "results", extractor=extractor)
    analyse(results, tmp_path / "out", params)
    for path in sorted((tmp_path / "out").rglob("*.*")):
        if path.suffix not in (".md", ".tex", ".csv", ".html"):
            continue
        text = re.sub(r'"data:[^"]*"|<pre.*?</pre>', "", path.read_text(), flags=re.DOTALL)
        assert re.findall(r"\b(?:FID|IS)\b(?!(?:∞|\$\\infty\$)? \()", text) == [], path
        if path.suffix != ".csv" and "FID" in text:
            assert f"FID ({extractor})" in text
    header = (tmp_path / "out/tables/sweep.csv").read_text().splitlines()[0]
    assert f"fid_{extractor}_mean,fid_{extractor}_std" in header


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({}, "FID (classifier) is against the training images; IS (classifier) over 1 split."),
        (
            {"reference_statistics": "/some/VIRTUAL.npz", "is_splits": 10},
            "FID (classifier) is against the statistics in VIRTUAL.npz; IS (classifier) over 10 "
            "splits.",
        ),
    ],
)
def test_tables_say_what_they_were_measured_against(
    tmp_path, make_params, results, evaluation, said
):
    analyse(results, tmp_path / "out", make_params(evaluation=evaluation, analysis={"dpi": 40}))
    for name in ("table1", "table2", "table3", "table4", "temperature"):
        assert said in (tmp_path / f"out/tables/{name}.md").read_text(), name


def table_text(results, params, name: str, **changes: dict) -> str:
    """A table's Markdown, once metrics of image sets have changed: {set: {metric: value}}."""
    path = results / "evaluation/rows.csv"
    rows = pd.read_csv(path)
    for images, values in changes.items():
        for metric, value in values.items():
            rows.loc[rows["images"] == images, metric] = value
    rows.to_csv(path, index=False)
    return (write_tables(results, results.parent / "tables", params) / f"{name}.md").read_text()


def test_reconstructions_are_called_no_bound_where_a_network_passes_them(results, params):
    assert "no bound" not in table_text(results, params, "table1")
    passed = {"recall_classifier": 0.9, "kid_classifier": 0.001, "is_classifier": 9.0}
    text = table_text(results, params, "table1", autoregressive=passed)
    said = "VQGAN∗'s mean KID (classifier) and recall (classifier) passes theirs."
    assert f"They are no bound: {said}" in text


def test_values_of_an_untrained_network_are_not_set_against_the_papers(results, params):
    text = table_text(results, params, "table5", reconstruction={"recall_random": 0.05})
    assert "a recall of 0.0500, the validation images themselves 0.375: decoding alone" in text
    assert not re.search(r"^- (recall|precision) \(random\)", text, re.MULTILINE)
    closer = table_text(results, params, "table5", reconstruction={"recall_random": 0.5})
    assert "decoding alone" not in closer


def test_values_of_a_trained_second_network_are_set_against_the_papers(tmp_path, params):
    results = write_results(tmp_path / "results", extractor="inception")
    for name in ("metrics.json", "rows.csv"):
        path = results / "evaluation" / name
        path.write_text(path.read_text().replace("_random", "_vgg"))
    text = table_text(results, params, "table5")
    assert "recall (inception): **VQGAN∗** is better than MaskGIT, unlike in the paper" in text
    assert "decoding alone" not in text


@pytest.mark.parametrize(("median", "said"), [(1.0, "by up to 1.000 dB"), (-1.0, "nowhere closer")])
def test_the_median_of_draws_is_called_closer_only_where_it_is(results, params, median, said):
    rows = reconstruction_rows()
    mean = rows[rows["draw"] >= 0].groupby("mask_ratio")["psnr"].mean()
    of_median = rows["draw"] < 0
    rows.loc[of_median, "psnr"] = rows["mask_ratio"].map(mean) + median
    rows.to_csv(results / "reconstruction/rows.csv", index=False)
    sentence = figure10.chart(read_results(results, curves_of(results)), params).here[-1]
    assert said in sentence and ("is closer" in sentence) == (median > 0)


FLATTERS = "perceptual loss is of the same network"


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [({}, True), ({"perceptual": "lpips_vgg"}, False), ({"pretrained": "file"}, False)],
)
def test_tables_say_where_the_tokenizer_was_trained_on_what_measures(make_params, tokenizer, said):
    params = make_params(data={"image_size": 32}, tokenizer=tokenizer)  # LPIPS needs 32
    assert (FLATTERS in measure_note(params, "classifier")) == said
    assert FLATTERS not in measure_note(params, "inception")
