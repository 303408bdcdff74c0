"""What is out of date is left out of the report, under a banner; networks that have learned nothing
decide nothing."""

import json
import re

import pandas as pd
import pytest

from analysis.exhibits.claims import judge
from analysis.exhibits.comparisons.claim import Setup
from analysis.exhibits.comparisons.learned import barely_trained
from analysis.exhibits.inputs.results import read_results
from analysis.report.build import build
from analysis.report.contents import PLACES
from analysis.report.provenance import STAGES as BEHIND
from pipeline.runtime.errors import UserError
from pipeline.runtime.provenance import NO_RESULTS
from tests.synthetic_results import curves_of, write_source

pytestmark = pytest.mark.usefixtures("undrawn")

SWEPT = {"sweep": "ran with other params (sweep.steps: 300, now 20)"}
EVERY = {stage for stages in BEHIND.values() for stage in stages}


@pytest.fixture
def analysed(results, params, tmp_path):
    """Analyses the results with some stages out of date; the folder of what was made."""

    def run(stale):
        build(results, curves_of(results), tmp_path / "out", params, stale)
        return tmp_path / "out"

    return run


def articles(report: str) -> set[str]:
    return set(re.findall(r'<article id="([^"]+)"', report))


def test_what_is_out_of_date_is_left_out_under_a_banner(analysed, results):
    write_source(results, "sweep")
    whole = articles((analysed({}) / "report.html").read_text())
    report = (analysed(SWEPT) / "report.html").read_text()
    gone = whole - articles(report)
    assert gone == {
        *("table3-table", "figure8", "schedules", "rank_correlation-table"),
        *("crossing-table", "sweep-table"),
    }
    head = report.split("</header>")[0]
    assert "sweep ran with other params (sweep.steps: 300, now 20)" in head
    assert "<code>dvc repro</code>" in head and "of one run" not in head
    assert "Left out, as out of date: Table 3, Figure 8, right" in report
    assert "sweep-run" not in report  # the runs behind what is shown


def test_nothing_of_an_earlier_analysis_stays_beside(analysed):
    analysed({})
    out = analysed(SWEPT)
    left = {path.name for path in out.rglob("*") if path.is_file()}
    assert not {name for name in left if name.startswith(("table3", "figure8", "sweep"))}
    assert {"table1.csv", "table1.sources.json", "figure5.png"} <= left


def test_what_is_removed_is_named_and_what_lies_behind_a_link_stays(analysed, tmp_path, capsys):
    out = analysed({})
    (out / "tables/notes.md").touch()
    capsys.readouterr()
    analysed({})
    assert "removed, as of no result as it is now: notes.md" in capsys.readouterr().out
    assert not (out / "tables/notes.md").exists()
    (out / "figures").rename(tmp_path / "paper")
    (out / "figures").symlink_to(tmp_path / "paper")
    (tmp_path / "paper/mine.pdf").touch()
    with pytest.raises(UserError, match="figures is a link, and what lies in that folder"):
        analysed({})
    assert (tmp_path / "paper/mine.pdf").exists()


def test_leaving_out_claims_decides_no_other(analysed):
    """Else a part of the results could show what all of them do not."""

    def board(stale) -> pd.DataFrame:
        return pd.read_csv(analysed(stale) / "timings/scoreboard.csv").set_index("claim")

    before, after = board({}), board(SWEPT)
    assert not after["exhibit"].isin(["table3-table", "figure8"]).any()
    assert len(before) > len(after) > 10
    assert (after["p_holm"] >= before.loc[after.index, "p_holm"] - 1e-12).all()


def test_other_images_give_the_page_no_name(analysed):
    report = (analysed({"prepare": NO_RESULTS}) / "report.html").read_text()
    assert "<title>MaskGIT</title>" in report and "training and" not in report


def test_a_report_of_nothing_is_refused_and_the_last_one_stays(analysed, tmp_path):
    before = (analysed({}) / "report.html").read_bytes()
    reason = "ran with other params (data.image_size: 28, now 16)"
    with pytest.raises(UserError, match=r"image_size: 28, now 16\); run `dvc repro`"):
        analysed(dict.fromkeys(EVERY, reason))
    assert (tmp_path / "out/report.html").read_bytes() == before


def test_every_exhibit_stands_on_the_stages_of_its_files(results, params):
    found = read_results(results, curves_of(results))
    for place in (place for places in PLACES.values() for place in places):
        exhibit = place.make(found, params)
        table = hasattr(exhibit, "files")
        assert place.anchor == exhibit.name + "-table" * table
        if table:
            makers = {BEHIND[name][-1] for name in exhibit.files}
            assert makers == set(place.stages), place.anchor


def worsen(results, name: str, where: str, to: float) -> None:
    rows = pd.read_csv(results / name, keep_default_na=False, na_values=[""])
    rows.loc[rows.eval(where), "class_accuracy"] = to
    rows.to_csv(results / name, index=False)


@pytest.mark.parametrize(("share", "barely"), [(0.33, True), (0.37, True), (0.5, False)])
def test_networks_near_chance_are_called_barely_trained_and_decide_nothing(
    results, params, analysed, share, barely
):
    """Three classes: guessing finds a third."""
    worsen(results, "evaluation/rows.csv", "images == 'transformer'", share)
    verdicts = judge(read_results(results, curves_of(results)), params)
    board = {v.claim.said: v for v in verdicts}
    quality = board["MaskGIT outperforms VQGAN∗ by FID (classifier)"]
    assert (quality.word == "undecided") == barely
    assert ("barely trained" in quality.sentence) == barely
    assert board["MaskGIT decodes faster than autoregressively"].word == "shown here"
    assert board["linear is better than convex schedules"].word == "shown here"
    first = (analysed({}) / "report.html").read_text().split("</article>")[0]
    assert ("Barely trained: MaskGIT." in first and "guessing finds 33.3%" in first) == barely


@pytest.mark.parametrize(("labels", "told"), [("training", True), ("uniform", False)])
def test_guessing_the_largest_class_is_no_training(results, params, labels, told):
    """It finds four of five samples where they have the classes' proportions."""
    path = results / "prepare/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"largest_class": 0.8}))
    worsen(results, "evaluation/rows.csv", "images == 'transformer'", 0.81)
    setup = Setup.of(params)._replace(labels=labels)
    found = barely_trained(read_results(results, curves_of(results)), setup)
    assert ("MaskGIT" in found) == told


def test_a_sweep_near_chance_decides_nothing_of_schedules(results, params):
    worsen(results, "sweep/rows.csv", "seed >= 0", 0.34)
    verdicts = judge(read_results(results, curves_of(results)), params)
    words = {v.claim.said: v.word for v in verdicts}
    assert words["linear is better than convex schedules"] == "undecided"
    assert words["MaskGIT outperforms VQGAN∗ by FID (classifier)"] == "shown here"


@pytest.mark.parametrize(("stale", "told"), [({}, 2), (SWEPT, 1), ({"evaluate": NO_RESULTS}, 0)])
def test_of_samples_that_are_out_of_date_nothing_is_told(results, analysed, stale, told):
    worsen(results, "evaluation/rows.csv", "images == 'transformer'", 0.33)
    worsen(results, "sweep/rows.csv", "seed >= 0", 0.34)
    report = (analysed(stale) / "report.html").read_text()
    assert report.count("<strong>Barely trained: ") == told


def test_of_a_single_class_nobody_is_called_barely_trained(results, params):
    (results / "prepare/metrics.json").write_text(
        '{"train_images": 4000, "val_images": 1000, "classes": 1, "largest_class": 1}'
    )
    found = read_results(results, curves_of(results))
    assert barely_trained(found, Setup.of(params)) == {}
