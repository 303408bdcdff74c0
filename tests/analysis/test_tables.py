"""The tables: our means and intervals, the paper's values beside them, and the labels."""

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.exhibits import paper, quality, rejection, schedules
from analysis.exhibits.formatting import column, count, latex, listed, millions, number, percent
from analysis.exhibits.headline import headline
from analysis.exhibits.reconstruction import by_mask_ratio
from analysis.exhibits.results import FEATURE_METRICS, read_results
from analysis.exhibits.speed import with_speedups
from analysis.report.build import BEYOND, contents, judged
from tests.analysis.synthetic import (
    BEST_FID,
    crossing_rows,
    reconstruction_rows,
    rejection_rows,
    speed_rows,
    sweep_rows,
    write_results,
)

T2 = 4.30265 / 3**0.5  # half of a 95% interval over three values, in standard deviations


def table(folder, name: str, *keys: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv").set_index([*keys])


def test_table1_has_ours_their_spread_and_the_papers_rows(tables):
    rows = table(tables, "table1", "model")
    ours = ["MaskGIT", "VQGAN∗", "reconstructions", "real images"]
    others = ["DCTransformer", "BigGAN-deep", "Improved DDPM", "ADM", "VQVAE-2", "VQGAN"]
    assert list(rows.index) == ours + others
    ours = rows.loc["MaskGIT"]
    # Seeds add 0, 0.02 and 0.04.
    assert ours["fid_classifier_mean"] == pytest.approx(3.52)
    assert ours["fid_classifier_std"] == pytest.approx(0.02)
    assert ours["fid_classifier_ci95"] == pytest.approx(T2 * 0.02, rel=1e-5)
    assert ours["fid_infinity_classifier_mean"] == pytest.approx(3.395)
    assert (ours["steps"], ours["parameters"]) == (8, 1_250_000)
    # With RandAugment, the three seeds have 0.5, 0.6 and 0.7.
    assert ours["cas_top1_mean"] == pytest.approx(0.6)
    assert ours["cas_top1_std"] == pytest.approx(0.1)
    assert (ours["paper_fid_inception"], ours["paper_cas_top1"]) == (6.18, 0.6314)
    assert rows.loc["real images", "paper_cas_top5"] == 0.931
    assert rows.loc["BigGAN-deep"].filter(like="classifier").isna().all()
    assert "nll" not in rows.columns and "fid_random_mean" not in rows.columns


def test_table1_has_the_fid_of_both_extractors_where_both_measured_it(found, params):
    made = quality.table1(replace(found, rows=found.rows.assign(fid_random=0.125)), params)
    assert list(made.readable["FID (random)"][:4]) == ["0.125"] * 4


def test_one_set_of_images_has_the_interval_over_its_images(found, tables, make_tables):
    rows = table(tables, "table1", "model")
    assert rows.loc["VQGAN∗", "over"] == "3 training seeds"
    # The standard deviation over 20 halves is 0.02. FID∞ has no interval over images.
    own = rows.loc["reconstructions"]
    assert own["over"] == "images"
    assert own["fid_classifier_ci95"] == pytest.approx(2.0930 * 0.02, rel=1e-4)
    assert own["fid_infinity_classifier_mean"] > 0
    assert pd.isna(own["fid_infinity_classifier_ci95"])
    one = found.rows[found.rows["seed"].isna() | (found.rows["seed"] == 1)]
    alone = table(make_tables(rows=one), "table1", "model").loc["MaskGIT"]
    assert alone["over"] == "images" and alone["fid_classifier_mean"] == pytest.approx(3.52)
    assert alone["fid_classifier_ci95"] == pytest.approx(2.0930 * 0.3, rel=1e-4)


def test_images_of_512_pixels_are_beside_the_papers_rows_for_512(found, make_params):
    params = make_params(data={"image_size": 512})
    first = quality.table1(found, params)
    assert first.cells.loc[0, "paper_fid_inception"] == 7.32
    assert "58.06" in set(first.readable[paper.IS])  # ADM's IS, with all digits
    assert 4.46 in set(rejection.table(found, params).cells["paper_fid_inception"])


def test_precision_stands_beside_the_papers_of_the_same_network(tmp_path, make_tables):
    """The paper's Table 1 uses VGG, and Table 5 Inception. FID and IS always name a network."""
    results = write_results(tmp_path / "results")
    for path in (*results.rglob("*.csv"), *results.rglob("*.json")):
        text = path.read_text().replace("_classifier", "_inception")
        path.write_text(text.replace("_random", "_vgg"))
    found = read_results(results)
    tables = make_tables(**{name: getattr(found, name) for name in found.__dataclass_fields__})
    for name, network in (("table1", "vgg"), ("table5", "inception")):
        row = table(tables, name, "model").loc["MaskGIT"]
        metrics = found.evaluation["transformer"]
        assert row[f"recall_{network}_mean"] == pytest.approx(metrics[f"recall_{network}"])
        assert f"paper_recall_{network}" in row
    for path in tables.iterdir():
        text = path.read_text()
        assert re.findall(r"\b(?:FID|IS)\b(?!(?:∞|\$\\infty\$)? \()", text) == [], path


def test_metrics_that_could_not_be_measured_are_no_error(found, make_tables):
    def without(rows: pd.DataFrame, few: pd.Series) -> pd.DataFrame:
        kinds = ("fid", "kid", "precision", "recall", "density", "coverage")
        return rows.assign(**{k: rows[k].mask(few) for k in rows if k.startswith(kinds)})

    sets = ("real", "reconstruction")  # sets from a small validation split
    metrics = {name: dict(values) for name, values in found.evaluation.items()}
    metrics["transformer"]["is_classifier"] = math.nan
    for name in sets:
        metrics[name] = {"samples": 1000, "class_accuracy": 0.9}
    fields = {
        "rows": without(found.rows, found.rows["images"].isin(sets)),
        "rejection": without(found.rejection, found.rejection["acceptance"] == 0.05),
        "editing": found.editing.assign(fid_classifier=math.nan),
        "temperature": found.temperature.assign(fid_classifier=math.nan),
        **{"real": found.real.head(0), "crossing": found.crossing.head(0), "evaluation": metrics},
    }
    tables = make_tables(**fields)
    written = [path.read_text() for path in tables.glob("*.md")]
    assert not any(" nan" in text or "None" in text for text in written)
    rows = table(tables, "table1", "model")
    assert np.isnan(rows.loc["real images", "fid_classifier_mean"])
    assert rows.loc["MaskGIT", "fid_classifier_mean"] == pytest.approx(3.52)
    assert "is_classifier" not in headline(replace(found, **fields))["MaskGIT"]


def test_a_new_metric_is_in_every_table_of_metrics(found, params, monkeypatch):
    monkeypatch.setitem(FEATURE_METRICS, "new_thing", "new thing")
    name, label = "new_thing_classifier", "new thing (classifier)"
    names = ("rows", "sweep", "rejection")
    found = replace(found, **{each: getattr(found, each).assign(**{name: 0.125}) for each in names})
    for made in (quality.table1(found, params), rejection.table(found, params)):
        measured = made.readable[made.cells[f"{name}_mean"].notna()]
        (heading,) = [each for each in made.readable if each.startswith(label)]
        assert len(measured) > 1 and set(measured[heading].str[:5]) == {"0.125"}
    headings = schedules.grid(found, params).readable.columns
    assert any(heading.startswith(label) for heading in headings)


def test_both_networks_have_a_row_for_each_label_smoothing(tables):
    rows = pd.read_csv(tables / "smoothing.csv")
    assert list(rows["model"]) == ["MaskGIT", "MaskGIT", "VQGAN∗", "VQGAN∗", "real images"]
    assert list(rows["label_smoothing"].dropna()) == [0.1, 0.0, 0.1, 0.0]
    means = rows["fid_classifier_mean"]
    assert list(means) == pytest.approx([3.52, 5.52, 4.53, 4.53, 0.125])


def test_table3_has_mean_and_interval_over_seeds_and_the_papers_values(tables):
    rows = table(tables, "table3", "schedule")
    row = rows.loc["linear"]
    # Seeds add 0, 0.06 and 0.05, with a standard deviation of 0.032146.
    assert row["fid_classifier_mean"] == pytest.approx(1 + 0.11 / 3)
    assert row["fid_classifier_ci95"] == pytest.approx(T2 * 0.0321455, rel=1e-5)
    assert row["seeds"] == 3 and row["samples"] == 100
    assert rows.loc["real images", "fid_classifier_mean"] == pytest.approx(0.5)
    text = (tables / "table3.md").read_text()
    heading = "FID (classifier) of 100 samples, ± 95% interval over 3 training seeds"
    assert "1.037 ± 0.080" in text and heading in text
    assert r"1.037 $\pm$ 0.080" in (tables / "table3.tex").read_text()
    assert list(rows.index) == [*paper.TABLE_3, "real images"]
    ours = rows[["paper_iterations", "paper_fid_inception", "paper_is_inception", "paper_nll"]]
    for name, theirs in paper.TABLE_3.items():
        assert tuple(ours.loc[name]) == theirs


def test_a_table_has_each_seed_at_the_t_that_another_chooses(found, params):
    rows = sweep_rows({"cosine": 1.0}, seeds=(0, 1))
    rows["fid_classifier"] = [0.0, 4.0, 2.0, 2.0, 9.0, 9.0]  # two seeds each at T = 4, 8, 16
    found = replace(found, sweep=rows)
    made = schedules.table3(found, params)
    # Seed 0 is shown at the T that is best for seed 1, and seed 1 at the best T of seed 0.
    assert made.cells.loc[0, "iterations"] == "8, 4"
    assert made.cells.loc[0, "fid_classifier_mean"] == (2.0 + 4.0) / 2
    assert made.readable.loc[0, "T, chosen by another seed"] == "8, 4"
    # A figure marks the T with the best mean over seeds; among equal means, the smallest T.
    marked = schedules.best_iterations(schedules.summarize(found), "fid_classifier", "fid")
    assert list(marked["iterations"]) == [4]


def test_the_order_of_the_schedules_has_the_rank_correlation_by_hand(found, params):
    orders = [each.claim for each in judged(found, params) if "correlates" in each.claim.said]
    fid, _, nll = (claim.parts[0].effect for claim in orders)
    # By FID, the paper ranks the schedules 5 3 2 1 4 6 7, and `BEST_FID` 5 3 2 4 1 6 7, so
    # Σd² = 3² + 3² = 18 and Spearman's ρ = 1 − 6·18 / (7·48).
    assert (fid.value, nll.value) == pytest.approx((1 - 6 * 18 / (7 * 48), 1))
    # Only two of the 7! orderings of a seed, the expected one and its reverse, have |ρ| = 1.
    assert nll.p == pytest.approx(2 / 5040**3)


def test_a_schedule_that_the_paper_lacks_comes_last_and_is_compared_with_none(found, params):
    other = replace(found, sweep=sweep_rows({"quartic": 0.5, "arccos": 2.5, **BEST_FID}))
    made = schedules.table3(other, params)
    assert list(made.cells["schedule"]) == [*paper.TABLE_3, "arccos", "quartic", "real images"]
    theirs = [name for name in made.readable if "(paper" in name]
    assert (made.readable.iloc[7:][theirs] == "–").all(axis=None)
    assert (made.readable.iloc[:7][theirs] != "–").all(axis=None)
    assert not any("quartic" in verdict.sentence for verdict in judged(other, params))


def test_a_sweep_over_few_of_the_papers_schedules_by_one_seed_is_no_error(make_tables):
    tables = make_tables(sweep=sweep_rows({"linear": 1.0, "quartic": 2.0}, seeds=(7,)))
    text = (tables / "table3.md").read_text()
    assert "One seed" in text and "±" not in text and "nan" not in text


def test_schedules_are_crossed_with_the_lowest_of_each_row_and_column(tables):
    text = (tables / "crossing.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    grid = {row[0]: row for row in rows if row and len(row) == 7}
    # If both are cubic, seeds add 0, 0.04 and 0.08: 5 − 1 − 2 + 0.04 ± 4.3027 × 0.04 / √3.
    assert grid["cubic"][1] == "2.040 ± 0.099"
    cells = crossing_rows().groupby(["schedule", "decoding_schedule"])["fid_classifier"].mean()
    cells = cells.unstack()
    for name in cells.index:
        plain = name.replace("_", " ")
        assert grid[plain][5] == cells.loc[name].idxmin()
        assert float(grid[plain][6]) == pytest.approx(cells.loc[name].mean(), abs=5e-4)
    lowest = grid["lowest in the column"][1:5]
    assert lowest == [cells[name].idxmin() for name in ("cubic", "cosine", "linear", "square_root")]


def test_a_design_is_set_against_the_main_settings_with_as_many_passes(tables, found, params):
    rows = table(tables, "designs", "sampler", "iterations", "passes")
    # With the main settings, neither T = 4 nor T = 16 has eight passes.
    settings = [("halton", 8, 8), ("confidence", 8, 8), ("confidence", 4, 8)]
    assert sorted(rows.index) == sorted(settings)
    halton, main, guided = (rows.loc[each] for each in settings)
    # The seeds of cosine have a FID of 4, 4.05 and 4.03.
    assert halton["fid_classifier_mean"] == pytest.approx((3 + 2.95 + 3.13) / 3)
    assert (halton["seeds"], halton["recall_classifier_mean"]) == (3, 0.4)
    # The differences have standard deviations 0.1 and 1: t = 1 / (0.1 / √3) and 2 / (1 / √3). With
    # two degrees of freedom, p = 1 − √(t² / (t² + 2)). Holm's correction doubles the smaller p.
    assert [halton["difference"], guided["difference"]] == pytest.approx([-1, 2])
    assert halton["p_value"] == pytest.approx(2 * (1 - (300 / 302) ** 0.5))
    assert guided["p_value"] == pytest.approx(1 - (12 / 14) ** 0.5)
    assert main["difference"] == 0 and math.isnan(main["p_value"])
    for rows in (found.designs, found.designs.head(0)):
        sections = contents(replace(found, designs=rows), params)[1]
        assert (BEYOND in [section.title for section in sections]) == (len(rows) > 0)


def test_table2_has_every_task_the_floor_and_the_papers_models(tables):
    rows = table(tables, "table2", "task", "model").sort_index()
    ours = rows.loc[("outpaint_right", "MaskGIT")]
    assert ours["fid_classifier_mean"] == pytest.approx(2.02)
    assert ours["fid_classifier_std"] == pytest.approx(0.02)
    assert (ours["paper_fid_inception"], ours["paper_is_inception"]) == (6.78, 11.69)
    assert rows.loc[("inpaint_center", "CoModGAN"), "paper_fid_inception"] == 7.13
    assert rows.loc[("outpaint_right", "nearest pixel (floor)"), "fid_classifier_mean"] == 3
    assert rows.loc[("inpaint_center", "the images themselves"), "fid_classifier_mean"] == 0.5


def test_table4_sets_rejection_beside_a_random_selection_of_the_same_size(tables, make_tables):
    rows = table(tables, "table4", "model", "selection", "acceptance")
    fid = rows["fid_classifier_mean"]
    assert fid[("MaskGIT", "rejection", 0.5)].item() == pytest.approx(2.03)
    assert fid[("MaskGIT", "random", 0.5)].item() == pytest.approx(3.02)
    real = rows.loc["real images"].set_index("samples")["fid_classifier_mean"]
    assert real.to_dict() == {1000: 0.125, 100: 0.5}
    assert rows.loc[("MaskGIT", "rejection", 0.05), "paper_fid_inception"].item() == 4.02
    assert rows.loc[("MaskGIT", "rejection", 1.0), "paper_fid_inception"].item() == 6.18
    # Acceptance 0.05 has no FID here, so 0.5 is the smallest acceptance rate to compare.
    assert "FID (classifier) at 50% acceptance: rejection" in (tables / "table4.md").read_text()
    whole = make_tables(rejection=rejection_rows().fillna({"fid_classifier": 1.5}))
    assert "FID (classifier) at 5% acceptance" in (whole / "table4.md").read_text()


def test_temperature_names_the_one_that_is_chosen(outputs):
    rows = table(outputs / "tables", "temperature", "setting")
    assert rows.loc["choice_temperature 2.0", "fid_classifier_mean"] == pytest.approx(1.02)
    assert rows.loc["top_k 16", "fid_classifier_mean"] == pytest.approx(2.02)
    report = (outputs / "report.html").read_text()
    for fid, setting in (("1.020", "choice temperature 2.0"), ("2.020", "top k 16")):
        assert f"mean FID (classifier) <strong>{fid}</strong> ({setting})" in report


def test_reconstructions_are_pooled_over_draws(tables):
    rows = table(tables, "reconstruction", "mask_ratio")
    assert list(rows.index) == [0, 0.5, 0.9, 0.95] and set(rows["draws"]) == {2}
    # Seeds add 0, 0.03 and 0.06.
    assert rows.loc[0.5, "psnr_sample"] == pytest.approx(18.03)
    assert rows.loc[0.5, "psnr_sample_ci95"] == pytest.approx(T2 * 0.03, rel=1e-5)
    # The two draws have standard deviations 3 and 4 over images; their variances are averaged.
    assert rows.loc[0.5, "psnr_sample_std"] == pytest.approx(math.sqrt((9 + 16) / 2))
    rows = reconstruction_rows()
    cells = by_mask_ratio(rows[rows["seed"] == 0]).set_index("mask_ratio")
    # The median's standard deviation (divisor n) over 8 images is 3; t has 7 degrees of freedom.
    assert cells.loc[0.5, "psnr_median_ci95"] == pytest.approx(2.3646 * 3 / 7**0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("hidden", "fall", "values"),
    [
        # 39, 44 and 47 of 49 tokens are hidden. A curve that falls in a straight line has no knee.
        ([0, 39 / 49, 44 / 49, 47 / 49], [0, 390 / 49, 440 / 49, 470 / 49], (1, 1)),
        # A curve that bends at 50% and is straight from there on has no knee at 90%.
        ([0, 0.5, 0.9, 0.95], [0, 1, 9, 10], (2, 2)),
        ([0, 0.5, 1, 1], [0, 1, 9, 10], None),  # two mask ratios hide all of four tokens
    ],
)
def test_the_knee_is_set_against_the_step_before_it(found, params, hidden, fall, values):
    rows = reconstruction_rows()
    ratios = [0.0, 0.5, 0.9, 0.95]
    rows["hidden"] = rows["mask_ratio"].map(dict(zip(ratios, hidden, strict=True)))
    noise = rows["seed"] * rows["mask_ratio"] ** 2 / 100
    rows["psnr"] = 20 - rows["mask_ratio"].map(dict(zip(ratios, fall, strict=True))) + noise
    verdicts = judged(replace(found, reconstruction=rows), params)
    (knee,) = [verdict.claim for verdict in verdicts if verdict.claim.exhibit == "figure10"]
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


def test_numbers():
    assert number(181.5) == "181.5" and number(0.0) == "0.000" and number(float("nan")) == "–"
    assert number(0.5) == "0.500" and number(0.00123) == "0.00123" and number(-12.344) == "-12.34"
    assert count(1234.0) == "1,234" and millions(226.97e6) == "227M" and millions(1.25e6) == "1.25M"
    assert percent(0.05) == "5%" and percent(0.985) == "98.5%"
    assert listed(["a"]) == "a" and listed(iter("abc")) == "a, b and c"


def test_the_best_mean_of_those_that_compete_is_bold():
    cells = pd.DataFrame({"fid_x_mean": [2.0, 1.0, 0.5], "fid_x_ci95": [0.1, 0.1, 0.1]})
    cells["recall_x_mean"], cells["recall_x_ci95"] = [0.2, 0.2, 0.9], math.nan
    networks = pd.Series([True, True, False])  # the last row is of real images
    marked = ["2.000 ± 0.100", "**1.000 ± 0.100**", "0.500 ± 0.100"]
    assert column(cells, "fid_x", networks) == marked
    assert column(cells, "recall_x", networks) == ["0.200", "0.200", "0.900"]  # a tie has no best
    cells["recall_x_mean"] = [(0.1 + 0.2) / 3, 0.3 / 3, 0.9]  # equal up to rounding
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
