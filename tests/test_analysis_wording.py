"""What the analysis says of its numbers: who wins, by which extractor and against what."""

import math
import re

import pytest

from analysis.exhibits.findings import Measured, contrast
from analysis.exhibits.inputs.metrics import measure_note
from tests.synthetic_results import analyse, write_results


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((1.0, 0.3), (2.0, 0.4), "**A** is better than B, as in the paper"),
        ((2.0, 0.3), (1.0, 0.4), "**B** is better than A, unlike in the paper"),
        ((1.0, 0.3), (2.0, 0.4), "1.000 ± 0.300 against 2.000 ± 0.400"),
        ((1.0, 0.3), (2.0, 0.4), "more than their combined standard deviation of 0.500 (seeds)"),
        ((1.0, 0.3), (1.4, 0.4), "no more than their combined standard deviation of 0.500"),
        ((1.0, math.nan), (2.0, 0.4), "nothing measured here says whether the gap of 1.000"),
        ((1.0, 0.3), (1.0, 0.4), "A and B are equal (1.000)"),
        ((math.nan, 0.3), (1.0, 0.4), "no comparison, as A has no value"),
    ],
)
def test_a_contrast_says_who_wins_and_whether_it_is_noise(first, second, expected):
    sentence = contrast("FID", Measured("A", *first), Measured("B", *second), lower_is_better=True)
    assert expected in sentence
    higher = contrast("IS", Measured("A", *second), Measured("B", *first))
    assert ("as in the paper" in sentence) == ("as in the paper" in higher)


def test_a_contrast_that_the_paper_does_not_have_does_not_mention_it():
    pair = Measured("A", 1.0), Measured("B", 2.0)
    assert "in the paper" not in contrast("FID", *pair, paper_has_first_better=False)


@pytest.mark.parametrize("extractor", ["classifier", "inception"])
def test_fid_and_is_always_carry_their_extractor(tmp_path, params, extractor):
    results = write_results(tmp_path / "results", extractor=extractor)
    analyse(results, tmp_path / "out", params)
    for path in sorted((tmp_path / "out").rglob("*.*")):
        if path.suffix not in (".md", ".tex", ".csv", ".html"):
            continue
        text = re.sub(r'"data:[^"]*"|<pre.*?</pre>', "", path.read_text(), flags=re.DOTALL)
        assert re.findall(r"\b(?:FID|IS)\b(?! \()", text) == [], path
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


FLATTERS = "perceptual loss is of the same network"


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [({}, True), ({"perceptual": "lpips_vgg"}, False), ({"pretrained": "file"}, False)],
)
def test_tables_say_where_the_tokenizer_was_trained_on_what_measures(make_params, tokenizer, said):
    params = make_params(data={"image_size": 32}, tokenizer=tokenizer)  # LPIPS needs 32
    assert (FLATTERS in measure_note(params, "classifier")) == said
    assert FLATTERS not in measure_note(params, "inception")
