"""Tables 1, 2, 4 and 5 beside the paper's, and the table of temperatures."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.synthetic_results import analyse, write_results
from tests.synthetic_tables import rejection_rows


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


def test_images_too_few_for_a_fid_are_no_error(results, make_tables):
    for name in ("editing", "temperature"):
        rows = pd.read_csv(results / f"{name}/rows.csv").assign(fid_classifier=np.nan)
        rows.to_csv(results / f"{name}/rows.csv", index=False)
    tables = make_tables()
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


def test_table4_compares_at_the_smallest_acceptance(results, make_tables):
    rows = rejection_rows().fillna({"fid_classifier": 1.5, "fid_classifier_std": 0.1})
    rows.to_csv(results / "rejection/rows.csv", index=False)
    text = (make_tables() / "table4.md").read_text()
    assert "MaskGIT at 5%, FID" in text and "at 50%" not in text


def test_table4_keeps_the_papers_row_where_its_acceptance_was_not_run(results, make_tables):
    rows = rejection_rows()
    rows[rows["acceptance"] != 0.05].to_csv(results / "rejection/rows.csv", index=False)
    tables = make_tables()
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
