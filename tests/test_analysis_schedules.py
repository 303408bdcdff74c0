"""The analysis of a sweep of other schedules than the paper's seven; the curves that it draws."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image

from analysis.exhibits import figure8, table3
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.results import read_results
from analysis.exhibits.style import COLOURS, schedule_colours
from pipeline.runtime.errors import UserError
from tests.synthetic_results import analyse, curves_of
from tests.synthetic_tables import BEST_FID, curve, sweep_rows

NONE = "–"


@pytest.fixture
def swept(results):
    """Reads results whose sweep is over the schedules given, with their FID at the best T."""

    def read(schedules: dict[str, float]):
        sweep_rows(schedules).to_csv(results / "sweep/rows.csv", index=False)
        return read_results(results, curves_of(results))

    return read


def test_a_schedule_that_the_paper_lacks_comes_last_and_has_none_of_its_values(swept, params):
    found = swept({"quartic": 0.5, "arccos": 2.5, **BEST_FID})
    table = table3.table(found, params)
    assert list(table.cells["schedule"]) == [*paper.TABLE_3, "arccos", "quartic", "real images"]
    theirs = [name for name in table.readable if "(paper" in name]
    assert len(theirs) == len(paper.TABLE_3["cosine"])
    assert (table.readable.iloc[7:][theirs] == NONE).all(axis=None)
    assert (table.readable.iloc[:7][theirs] != NONE).all(axis=None)
    best = figure8.quality(found, params).here[-1]
    assert "cosine 8 (paper: 10)" in best and "arccos 8 and quartic 8; tried" in best


def test_it_is_left_out_of_the_agreement_with_the_paper(swept, params):
    alone, beside = (
        table3.agreement(swept(schedules), params)
        for schedules in (BEST_FID, {"quartic": 0.5, **BEST_FID, "arccos": 9.0})
    )
    pd.testing.assert_frame_equal(alone.cells, beside.cells)
    left_out = "Left out, as not among the paper's schedules: arccos and quartic."
    assert left_out in beside.notes and not any("Left out" in note for note in alone.notes)


def test_it_is_not_compared_with_the_papers_best(swept, params):
    cosine_first = {**BEST_FID, "cosine": 0.5, "quartic": 0.25}
    sentences = table3.table(swept(cosine_first), params).here
    assert "**cosine is better than every other schedule of the paper**" in sentences[0]
    assert not any("quartic" in sentence for sentence in sentences[:-1])
    assert "quartic" in sentences[-1]  # which names what every schedule reached


@pytest.mark.parametrize(
    "schedules",
    [
        {"quartic": 1.0},
        {"quartic": 1.0, "mine": 2.0, "yours": 3.0},
        {"cosine": 1.0},
        {"linear": 1.0, "quartic": 2.0},
        {"linear": 1.0, "square": 2.0, "quartic": 0.5},
    ],
    ids=lambda schedules: "-".join(schedules),
)
def test_a_sweep_over_few_or_none_of_the_papers_schedules_is_no_error(
    results, params, tmp_path, schedules
):
    sweep_rows(schedules).to_csv(results / "sweep/rows.csv", index=False)
    analyse(results, tmp_path / "out", params)
    correlation = pd.read_csv(tmp_path / "out/tables/rank_correlation.csv")
    assert set(correlation["schedules"]) == {len(set(schedules) & set(paper.TABLE_3))}
    assert correlation["spearman_rho"].isna().all()
    for name in ("table3", "sweep", "rank_correlation"):
        assert "nan" not in (tmp_path / f"out/tables/{name}.md").read_text()


def test_schedules_keep_their_colours_and_others_have_colours_of_their_own():
    colours = schedule_colours([*paper.TABLE_3, "arccos", "mine", "yours"])
    assert len(set(colours.values())) == len(colours)
    for name in paper.TABLE_3:
        assert colours[name] == COLOURS[name] == schedule_colours([name])[name]


def drawn(results, params, path, schedule: str) -> np.ndarray:
    """(n, 2) rows and columns of the pixels in a schedule's colour, without those of the legend."""
    found = read_results(results, curves_of(results))
    figure8.schedules(found, params).draw(path, 200)  # so that a line is some pixels thick
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    colour = [int(COLOURS[schedule][i : i + 2], 16) for i in (1, 3, 5)]
    places = np.argwhere(np.abs(pixels - colour).max(axis=-1) < 8)
    return places[places[:, 1] < 0.7 * pixels.shape[1]]


def test_the_curve_that_is_drawn_is_that_of_the_file_at_the_papers_number_of_tokens(
    results, params, tmp_path
):
    sweep_rows({"cosine": 1.0}).to_csv(results / "sweep/rows.csv", index=False)
    falling = drawn(results, params, tmp_path / "falling.png", "cosine")
    assert np.ptp(falling[:, 0]) > 300
    heights = []
    for gamma in (0.25, 0.5, 0.75):
        level = curve(1.0).assign(gamma_256=gamma).sample(frac=1, random_state=0)
        level.to_csv(curves_of(results) / "cosine.csv", index=False)
        places = drawn(results, params, tmp_path / "level.png", "cosine")
        assert np.ptp(places[:, 0]) < 8
        heights.append(-places[:, 0].mean())
    assert heights[0] + 100 < heights[1] == pytest.approx(np.mean(heights), abs=2)


def test_a_schedule_without_a_curve_is_said_to_have_none(results, params, tmp_path, monkeypatch):
    (curves_of(results) / "cosine.csv").unlink()
    found = read_results(results, curves_of(results))
    assert set(found.curves) == set(BEST_FID) - {"cosine"}
    labels, plot = [], Axes.plot

    def recorded(axes, *values, **style):
        labels.append(style["label"])
        return plot(axes, *values, **style)

    monkeypatch.setattr(Axes, "plot", recorded)
    figure8.schedules(found, params).draw(tmp_path / "schedules.png", 40)
    assert "(cosine: not defined)" in labels and "square root" in labels


def test_schedules_that_are_not_swept_need_no_curve(results, swept):
    (curves_of(results) / "cosine.csv").write_text("r\n")
    assert set(swept({"linear": 1.0}).curves) == {"linear"}


def test_a_damaged_curve_and_a_missing_folder_are_named(results):
    path = curves_of(results) / "cosine.csv"
    curve(2.0).drop(columns="gamma_256").to_csv(path, index=False)
    with pytest.raises(UserError, match=r"cosine.csv: no column gamma_256"):
        read_results(results, curves_of(results))
    path.write_text("")
    with pytest.raises(UserError, match=re.escape(f"{path}: no valid CSV")):
        read_results(results, curves_of(results))
    with pytest.raises(UserError, match="nowhere: missing; run `dvc repro`"):
        read_results(results, results / "nowhere")
