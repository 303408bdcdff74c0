"""The analysis on small synthetic results whose right answers are known: its tables."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.exhibits import table3
from analysis.exhibits.base import Table
from analysis.exhibits.figure4 import with_speedups
from analysis.exhibits.figure10 import by_mask_ratio
from analysis.exhibits.findings import Measured, contrast
from analysis.exhibits.formatting import count, latex, listed, millions, number, percent, spread
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import measure_note, metric_label
from analysis.exhibits.inputs.results import read_results, read_sweep
from analysis.exhibits.statistics import best_iterations, rank_correlation, summarize
from analysis.report.contents import sections
from tests.synthetic_results import (
    BEST_FID,
    analyse,
    curves_of,
    rejection_rows,
    speed_rows,
    sweep_rows,
    write_results,
)

ROOT = Path(__file__).parents[1]

# By FID the paper ranks the schedules 5 3 2 1 4 6 7, `BEST_FID` 5 3 2 4 1 6 7, so
# Σd² = 3² + 3² = 18 and Spearman's ρ = 1 − 6·18 / (7·48).
FID_RHO = 1 - 6 * 18 / (7 * 48)


@pytest.fixture
def make(results, params, tmp_path):
    """Makes the tables, and no figures, and returns their folder."""

    def run() -> Path:
        for section in sections(read_results(results, curves_of(results)), params):
            for exhibit in section.exhibits:
                if isinstance(exhibit, Table):
                    exhibit.write(tmp_path / "tables")
        return tmp_path / "tables"

    return run


@pytest.fixture
def tables(outputs) -> Path:
    return outputs / "tables"


@pytest.mark.parametrize(("best_by", "best"), [("fid", 8), ("is", 16)])
def test_best_iterations_follow_the_chosen_metric(results, best_by, best):
    sweep = read_sweep(results / "sweep/rows.csv")
    chosen = best_iterations(summarize(sweep), sweep, best_by)
    assert set(chosen["iterations"]) == {best}
    assert list(chosen["schedule"]) == list(paper.TABLE_3)


def test_best_is_chosen_on_the_mean_over_seeds_and_ties_go_to_fewer_iterations(results):
    rows = sweep_rows({"cosine": 1.0})
    # At T = 4 one seed is the best of all single runs, yet the means over seeds are equal.
    rows["fid_classifier"] = [0.0, 4.0, 2.0, 2.0, 9.0, 9.0]
    rows.to_csv(results / "sweep/rows.csv", index=False)
    sweep = read_sweep(results / "sweep/rows.csv")
    assert list(best_iterations(summarize(sweep), sweep, "fid")["iterations"]) == [4]


def test_table3_has_mean_and_sample_std_over_seeds(tables):
    row = pd.read_csv(tables / "table3.csv").set_index("schedule").loc["linear"]
    assert row["fid_classifier_mean"] == pytest.approx(1.1)
    assert row["fid_classifier_std"] == pytest.approx(0.2 / 2**0.5)
    assert row["kid_classifier_mean"] == pytest.approx(0.002)
    assert row["seeds"] == 2 and row["samples"] == 100
    assert "1.100 ± 0.141" in (tables / "table3.md").read_text()
    assert r"1.100 $\pm$ 0.141" in (tables / "table3.tex").read_text()


def test_table3_has_the_papers_values(tables):
    table = pd.read_csv(tables / "table3.csv").set_index("schedule")
    assert list(table.index) == list(paper.TABLE_3)
    ours = table[["paper_iterations", "paper_fid_inception", "paper_is_inception", "paper_nll"]]
    for name, theirs in paper.TABLE_3.items():
        assert tuple(ours.loc[name]) == theirs
    assert "FID (paper, Inception)" in (tables / "table3.md").read_text()


def test_rank_correlation_equals_the_value_by_hand(tables):
    table = pd.read_csv(tables / "rank_correlation.csv").set_index("metric")
    assert table.loc["fid_classifier", "spearman_rho"] == pytest.approx(FID_RHO)
    assert table.loc["nll", "spearman_rho"] == pytest.approx(1)
    # Of the 7! orderings, only the same and the reverse are as extreme as ρ = 1.
    assert table.loc["nll", "p_value"] == pytest.approx(2 / 5040)


def test_rank_correlation_needs_three_schedules_of_the_paper(results):
    sweep_rows({"cosine": 1.0, "linear": 2.0, "mine": 3.0}).to_csv(
        results / "sweep/rows.csv", index=False
    )
    sweep = read_sweep(results / "sweep/rows.csv")
    correlation = rank_correlation(best_iterations(summarize(sweep), sweep, "fid"), sweep)
    assert list(correlation["schedules"]) == [2, 2, 2]
    assert correlation["spearman_rho"].isna().all()


def test_verdict_says_when_linear_beats_cosine(tables):
    text = (tables / "table3.md").read_text()
    assert "By FID (classifier) the best schedule here is **linear**" in text
    assert "in the paper it is **cosine**" in text
    assert "Unlike in the paper" in text and "linear (1.100 ± 0.141 at T = 8)" in text


def test_verdict_does_not_claim_a_difference_when_cosine_wins(results, make):
    sweep_rows({**BEST_FID, "cosine": 0.95}).to_csv(results / "sweep/rows.csv", index=False)
    text = (make() / "table3.md").read_text()
    assert "**cosine**" in text and "Unlike" not in text
    assert "no more than their combined standard deviation of 0.200 (seeds)" in text


def test_one_seed_has_no_spread_and_says_so(results, make):
    sweep_rows(seeds=(7,)).to_csv(results / "sweep/rows.csv", index=False)
    tables = make()
    text = (tables / "table3.md").read_text()
    assert "One seed" in text and "±" not in text and "nan" not in text
    assert pd.read_csv(tables / "table3.csv")["fid_classifier_std"].isna().all()


def test_sweep_table_has_every_cell_and_metrics_added_since(results, make):
    sweep_rows().assign(novelty=0.5).to_csv(results / "sweep/rows.csv", index=False)
    table = pd.read_csv(make() / "sweep.csv")
    assert len(table) == 7 * 3
    assert (table["novelty_mean"] == 0.5).all()


def test_table1_has_ours_their_spread_and_the_papers_rows(tables):
    table = pd.read_csv(tables / "table1.csv").set_index("model")
    models = ["MaskGIT", "VQGAN∗", "reconstructions", "real images", "BigGAN-deep", "ADM"]
    assert list(table.index) == models
    ours = table.loc["MaskGIT"]
    assert (ours["fid_classifier"], ours["fid_classifier_std"]) == (3.5, 0.3)
    assert (ours["steps"], ours["parameters"]) == (8, 1_250_000)
    # RandAugment's three seeds: 0.5, 0.6, 0.7.
    assert ours["cas_top1_mean"] == pytest.approx(0.6)
    assert ours["cas_top1_std"] == pytest.approx(0.1)
    assert (ours["paper_fid_inception"], ours["paper_cas_top1"]) == (6.18, 0.6314)
    assert table.loc["VQGAN∗", "paper_fid_inception"] == 18.65
    assert table.loc["real images", "paper_cas_top5"] == 0.931
    assert table.loc["BigGAN-deep"].filter(like="classifier").isna().all()
    assert np.isnan(table.loc["ADM", "paper_cas_top1"])
    assert "nll" not in table.columns
    text = (tables / "table1.md").read_text()
    assert "3.500 ± 0.300" in text and "bootstrap" in text and "over 3 seeds" in text
    assert "1,200 steps with label smoothing 0, MaskGIT for 1,200 with 0.1" in text


def test_table1_says_what_agrees_with_the_paper_and_what_does_not(tables):
    text = (tables / "table1.md").read_text()
    assert "FID (classifier): **MaskGIT** is better than VQGAN∗, as in the paper" in text
    # √(0.3² + 0.4²)
    assert "gap of 1.000 is more than their combined standard deviation of 0.500" in text
    assert "recall (classifier): **VQGAN∗** is better than MaskGIT, unlike in the paper" in text


def test_images_of_512_pixels_are_beside_the_papers_rows_for_512(results, make_params, tmp_path):
    data = {"image_size": 512, "source": "folder:/somewhere/else/places"}
    own = make_params(preset="mine", data=data, analysis={"dpi": 40})
    analyse(results, tmp_path / "out", own)
    tables = tmp_path / "out/tables"
    assert pd.read_csv(tables / "table1.csv").loc[0, "paper_fid_inception"] == 7.32
    assert 4.46 in set(pd.read_csv(tables / "table4.csv")["paper_fid_inception"])
    for path in sorted(tables.parent.rglob("*.*")):
        if path.suffix in (".md", ".tex", ".csv", ".html"):
            assert "mnist" not in path.read_text().lower(), path
    assert "MaskGIT on places" in (tables.parent / "report.html").read_text()


def test_table2_has_every_task_the_floor_and_the_papers_models(tables):
    table = pd.read_csv(tables / "table2.csv")
    assert list(dict.fromkeys(table["task"])) == [
        "inpaint_center",
        "outpaint_right",
        "outpaint_left",
        "outpaint_top",
        "outpaint_bottom",
    ]
    rows = table.set_index(["task", "model"]).sort_index()
    ours = rows.loc[("outpaint_right", "MaskGIT")]
    assert ours["fid_classifier_mean"] == pytest.approx(2.1)
    assert ours["fid_classifier_std"] == pytest.approx(0.2 / 2**0.5)
    assert (ours["paper_fid_inception"], ours["paper_is_inception"]) == (6.78, 11.69)
    assert rows.loc[("inpaint_center", "CoModGAN"), "paper_fid_inception"] == 7.13
    assert rows.loc[("outpaint_right", "nearest pixel (floor)"), "fid_classifier_mean"] == 3
    assert np.isnan(rows.loc[("inpaint_center", "HiFill"), "fid_classifier_mean"])
    text = (tables / "table2.md").read_text()
    assert "MaskGIT is better than the floor in **4 of 5 tasks**" in text
    # The floor is no draw: the noise is MaskGIT's own.
    assert "(2.100 ± 0.141 against 3.000); the gap of 0.900 is more than" in text
    assert "combined standard deviation of 0.141 (seeds)" in text


def test_images_too_few_for_a_fid_are_no_error(results, make):
    for name in ("editing", "temperature"):
        rows = pd.read_csv(results / f"{name}/rows.csv").assign(fid_classifier=np.nan)
        rows.to_csv(results / f"{name}/rows.csv", index=False)
    tables = make()
    assert pd.read_csv(tables / "temperature.csv")["fid_classifier_mean"].isna().all()
    for name in ("table2", "temperature"):
        assert "nan" not in (tables / f"{name}.md").read_text()


def test_table4_sets_rejection_beside_a_random_selection_of_the_same_size(tables):
    table = pd.read_csv(tables / "table4.csv").set_index(["model", "selection", "acceptance"])
    assert table.loc[("MaskGIT", "rejection", 0.5), "fid_classifier"].item() == 2
    assert table.loc[("MaskGIT", "random", 0.5), "fid_classifier"].item() == 3
    assert table.loc[("MaskGIT", "rejection", 0.05), "paper_fid_inception"].item() == 4.02
    assert table.loc[("MaskGIT", "rejection", 1.0), "paper_fid_inception"].item() == 6.18
    assert table.loc[("VQGAN", "rejection", 0.05), "paper_is_inception"].item() == 304.8
    text = (tables / "table4.md").read_text()
    assert "too few samples for a covariance" in text and "nan" not in text
    # 0.05 has no FID here, so that one half is the smallest share to compare.
    assert "MaskGIT at 50%, FID (classifier): **rejection** is better" in text
    assert "recall 0.300 with, 0.500 without" in text


def test_table4_compares_at_the_smallest_acceptance(results, make):
    rows = rejection_rows().fillna({"fid_classifier": 1.5, "fid_classifier_std": 0.1})
    rows.to_csv(results / "rejection/rows.csv", index=False)
    text = (make() / "table4.md").read_text()
    assert "MaskGIT at 5%, FID" in text and "at 50%" not in text


def test_table4_keeps_the_papers_row_where_its_acceptance_was_not_run(results, make):
    rows = rejection_rows()
    rows[rows["acceptance"] != 0.05].to_csv(results / "rejection/rows.csv", index=False)
    tables = make()
    table = pd.read_csv(tables / "table4.csv").set_index(["model", "selection", "acceptance"])
    row = table.loc[("MaskGIT", "rejection", 0.05)]
    assert row["paper_fid_inception"].item() == 4.02 and np.isnan(row["fid_classifier"].item())
    assert "too few samples" not in (tables / "table4.md").read_text()


def test_table5_has_the_second_extractor_and_cas_without_augmentation(tables):
    table = pd.read_csv(tables / "table5.csv").set_index("model")
    assert table.loc["VQGAN∗", "recall_random"] == 0.625
    assert table.loc["MaskGIT", "cas_top1_mean"] == pytest.approx(0.5)
    assert table.loc["MaskGIT", "paper_recall_inception"] == 0.50
    assert table.loc["real images", "paper_cas_top1"] == 0.731
    text = (tables / "table5.md").read_text()
    assert "recall (random)" in text and "recall (classifier)" not in text
    assert "an untrained classifier" in text and "trained without RandAugment" in text


def test_temperature_names_the_best_and_the_one_that_is_used(outputs):
    table = pd.read_csv(outputs / "tables/temperature.csv").set_index("choice_temperature")
    assert table.loc[2.0, "fid_classifier_mean"] == pytest.approx(1.1)
    report = (outputs / "report.html").read_text()
    assert "FID (classifier) is best at <strong>2</strong>" in report
    assert "At 4.5, which all else here uses" in report


def test_reconstructions_are_pooled_over_draws(tables):
    table = pd.read_csv(tables / "reconstruction.csv").set_index("mask_ratio")
    assert list(table.index) == [0, 0.5, 0.9] and set(table["draws"]) == {2}
    # Two draws with stds over images of 3 and 4: the root of their mean variance.
    assert table.loc[0.5, "psnr_sample"] == pytest.approx(18)
    assert table.loc[0.5, "psnr_sample_std"] == pytest.approx(math.sqrt((9 + 16) / 2))
    assert table.loc[0.9, "psnr_median"] == pytest.approx(9.8)


def test_the_steepest_fall_of_psnr_is_found(outputs):
    # 2 dB over half of the tokens, then 10 dB over four tenths.
    report = (outputs / "report.html").read_text()
    assert "<strong>most steeply between 50% and 90%</strong>: by 2.500 dB" in report


def test_medians_may_be_missing(results):
    rows = pd.read_csv(results / "reconstruction/rows.csv")
    cells = by_mask_ratio(rows[rows["draw"] >= 0])
    assert cells["psnr_median"].isna().all() and cells["psnr_sample"].notna().all()


def test_speedups_compare_the_same_tokens_and_batch():
    rows = speed_rows().sample(frac=1, random_state=0)
    cells = with_speedups(rows)
    for row in cells.to_dict("records"):
        if row["method"] == "maskgit":
            assert row["speedup_ar_uncached"] == pytest.approx(row["tokens"] / 4)
            assert row["speedup_ar_cached"] == pytest.approx(2)
        else:
            assert np.isnan(row["speedup_ar_uncached"]) and np.isnan(row["speedup_ar_cached"])


def test_a_size_without_a_baseline_has_no_speedup():
    rows = speed_rows()
    alone = (rows["tokens"] == 256) & (rows["method"] == "ar_uncached") & (rows["batch_size"] == 1)
    cells = with_speedups(rows[~alone]).query("method == 'maskgit' and batch_size == 1")
    assert list(cells["speedup_ar_uncached"].isna()) == [False, False, True]
    assert list(cells["speedup_ar_cached"]) == pytest.approx([2, 2, 2])


def test_the_speed_table_is_kept_apart_and_says_what_the_paper_compares(outputs):
    assert not (outputs / "tables/speed.csv").exists()
    text = (outputs / "timings/speed.md").read_text()
    assert "nor whether its baseline had a cache" in text and "on cpu with 2 threads" in text
    assert "does not say whether that had a cache" in (outputs / "report.html").read_text()


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


def test_precision_stands_beside_the_papers_of_the_same_network(tmp_path, params):
    """The paper's Table 1 has VGG, its Table 5 Inception."""
    results = write_results(tmp_path / "results", extractor="inception")
    path = results / "evaluation/metrics.json"
    path.write_text(path.read_text().replace("_random", "_vgg"))
    metrics = json.loads(path.read_text())["transformer"]
    analyse(results, tmp_path / "out", params)
    for name, network in (("table1", "vgg"), ("table5", "inception")):
        row = pd.read_csv(tmp_path / f"out/tables/{name}.csv").set_index("model").loc["MaskGIT"]
        assert row[f"recall_{network}"] == metrics[f"recall_{network}"]
        assert f"paper_recall_{network}" in row
        text = (tmp_path / f"out/tables/{name}.md").read_text()
        assert f"recall ({network})" in text and f"precision ({network})" in text


def test_metrics_that_could_not_be_measured_are_no_error(tmp_path, params):
    results = write_results(tmp_path / "results")
    path = results / "evaluation/metrics.json"
    metrics = json.loads(path.read_text())
    metrics["real"] |= {"fid_classifier": None, "fid_classifier_std": None, "kid_classifier": None}
    path.write_text(json.dumps(metrics))
    analyse(results, tmp_path / "out", params)
    table = pd.read_csv(tmp_path / "out/tables/table1.csv").set_index("model")
    assert np.isnan(table.loc["real images", "fid_classifier"])
    assert table.loc["MaskGIT", "fid_classifier"] == 3.5


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


def test_released_weights_are_not_called_trained_for_a_schedule(tmp_path, make_params, results):
    released = make_params(transformer={"pretrained": "file"})
    for params, said in ((released, True), (make_params(), False)):
        for table in (table3.table, table3.agreement):
            notes = " ".join(table(read_results(results, curves_of(results)), params).notes)
            assert ("from the same released weights" in notes) == said


def test_labels_and_numbers():
    assert metric_label("is_inception", "inception") == "IS (inception)"
    assert metric_label("precision_random", "random") == "precision (random)"
    assert metric_label("nll", "classifier") == "NLL"
    assert metric_label("is_splits", "classifier") == "is splits"
    assert number(181.5) == "181.5" and number(0.0) == "0.000" and number(float("nan")) == "–"
    assert number(0.5) == "0.500" and number(0.00123) == "0.00123" and number(-12.344) == "-12.34"
    assert spread(12.344, 0.5) == "12.34 ± 0.50"
    assert count(1234.0) == "1,234" and millions(226.97e6) == "227M" and millions(1.25e6) == "1.25M"
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
