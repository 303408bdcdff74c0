"""Table 3, of a sweep over the paper's schedules: its best iterations, ranks and verdict."""

import pandas as pd
import pytest

from analysis.exhibits import table3
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.results import read_results, read_sweep
from analysis.exhibits.statistics import best_iterations, rank_correlation, summarize
from tests.synthetic_results import curves_of
from tests.synthetic_tables import BEST_FID, sweep_rows

# By FID the paper ranks the schedules 5 3 2 1 4 6 7, `BEST_FID` 5 3 2 4 1 6 7, so
# Σd² = 3² + 3² = 18 and Spearman's ρ = 1 − 6·18 / (7·48).
FID_RHO = 1 - 6 * 18 / (7 * 48)


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


def test_verdict_does_not_claim_a_difference_when_cosine_wins(results, make_tables):
    sweep_rows({**BEST_FID, "cosine": 0.95}).to_csv(results / "sweep/rows.csv", index=False)
    text = (make_tables() / "table3.md").read_text()
    assert "**cosine**" in text and "Unlike" not in text
    assert "no more than their combined standard deviation of 0.200 (seeds)" in text


def test_one_seed_has_no_spread_and_says_so(results, make_tables):
    sweep_rows(seeds=(7,)).to_csv(results / "sweep/rows.csv", index=False)
    tables = make_tables()
    text = (tables / "table3.md").read_text()
    assert "One seed" in text and "±" not in text and "nan" not in text
    assert pd.read_csv(tables / "table3.csv")["fid_classifier_std"].isna().all()


def test_sweep_table_has_every_cell_and_metrics_added_since(results, make_tables):
    sweep_rows().assign(novelty=0.5).to_csv(results / "sweep/rows.csv", index=False)
    table = pd.read_csv(make_tables() / "sweep.csv")
    assert len(table) == 7 * 3
    assert (table["novelty_mean"] == 0.5).all()


def test_released_weights_are_not_called_trained_for_a_schedule(tmp_path, make_params, results):
    released = make_params(transformer={"pretrained": "file"})
    for params, said in ((released, True), (make_params(), False)):
        for table in (table3.table, table3.agreement):
            notes = " ".join(table(read_results(results, curves_of(results)), params).notes)
            assert ("from the same released weights" in notes) == said
