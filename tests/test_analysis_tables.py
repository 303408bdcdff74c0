"""Tables 1, 2, 4 and 5 beside the paper's, and the table of temperatures."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.synthetic_results import analyse, write_results
from tests.synthetic_tables import (
    evaluation_metrics,
    evaluation_rows,
    rejection_rows,
)


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
    assert table.loc["VQGAN∗", "paper_fid_inception"] == 18.65
    assert table.loc["real images", "paper_cas_top5"] == 0.931
    assert table.loc["BigGAN-deep"].filter(like="classifier").isna().all()
    assert np.isnan(table.loc["ADM", "paper_cas_top1"])
    assert table.loc["VQVAE-2", "paper_cas_top5"] == 0.7759
    assert "nll" not in table.columns
    text = (tables / "table1.md").read_text()
    assert "±: 95% interval over" in text
    assert "600 steps, MaskGIT for 600, both with label smoothing 0.1" in text
    assert "One tokenizer and one classifier were trained: their seeds are in no ±" in text


def test_one_set_of_images_has_the_interval_over_its_images(tables):
    table = pd.read_csv(tables / "table1.csv").set_index("model")
    assert dict(table["over"].dropna()) == {
        "MaskGIT": "3 training seeds",
        "VQGAN∗": "3 training seeds",
        "reconstructions": "images",
        "real images": "images",
    }
    # The spread over 20 halves is 0.02; FID∞ has that of FID.
    own = table.loc["reconstructions"]
    assert own["fid_classifier_ci95"] == pytest.approx(2.0930 * 0.02, rel=1e-4)
    assert own["fid_infinity_classifier_ci95"] == own["fid_classifier_ci95"]


def test_one_training_has_the_interval_over_its_images(results, make_tables):
    path = results / "evaluation/rows.csv"
    rows = pd.read_csv(path)
    rows[rows["seed"].isna() | (rows["seed"] == 1)].to_csv(path, index=False)
    table = pd.read_csv(make_tables() / "table1.csv").set_index("model")
    assert table.loc["MaskGIT", "over"] == "images"
    assert table.loc["MaskGIT", "fid_classifier_mean"] == pytest.approx(3.52)
    assert table.loc["MaskGIT", "fid_classifier_ci95"] == pytest.approx(2.0930 * 0.3, rel=1e-4)


def test_real_images_of_another_number_are_measured_in_that_of_the_samples(results, make_tables):
    rows = evaluation_rows()
    rows.loc[rows["images"] == "real", "samples"] = 400
    metrics = evaluation_metrics(rows)
    (results / "evaluation/metrics.json").write_text(json.dumps(metrics))
    table = pd.read_csv(make_tables() / "table1.csv").set_index("model")
    assert table.loc["real images (1,000)", "fid_classifier_mean"] == pytest.approx(0.125)


def test_table1_says_what_agrees_with_the_paper_and_what_does_not(tables):
    text = (tables / "table1.md").read_text()
    assert "FID (classifier): **MaskGIT** is better than VQGAN∗, as in the paper" in text
    assert "recall (classifier): **VQGAN∗** is better than MaskGIT, unlike in the paper" in text


def test_images_of_512_pixels_are_beside_the_papers_rows_for_512(results, make_params, tmp_path):
    data = {"image_size": 512, "source": "folder:/somewhere/else/places"}
    own = make_params(preset="mine", data=data, analysis={"dpi": 40})
    analyse(results, tmp_path / "out", own)
    tables = tmp_path / "out/tables"
    assert pd.read_csv(tables / "table1.csv").loc[0, "paper_fid_inception"] == 7.32
    assert "58.06" in (tables / "table1.md").read_text()  # ADM's IS, with all of its digits
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
    assert ours["fid_classifier_mean"] == pytest.approx(2.02)
    assert ours["fid_classifier_std"] == pytest.approx(0.02)
    assert (ours["paper_fid_inception"], ours["paper_is_inception"]) == (6.78, 11.69)
    assert rows.loc[("inpaint_center", "CoModGAN"), "paper_fid_inception"] == 7.13
    assert rows.loc[("outpaint_right", "nearest pixel (floor)"), "fid_classifier_mean"] == 3
    assert np.isnan(rows.loc[("inpaint_center", "HiFill"), "fid_classifier_mean"])
    assert rows.loc[("inpaint_center", "the images themselves"), "fid_classifier_mean"] == 0.5
    assert rows.loc[("inpaint_center", "MaskGIT"), "psnr_hole_mean"] == 12
    text = (tables / "table2.md").read_text()
    # The floor is no draw: the noise is MaskGIT's own, 4.3027 × 0.02 / √3.
    assert "(2.020 against 3.000, difference −0.980 (−1.030 to −0.930)" in text
    assert (
        "right 2.020, left 2.020, top 5.020 and bottom 2.020; of the images untouched 0.500" in text
    )
    assert "PSNR on the hole (dB), ± 95% interval over 3 training seeds" in text
    assert "distance on the hole (classifier)" in text


def test_images_too_few_for_a_fid_are_no_error(results, make_tables):
    for name in ("editing", "temperature"):
        rows = pd.read_csv(results / f"{name}/rows.csv").assign(fid_classifier=np.nan)
        rows.to_csv(results / f"{name}/rows.csv", index=False)
    tables = make_tables()
    temperatures = pd.read_csv(tables / "temperature.csv").dropna(subset="choice_temperature")
    assert temperatures["fid_classifier_mean"].isna().all()
    for name in ("table2", "temperature"):
        assert "nan" not in (tables / f"{name}.md").read_text()


def test_table4_sets_rejection_beside_a_random_selection_of_the_same_size(tables):
    table = pd.read_csv(tables / "table4.csv").set_index(["model", "selection", "acceptance"])
    fid = table["fid_classifier_mean"]
    assert fid[("MaskGIT", "rejection", 0.5)].item() == pytest.approx(2.03)
    assert fid[("MaskGIT", "random", 0.5)].item() == pytest.approx(3.02)
    real = table.loc["real images"].set_index("samples")["fid_classifier_mean"]
    assert real.to_dict() == {1000: 0.125, 100: 0.5}
    assert table.loc[("MaskGIT", "rejection", 0.05), "paper_fid_inception"].item() == 4.02
    assert table.loc[("MaskGIT", "rejection", 1.0), "paper_fid_inception"].item() == 6.18
    assert table.loc[("VQGAN", "rejection", 0.05), "paper_is_inception"].item() == 304.8
    text = (tables / "table4.md").read_text()
    assert "too few samples for a covariance" in text and "nan" not in text
    # 0.05 has no FID here, so that one half is the smallest share to compare.
    assert "FID (classifier), MaskGIT at 50%: **rejection** is better than random" in text
    assert "recall 0.303 with, 0.502 without" in text


def test_table4_compares_at_the_smallest_acceptance(results, make_tables):
    rows = rejection_rows().fillna({"fid_classifier": 1.5})
    rows.to_csv(results / "rejection/rows.csv", index=False)
    text = (make_tables() / "table4.md").read_text()
    assert "FID (classifier), MaskGIT at 5%" in text and "at 50%" not in text


def test_table4_keeps_the_papers_row_where_its_acceptance_was_not_run(results, make_tables):
    rows = rejection_rows()
    rows[rows["acceptance"] != 0.05].to_csv(results / "rejection/rows.csv", index=False)
    tables = make_tables()
    table = pd.read_csv(tables / "table4.csv").set_index(["model", "selection", "acceptance"])
    row = table.loc[("MaskGIT", "rejection", 0.05)]
    assert row["paper_fid_inception"].item() == 4.02 and np.isnan(row["fid_classifier_mean"].item())
    assert "too few samples" not in (tables / "table4.md").read_text()


def test_table5_has_the_second_extractor_and_cas_without_augmentation(tables):
    table = pd.read_csv(tables / "table5.csv").set_index("model")
    assert table.loc["VQGAN∗", "recall_random_mean"] == pytest.approx(0.628)
    assert table.loc["MaskGIT", "cas_top1_mean"] == pytest.approx(0.5)
    assert table.loc["MaskGIT", "paper_recall_inception"] == 0.50
    assert table.loc["real images", "paper_cas_top1"] == 0.731
    text = (tables / "table5.md").read_text()
    assert "recall (random)" in text and "recall (classifier)" not in text
    assert "an untrained classifier" in text and "trained without RandAugment" in text


def test_temperature_names_the_one_that_is_chosen_and_the_one_that_is_used(outputs):
    table = pd.read_csv(outputs / "tables/temperature.csv").set_index("choice_temperature")
    assert table.loc[2.0, "fid_classifier_mean"] == pytest.approx(1.02)
    assert table.loc[float("nan"), "fid_classifier_mean"].item() == pytest.approx(
        0.5
    )  # real images
    report = (outputs / "report.html").read_text()
    assert "that another seed chooses (2) FID (classifier) is <strong>1.020</strong>" in report
    assert "At 4.5, which all else here uses, it is 1.645" in report


def test_precision_stands_beside_the_papers_of_the_same_network(tmp_path, params):
    """The paper's Table 1 has VGG, its Table 5 Inception."""
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


def test_metrics_that_could_not_be_measured_are_no_error(tmp_path, params):
    results = write_results(tmp_path / "results")
    rows = evaluation_rows()
    few = rows["images"].isin(["real", "reconstruction"])  # a small validation split
    measured = ("fid", "kid", "precision", "recall", "density", "coverage")
    rows.loc[few, [name for name in rows if name.startswith(measured)]] = np.nan
    rows.to_csv(results / "evaluation/rows.csv", index=False)
    kept = rejection_rows()
    few = kept["acceptance"] == kept["acceptance"].min()
    kept.loc[few, [name for name in kept if name.startswith(measured)]] = np.nan
    kept.to_csv(results / "rejection/rows.csv", index=False)
    path = results / "evaluation/metrics.json"
    metrics = json.loads(path.read_text())
    for images in ("real", "reconstruction"):
        metrics[images] |= {n: None for n in metrics[images] if n.startswith(measured)}
    path.write_text(json.dumps(metrics))
    analyse(results, tmp_path / "out", params)
    written = [path.read_text() for path in (tmp_path / "out/tables").glob("*.md")]
    assert not any(" nan" in text or "None" in text for text in written)
    table = pd.read_csv(tmp_path / "out/tables/table1.csv").set_index("model")
    assert np.isnan(table.loc["real images", "fid_classifier_mean"])
    assert table.loc["MaskGIT", "fid_classifier_mean"] == pytest.approx(3.52)
