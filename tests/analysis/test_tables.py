"""The tables: our means and intervals, the paper's values beside them, and what they are called."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from analysis.exhibits import paper, quality, rejection, schedules
from analysis.exhibits.formatting import column, count, latex, listed, millions, number, percent
from analysis.exhibits.reconstruction import by_mask_ratio
from analysis.exhibits.results import FEATURE_METRICS, read_results
from analysis.exhibits.speed import with_speedups
from analysis.report.build import judged
from tests.analysis.synthetic import (
    BEST_FID,
    analyse,
    crossing_rows,
    evaluation_rows,
    reconstruction_rows,
    rejection_rows,
    speed_rows,
    sweep_rows,
    write_results,
)

# By FID the paper ranks the schedules 5 3 2 1 4 6 7, `BEST_FID` 5 3 2 4 1 6 7, so
# Σd² = 3² + 3² = 18 and Spearman's ρ = 1 − 6·18 / (7·48).
FID_RHO = 1 - 6 * 18 / (7 * 48)


# Quality: Tables 1 and 5, label smoothing


def test_table1_has_ours_their_spread_and_the_papers_rows(tables):
    table = pd.read_csv(tables / "table1.csv").set_index("model")
    ours = ["MaskGIT", "VQGAN∗", "reconstructions", "real images"]
    others = ["DCTransformer", "BigGAN-deep", "Improved DDPM", "ADM", "VQVAE-2", "VQGAN"]
    assert list(table.index) == ours + others
    ours = table.loc["MaskGIT"]
    # Seeds add 0, 0.02 and 0.04; t of two degrees of freedom is 4.3027.
    assert ours["fid_classifier_mean"] == pytest.approx(3.52)
    assert ours["fid_classifier_std"] == pytest.approx(0.02)
    assert ours["fid_classifier_ci95"] == pytest.approx(4.30265 * 0.02 / 3**0.5, rel=1e-5)
    assert ours["fid_infinity_classifier_mean"] == pytest.approx(3.395)
    assert (ours["steps"], ours["parameters"]) == (8, 1_250_000)
    # RandAugment's three seeds: 0.5, 0.6, 0.7.
    assert ours["cas_top1_mean"] == pytest.approx(0.6)
    assert ours["cas_top1_std"] == pytest.approx(0.1)
    assert (ours["paper_fid_inception"], ours["paper_cas_top1"]) == (6.18, 0.6314)
    assert table.loc["real images", "paper_cas_top5"] == 0.931
    assert table.loc["BigGAN-deep"].filter(like="classifier").isna().all()
    assert "nll" not in table.columns


def test_one_set_of_images_has_the_interval_over_its_images(results, tables, make_tables):
    table = pd.read_csv(tables / "table1.csv").set_index("model")
    over = dict(table["over"].dropna())
    assert over["VQGAN∗"] == "3 training seeds" and over["real images"] == "images"
    # The spread over 20 halves is 0.02; FID∞ has that of FID.
    own = table.loc["reconstructions"]
    assert own["fid_classifier_ci95"] == pytest.approx(2.0930 * 0.02, rel=1e-4)
    assert own["fid_infinity_classifier_ci95"] == own["fid_classifier_ci95"]
    path = results / "evaluation/rows.csv"
    rows = pd.read_csv(path)
    rows[rows["seed"].isna() | (rows["seed"] == 1)].to_csv(path, index=False)
    alone = pd.read_csv(make_tables() / "table1.csv").set_index("model").loc["MaskGIT"]
    assert alone["over"] == "images" and alone["fid_classifier_mean"] == pytest.approx(3.52)
    assert alone["fid_classifier_ci95"] == pytest.approx(2.0930 * 0.3, rel=1e-4)


def test_images_of_512_pixels_are_beside_the_papers_rows_for_512(results, make_params, tmp_path):
    data = {"image_size": 512, "source": "folder:/somewhere/else/places"}
    own = make_params(preset="mine", data=data, analysis={"dpi": 40})
    analyse(results, tmp_path / "out", own)
    tables = tmp_path / "out/tables"
    assert pd.read_csv(tables / "table1.csv").loc[0, "paper_fid_inception"] == 7.32
    assert "58.06" in (tables / "table1.md").read_text()  # ADM's IS, with all of its digits
    assert 4.46 in set(pd.read_csv(tables / "table4.csv")["paper_fid_inception"])
    assert "MaskGIT on places" in (tables.parent / "report.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_precision_stands_beside_the_papers_of_the_same_network(tmp_path, params):
    """The paper's Table 1 has VGG, its Table 5 Inception. FID and IS always carry their network."""
    results = write_results(tmp_path / "results", extractor="inception")
    for name in ("metrics.json", "rows.csv"):
        path = results / "evaluation" / name
        path.write_text(path.read_text().replace("_random", "_vgg"))
    metrics = json.loads((results / "evaluation/metrics.json").read_text())["transformer"]
    analyse(results, tmp_path / "out", params)
    for name, network in (("table1", "vgg"), ("table5", "inception")):
        row = pd.read_csv(tmp_path / f"out/tables/{name}.csv").set_index("model").loc["MaskGIT"]
        assert row[f"recall_{network}_mean"] == pytest.approx(metrics[f"recall_{network}"])
        assert f"paper_recall_{network}" in row
        text = (tmp_path / f"out/tables/{name}.md").read_text()
        assert f"recall ({network})" in text and f"precision ({network})" in text
    for path in sorted((tmp_path / "out").rglob("*.*")):
        if path.suffix in (".md", ".tex", ".csv", ".html"):
            text = re.sub(r'"data:[^"]*"|<pre.*?</pre>', "", path.read_text(), flags=re.DOTALL)
            assert re.findall(r"\b(?:FID|IS)\b(?!(?:∞|\$\\infty\$)? \()", text) == [], path


@pytest.mark.usefixtures("undrawn")
def test_metrics_that_could_not_be_measured_are_no_error(results, params, tmp_path):
    measured = ("fid", "kid", "precision", "recall", "density", "coverage")
    rows, kept = evaluation_rows(), rejection_rows()
    few = rows["images"].isin(["real", "reconstruction"])  # a small validation split
    rows.loc[few, [name for name in rows if name.startswith(measured)]] = np.nan
    rows.to_csv(results / "evaluation/rows.csv", index=False)
    few = kept["acceptance"] == kept["acceptance"].min()
    kept.loc[few, [name for name in kept if name.startswith(measured)]] = np.nan
    kept.to_csv(results / "rejection/rows.csv", index=False)
    for name in ("editing", "temperature"):
        rows = pd.read_csv(results / f"{name}/rows.csv").assign(fid_classifier=np.nan)
        rows.to_csv(results / f"{name}/rows.csv", index=False)
    for name in ("evaluation/real.csv", "sweep/crossing.csv"):  # none at all
        pd.read_csv(results / name).head(0).to_csv(results / name, index=False)
    path = results / "evaluation/metrics.json"
    metrics = json.loads(path.read_text())
    for images in ("real", "reconstruction"):
        metrics[images] |= {n: None for n in metrics[images] if n.startswith(measured)}
    metrics["transformer"]["is_classifier"] = None
    path.write_text(json.dumps(metrics))
    analyse(results, tmp_path / "out", params)
    written = [path.read_text() for path in (tmp_path / "out/tables").glob("*.md")]
    assert not any(" nan" in text or "None" in text for text in written)
    table = pd.read_csv(tmp_path / "out/tables/table1.csv").set_index("model")
    assert np.isnan(table.loc["real images", "fid_classifier_mean"])
    assert table.loc["MaskGIT", "fid_classifier_mean"] == pytest.approx(3.52)
    assert "No schedules were crossed" in (tmp_path / "out/tables/crossing.md").read_text()
    assert "is_classifier" not in json.loads((results / "metrics.json").read_text())["MaskGIT"]


def test_a_new_metric_is_in_every_table_of_metrics(results, params, monkeypatch):
    monkeypatch.setitem(FEATURE_METRICS, "new_thing", "new thing")
    name, label = "new_thing_classifier", "new thing (classifier)"
    for file in ("evaluation/rows.csv", "sweep/rows.csv", "rejection/rows.csv"):
        pd.read_csv(results / file).assign(**{name: 0.125}).to_csv(results / file, index=False)
    found = read_results(results)
    for table in (quality.table1(found, params), rejection.table(found, params)):
        measured = table.readable[table.cells[f"{name}_mean"].notna()]
        (heading,) = [each for each in table.readable if each.startswith(label)]
        assert len(measured) > 1 and set(measured[heading].str[:5]) == {"0.125"}
    headings = schedules.grid(found, params).readable.columns
    assert any(heading.startswith(label) for heading in headings)


def test_both_networks_have_a_row_for_each_label_smoothing(tables):
    table = pd.read_csv(tables / "smoothing.csv")
    assert list(table["model"]) == ["MaskGIT", "MaskGIT", "VQGAN∗", "VQGAN∗", "real images"]
    assert list(table["label_smoothing"].dropna()) == [0.1, 0.0, 0.1, 0.0]
    means = table["fid_classifier_mean"]
    assert list(means) == pytest.approx([3.52, 5.52, 4.53, 4.53, 0.125])


# Schedules: Table 3, the agreement with the paper, schedules crossed


def test_table3_has_mean_and_interval_over_seeds_and_the_papers_values(tables):
    table = pd.read_csv(tables / "table3.csv").set_index("schedule")
    row = table.loc["linear"]
    # Seeds add 0, 0.06 and 0.05: std 0.032146; t of two degrees of freedom is 4.3027.
    assert row["fid_classifier_mean"] == pytest.approx(1 + 0.11 / 3)
    assert row["fid_classifier_ci95"] == pytest.approx(4.30265 * 0.0321455 / 3**0.5, rel=1e-5)
    assert row["seeds"] == 3 and row["samples"] == 100
    assert table.loc["real images", "fid_classifier_mean"] == pytest.approx(0.5)
    text = (tables / "table3.md").read_text()
    heading = "FID (classifier) of 100 samples, ± 95% interval over 3 training seeds"
    assert "1.037 ± 0.080" in text and heading in text
    assert r"1.037 $\pm$ 0.080" in (tables / "table3.tex").read_text()
    assert list(table.index) == [*paper.TABLE_3, "real images"]
    ours = table[["paper_iterations", "paper_fid_inception", "paper_is_inception", "paper_nll"]]
    for name, theirs in paper.TABLE_3.items():
        assert tuple(ours.loc[name]) == theirs


@pytest.fixture
def swept(results):
    """Reads results whose sweep has these rows."""

    def read(rows: pd.DataFrame):
        rows.to_csv(results / "sweep/rows.csv", index=False)
        return read_results(results)

    return read


def test_a_table_has_each_seed_at_the_t_that_another_chooses(swept, params):
    rows = sweep_rows({"cosine": 1.0}, seeds=(0, 1))
    rows["fid_classifier"] = [0.0, 4.0, 2.0, 2.0, 9.0, 9.0]  # T = 4, 8, 16 of both seeds
    found = swept(rows)
    table = schedules.table3(found, params)
    # Seed 0 has the T that is best for seed 1, and the other way round.
    assert table.cells.loc[0, "iterations"] == "8, 4"
    assert table.cells.loc[0, "fid_classifier_mean"] == (2.0 + 4.0) / 2
    assert table.readable.loc[0, "T, chosen by another seed"] == "8, 4"
    assert "cosine 8/4 (paper: 10)" in schedules.quality(found, params).here[-1]
    # A figure marks the best mean over seeds; of equal ones the smallest T.
    marked = schedules.best_iterations(schedules.summarize(found), "fid_classifier", "fid")
    assert list(marked["iterations"]) == [4]


@pytest.mark.parametrize(("best_by", "said"), [("fid", False), ("is", True)])
def test_table3_says_where_the_largest_t_was_the_best(make_params, results, best_by, said):
    params = make_params(analysis={"best_by": best_by})
    notes = " ".join(schedules.table3(read_results(results), params).notes)
    assert ("the best may lie beyond: exponential (T = 16), cubic (T = 16)" in notes) == said


def test_rank_correlation_equals_the_value_by_hand(tables):
    table = pd.read_csv(tables / "rank_correlation.csv").set_index("metric")
    assert table.loc["fid_classifier", "spearman_rho"] == pytest.approx(FID_RHO)
    assert table.loc["nll", "spearman_rho"] == pytest.approx(1)
    # Of the 7! orderings, only the same and the reverse are as extreme as ρ = 1.
    assert table.loc["nll", "p_value"] == pytest.approx(2 / 5040)


def test_a_schedule_that_the_paper_lacks_comes_last_and_is_compared_with_none(swept, params):
    found = swept(sweep_rows({"quartic": 0.5, "arccos": 2.5, **BEST_FID}))
    table = schedules.table3(found, params)
    assert list(table.cells["schedule"]) == [*paper.TABLE_3, "arccos", "quartic", "real images"]
    theirs = [name for name in table.readable if "(paper" in name]
    assert (table.readable.iloc[7:][theirs] == "–").all(axis=None)
    assert (table.readable.iloc[:7][theirs] != "–").all(axis=None)
    assert not any("quartic" in verdict.sentence for verdict in judged(found, params))
    beside = schedules.agreement(found, params)
    alone = schedules.agreement(swept(sweep_rows(BEST_FID)), params)
    pd.testing.assert_frame_equal(alone.cells, beside.cells)
    assert "Left out, as not among the paper's schedules: arccos and quartic." in beside.notes


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("names", ["quartic", "quartic mine yours", "linear quartic"])
def test_a_sweep_over_few_or_none_of_the_papers_schedules_is_no_error(
    results, params, tmp_path, names
):
    rows = sweep_rows({name: 1.0 + place for place, name in enumerate(names.split())}, seeds=(7,))
    rows.to_csv(results / "sweep/rows.csv", index=False)
    analyse(results, tmp_path / "out", params)
    correlation = pd.read_csv(tmp_path / "out/tables/rank_correlation.csv")
    assert set(correlation["schedules"]) == {len(set(names.split()) & set(paper.TABLE_3))}
    assert correlation["spearman_rho"].isna().all()
    text = (tmp_path / "out/tables/table3.md").read_text()
    assert "One seed" in text and "±" not in text and "nan" not in text


def test_schedules_are_crossed_with_the_lowest_of_each_row_and_column(tables):
    text = (tables / "crossing.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    grid = {row[0]: row for row in rows if row and len(row) == 7}
    # Seeds add 0, 0.02, 0.04 twice where both are cubic: 5 − 1 − 2 + 0.04 ± 4.3027 × 0.04 / √3.
    assert grid["cubic"][1] == "2.040 ± 0.099"
    cells = crossing_rows().groupby(["schedule", "decoding_schedule"])["fid_classifier"].mean()
    cells = cells.unstack()
    for name in cells.index:
        plain = name.replace("_", " ")
        assert grid[plain][5] == cells.loc[name].idxmin()
        assert float(grid[plain][6]) == pytest.approx(cells.loc[name].mean(), abs=5e-4)
    lowest = grid["lowest in the column"][1:5]
    assert lowest == [cells[name].idxmin() for name in ("cubic", "cosine", "linear", "square_root")]


# Editing, rejection, temperature, reconstruction, speed


def test_table2_has_every_task_the_floor_and_the_papers_models(tables):
    rows = pd.read_csv(tables / "table2.csv").set_index(["task", "model"]).sort_index()
    ours = rows.loc[("outpaint_right", "MaskGIT")]
    assert ours["fid_classifier_mean"] == pytest.approx(2.02)
    assert ours["fid_classifier_std"] == pytest.approx(0.02)
    assert (ours["paper_fid_inception"], ours["paper_is_inception"]) == (6.78, 11.69)
    assert rows.loc[("inpaint_center", "CoModGAN"), "paper_fid_inception"] == 7.13
    assert rows.loc[("outpaint_right", "nearest pixel (floor)"), "fid_classifier_mean"] == 3
    assert rows.loc[("inpaint_center", "the images themselves"), "fid_classifier_mean"] == 0.5
    text = (tables / "table2.md").read_text()
    assert "top 5.020 and bottom 2.020; of the images untouched 0.500" in text


def test_table4_sets_rejection_beside_a_random_selection_of_the_same_size(
    results, tables, make_tables
):
    table = pd.read_csv(tables / "table4.csv").set_index(["model", "selection", "acceptance"])
    fid = table["fid_classifier_mean"]
    assert fid[("MaskGIT", "rejection", 0.5)].item() == pytest.approx(2.03)
    assert fid[("MaskGIT", "random", 0.5)].item() == pytest.approx(3.02)
    real = table.loc["real images"].set_index("samples")["fid_classifier_mean"]
    assert real.to_dict() == {1000: 0.125, 100: 0.5}
    assert table.loc[("MaskGIT", "rejection", 0.05), "paper_fid_inception"].item() == 4.02
    assert table.loc[("MaskGIT", "rejection", 1.0), "paper_fid_inception"].item() == 6.18
    text = (tables / "table4.md").read_text()
    # 0.05 has no FID here, so that one half is the smallest share to compare.
    assert "FID (classifier), MaskGIT at 50%: **rejection** is better than random" in text
    assert "too few samples for a covariance" in text
    rows = rejection_rows().fillna({"fid_classifier": 1.5})
    rows.to_csv(results / "rejection/rows.csv", index=False)
    assert "FID (classifier), MaskGIT at 5%" in (make_tables() / "table4.md").read_text()


def test_temperature_names_the_one_that_is_chosen_and_the_one_that_is_used(outputs):
    table = pd.read_csv(outputs / "tables/temperature.csv").set_index("choice_temperature")
    assert table.loc[2.0, "fid_classifier_mean"] == pytest.approx(1.02)
    report = (outputs / "report.html").read_text()
    assert "that another seed chooses (2) FID (classifier) is <strong>1.020</strong>" in report
    assert "At 4.5, which all else here uses, it is 1.645" in report


def test_reconstructions_are_pooled_over_draws(tables):
    table = pd.read_csv(tables / "reconstruction.csv").set_index("mask_ratio")
    assert list(table.index) == [0, 0.5, 0.9, 0.95] and set(table["draws"]) == {2}
    # Seeds add 0, 0.03 and 0.06.
    assert table.loc[0.5, "psnr_sample"] == pytest.approx(18.03)
    assert table.loc[0.5, "psnr_sample_ci95"] == pytest.approx(4.30265 * 0.03 / 3**0.5, rel=1e-5)
    # Two draws with stds over images of 3 and 4: the root of their mean variance.
    assert table.loc[0.5, "psnr_sample_std"] == pytest.approx(math.sqrt((9 + 16) / 2))
    rows = reconstruction_rows()
    cells = by_mask_ratio(rows[rows["seed"] == 0]).set_index("mask_ratio")
    # One seed: the median's std over eight images is 3, as NumPy's (n); t of 7 degrees.
    assert cells.loc[0.5, "psnr_median_ci95"] == pytest.approx(2.3646 * 3 / 7**0.5, rel=1e-4)
    assert by_mask_ratio(rows[rows["draw"] >= 0])["psnr_median"].isna().all()


@pytest.mark.parametrize(
    ("hidden", "fall", "values"),
    [
        # Of 49 tokens 39, 44 and 47 are hidden: a straight fall has no knee.
        ([0, 39 / 49, 44 / 49, 47 / 49], [0, 390 / 49, 440 / 49, 470 / 49], (1, 1)),
        # A curve that bends at one half and is straight from there on has no knee at 90%.
        ([0, 0.5, 0.9, 0.95], [0, 1, 9, 10], (2, 2)),
        ([0, 0.5, 1, 1], [0, 1, 9, 10], None),  # two ratios hide as many of four tokens
    ],
)
def test_the_knee_is_set_against_the_step_before_it(results, params, hidden, fall, values):
    rows = reconstruction_rows()
    ratios = [0.0, 0.5, 0.9, 0.95]
    rows["hidden"] = rows["mask_ratio"].map(dict(zip(ratios, hidden, strict=True)))
    noise = rows["seed"] * rows["mask_ratio"] ** 2 / 100
    rows["psnr"] = 20 - rows["mask_ratio"].map(dict(zip(ratios, fall, strict=True))) + noise
    rows.to_csv(results / "reconstruction/rows.csv", index=False)
    found = judged(read_results(results), params)
    (knee,) = [verdict.claim for verdict in found if verdict.claim.exhibit == "figure10"]
    assert [part.values for part in knee.parts] == (
        [pytest.approx(values, abs=0.01)] if values else []
    )


def test_speedups_compare_the_same_tokens_and_batch():
    rows = speed_rows().sample(frac=1, random_state=0)
    for row in with_speedups(rows).to_dict("records"):
        if row["method"] == "maskgit":
            assert row["speedup_ar_uncached"] == pytest.approx(row["tokens"] / 4)
            assert row["speedup_ar_cached"] == pytest.approx(2)
        else:
            assert np.isnan(row["speedup_ar_uncached"]) and np.isnan(row["speedup_ar_cached"])
    alone = (rows["tokens"] == 256) & (rows["method"] == "ar_uncached") & (rows["batch_size"] == 1)
    cells = with_speedups(rows[~alone]).query("method == 'maskgit' and batch_size == 1")
    assert list(cells["speedup_ar_uncached"].isna()) == [False, False, True]


@pytest.mark.usefixtures("undrawn")
def test_tables_without_times_are_the_same_bytes_whatever_the_times(results, params, tmp_path):
    """Also the corrected p in the notes below them."""
    tables, boards = [], []
    for longest in (0.01, 10.0):  # seconds: MaskGIT is the fastest, or no timing can be told apart
        rows = speed_rows()
        rows["high"] = np.maximum(rows["high"], longest)
        rows.to_csv(results / "speed_timings.csv", index=False)
        out = tmp_path / str(longest)
        analyse(results, out, params)
        tables.append({path.name: path.read_bytes() for path in (out / "tables").iterdir()})
        boards.append((out / "timings/scoreboard.csv").read_bytes())
    assert len(tables[0]) > 20 and tables[0] == tables[1]
    assert boards[0] != boards[1]


# Numbers as text


def test_numbers():
    assert number(181.5) == "181.5" and number(0.0) == "0.000" and number(float("nan")) == "–"
    assert number(0.5) == "0.500" and number(0.00123) == "0.00123" and number(-12.344) == "-12.34"
    assert count(1234.0) == "1,234" and millions(226.97e6) == "227M" and millions(1.25e6) == "1.25M"
    assert percent(0.05) == "5%" and percent(0.985) == "98.5%"
    assert listed(["a"]) == "a" and listed(iter("abc")) == "a, b and c"


def test_the_best_mean_of_those_that_compete_is_bold():
    cells = pd.DataFrame({"fid_x_mean": [2.0, 1.0, 0.5], "fid_x_ci95": [0.1, 0.1, 0.1]})
    cells["recall_x_mean"], cells["recall_x_ci95"] = [0.2, 0.2, 0.9], math.nan
    networks = pd.Series([True, True, False])  # the last are real images
    marked = ["2.000 ± 0.100", "**1.000 ± 0.100**", "0.500 ± 0.100"]
    assert column(cells, "fid_x", networks) == marked
    assert column(cells, "recall_x", networks) == ["0.200", "0.200", "0.900"]  # none is best
    cells["recall_x_mean"] = [(0.1 + 0.2) / 3, 0.3 / 3, 0.9]  # the same but for a sum's rounding
    assert "**" not in "".join(column(cells, "recall_x", networks))


def test_latex_is_plain_ascii_with_as_many_cells_as_columns(outputs):
    files = sorted(outputs.rglob("*.tex"))
    assert {path.stem for path in files} == {path.stem for path in outputs.rglob("*.csv")}
    for path in files:
        text = path.read_text()
        assert text.isascii(), path
        width = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1])
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        cells = [len(re.split(r"(?<!\\)&", row)) for row in rows]
        assert len(rows) > 1 and set(cells) == {width}, path
    text = latex(pd.DataFrame({"a": ["x_1 & 50% #2 $^~{\\}"], "b": ["**1.0 ± 0.1**"]}), "c")
    assert r"x\_1 \& 50\% \#2 \$\textasciicircum{}\textasciitilde{}\{\textbackslash{}\}" in text
    assert r"\textbf{1.0 $\pm$ 0.1} \\" in text
