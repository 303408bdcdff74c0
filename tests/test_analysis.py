"""The analysis on small synthetic results whose right answers are known."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import paper
from analysis.__main__ import build
from analysis.formatting import number, spread
from analysis.results import metric_label, read_sweep
from analysis.statistics import best_iterations, rank_correlation, summarize
from pipeline.errors import UserError
from pipeline.runtime.files import tree_hash

ROOT = Path(__file__).parents[1]

# FID at the best T (8): the paper's ranking, except that linear and cosine change places. By FID
# the paper ranks them 5 3 2 1 4 6 7, ours 5 3 2 4 1 6 7, so Σd² = 3² + 3² = 18 and Spearman's
# ρ = 1 − 6·18 / (7·48).
BEST_FID = {
    "exponential": 5.0,
    "cubic": 3.0,
    "square": 2.0,
    "cosine": 4.0,
    "linear": 1.0,
    "square_root": 6.0,
    "logarithmic": 7.0,
}
FID_RHO = 1 - 6 * 18 / (7 * 48)


def sweep_rows(schedules=BEST_FID, seeds=(0, 1), extractor="classifier") -> pd.DataFrame:
    """FID is lowest at T = 8 and IS highest at T = 16; seeds differ by 0.2 in FID."""
    return pd.DataFrame(
        {
            "schedule": name,
            "iterations": iterations,
            "seed": seed,
            "samples": 100,
            "nll": paper.TABLE_3[name].nll - 1 if name in paper.TABLE_3 else 0.5,
            f"fid_{extractor}": schedules[name] + abs(iterations - 8) + 0.2 * seed,
            f"is_{extractor}": 20.0 - schedules[name] - abs(iterations - 16) / 10,
            f"precision_{extractor}": 0.7,
            f"recall_{extractor}": 0.4,
            "class_accuracy": 0.9,
        }
        for name in schedules
        for iterations in (4, 8, 16)
        for seed in seeds
    )


def write_results(folder: Path, rows: pd.DataFrame, extractor: str = "classifier") -> Path:
    rng = np.random.default_rng(0)
    for name in ("sweep", "evaluation"):
        (folder / name).mkdir(parents=True)
    rows.to_csv(folder / "sweep/rows.csv", index=False)
    metrics = {
        f"fid_{extractor}": 3.5,
        f"fid_{extractor}_real": 0.25,
        f"is_{extractor}": 9.0,
        f"precision_{extractor}": 0.75,
        "cas_top1": 0.5,
        "cas_real_top1": 0.875,
        "class_accuracy": 0.95,
    }
    (folder / "evaluation/metrics.json").write_text(json.dumps(metrics))
    np.savez(
        folder / "evaluation/class_grid.npz",
        images=rng.integers(0, 256, (3, 4, 8, 8, 1), dtype=np.uint8),
        class_names=np.array(["zero", "one", "two"]),
    )
    np.savez(
        folder / "evaluation/decoding.npz",
        images=rng.integers(0, 256, (5, 2, 8, 8, 3), dtype=np.uint8),
        masked=rng.random((5, 2, 3, 3)) < 0.5,
    )
    return folder


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path / "results", sweep_rows())


@pytest.fixture
def tables(results, tmp_path):
    build(results, tmp_path / "out", dpi=40, best_by="fid")
    return tmp_path / "out/tables"


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


def test_verdict_does_not_claim_a_difference_when_cosine_wins(results, tmp_path):
    sweep_rows({**BEST_FID, "cosine": 0.95}).to_csv(results / "sweep/rows.csv", index=False)
    build(results, tmp_path / "out", dpi=40, best_by="fid")
    text = (tmp_path / "out/tables/table3.md").read_text()
    assert "**cosine**" in text and "Unlike" not in text
    assert "no more than their seeds' combined standard deviation" in text


def test_one_seed_has_no_spread_and_says_so(results, tmp_path):
    sweep_rows(seeds=(7,)).to_csv(results / "sweep/rows.csv", index=False)
    build(results, tmp_path / "out", dpi=40, best_by="fid")
    text = (tmp_path / "out/tables/table3.md").read_text()
    assert "One seed" in text and "±" not in text and "nan" not in text
    assert pd.read_csv(tmp_path / "out/tables/table3.csv")["fid_classifier_std"].isna().all()


def test_a_schedule_unknown_to_paper_and_code_comes_last_without_paper_values(results, tmp_path):
    sweep_rows({"mine": 0.5, **BEST_FID}).to_csv(results / "sweep/rows.csv", index=False)
    build(results, tmp_path / "out", dpi=40, best_by="fid")
    row = pd.read_csv(tmp_path / "out/tables/table3.csv").iloc[-1]
    assert row["schedule"] == "mine" and np.isnan(row["paper_fid_inception"])


@pytest.mark.parametrize("extractor", ["classifier", "inception"])
def test_fid_and_is_always_carry_their_extractor(tmp_path, extractor):
    results = write_results(tmp_path / "results", sweep_rows(extractor=extractor), extractor)
    build(results, tmp_path / "out", dpi=40, best_by="fid")
    for path in sorted((tmp_path / "out/tables").iterdir()):
        text = path.read_text()
        assert text.count("FID") == text.count("FID (")
        assert text.count("IS") == text.count("IS (")
        if path.suffix != ".csv":
            assert f"FID ({extractor})" in text
    header = (tmp_path / "out/tables/sweep.csv").read_text().splitlines()[0]
    assert f"fid_{extractor}_mean,fid_{extractor}_std" in header


def test_sweep_table_has_every_cell_and_metrics_added_since(results, tmp_path):
    sweep_rows().assign(density=0.5).to_csv(results / "sweep/rows.csv", index=False)
    build(results, tmp_path / "out", dpi=40, best_by="fid")
    table = pd.read_csv(tmp_path / "out/tables/sweep.csv")
    assert len(table) == 7 * 3
    assert (table["density_mean"] == 0.5).all()


def test_evaluation_is_beside_table_1_only_where_the_metric_is_of_the_same_kind(tables):
    table = pd.read_csv(tables / "evaluation.csv").set_index("metric")
    assert table.loc["fid_classifier", "paper_value"] == 6.18
    assert table.loc["cas_top1", "paper_value"] == 0.6314
    assert table.loc["cas_real_top1", "paper_value"] == 0.766
    assert table.loc[["fid_classifier_real", "class_accuracy"], "paper_value"].isna().all()
    assert "FID (classifier), real" in (tables / "evaluation.md").read_text()


def test_labels_and_numbers():
    assert metric_label("is_inception", "inception") == "IS (inception)"
    assert metric_label("nll", "classifier") == "NLL"
    assert metric_label("is_splits", "classifier") == "is splits"
    assert number(181.5) == "181.5" and number(0.0) == "0.000" and number(float("nan")) == "–"
    assert spread(12.344, 0.5) == "12.34 ± 0.50"


def test_same_results_give_the_same_bytes_whatever_the_order_of_the_rows(results, tmp_path):
    first = build(results, tmp_path / "first", dpi=40, best_by="fid")
    shuffled = pd.read_csv(results / "sweep/rows.csv").sample(frac=1, random_state=3)
    shuffled.to_csv(results / "sweep/rows.csv", index=False)
    second = build(results, tmp_path / "second", dpi=40, best_by="fid")
    assert len(first) == 12
    assert [tree_hash(path) for path in first] == [tree_hash(path) for path in second]


@pytest.mark.parametrize(
    "name",
    [
        "sweep/rows.csv",
        "evaluation/metrics.json",
        "evaluation/class_grid.npz",
        "evaluation/decoding.npz",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_missing_or_damaged_file_is_named_and_nothing_is_written(results, tmp_path, name, damage):
    (results / name).unlink()
    if damage == "empty":
        (results / name).touch()
    with pytest.raises(UserError, match=name) as caught:
        build(results, tmp_path / "out", dpi=40, best_by="fid")
    assert "\n" not in str(caught.value)
    assert damage == "empty" or "run dvc repro first" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_column_is_named(results):
    sweep_rows().drop(columns="nll").to_csv(results / "sweep/rows.csv", index=False)
    with pytest.raises(UserError, match="nll"):
        read_sweep(results / "sweep/rows.csv")


def test_command_without_results_fails_in_one_line(tmp_path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    run = subprocess.run(
        [sys.executable, "-m", "analysis"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert run.stderr == "error: results/sweep/rows.csv is missing; run dvc repro first\n"
