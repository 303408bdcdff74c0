"""Result files that a disk, or a hand, has damaged: one line that names the file."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.exhibits.inputs.results import TABLES, read_results
from pipeline.runtime.bounds import bounds_of
from pipeline.runtime.errors import UserError
from tests.errors import one_line
from tests.synthetic_results import FILES, curves_of

CSV = ["sweep/rows.csv", *(name for name, *_ in TABLES.values())]


def refuse(results, name: str) -> None:
    with pytest.raises(UserError, match=name) as error:
        read_results(results, curves_of(results))
    one_line(error)
    assert "dvc repro" in str(error.value)


@pytest.mark.parametrize("name", CSV)
def test_text_among_numbers_is_damage(results, name):
    rows = pd.read_csv(results / name)
    number = next(c for c in reversed(rows.columns) if pd.api.types.is_numeric_dtype(rows[c]))
    rows[number] = rows[number].astype(object)
    rows.loc[len(rows) - 1, number] = "0.1x"
    rows.to_csv(results / name, index=False)
    refuse(results, name)


@pytest.mark.parametrize("name", CSV)
def test_a_column_of_notes_is_nothing_to_the_tables(results, make_tables, name):
    def tables() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in make_tables().glob("*.csv")}

    before = tables()
    rows = pd.read_csv(results / name)
    rows["note"] = ["looked at on 2026-11-29", *[""] * (len(rows) - 1)]
    rows.to_csv(results / name, index=False)
    assert tables() == before


@pytest.mark.parametrize("network", ["transformer", "autoregressive"])
def test_a_row_of_another_label_smoothing_is_not_one_of_the_main(results, network):
    path = results / "evaluation/rows.csv"
    rows = pd.read_csv(path)
    own = rows[rows["images"] == network]
    assert own["label_smoothing"].nunique() > 1
    rows.drop(own.index[0]).to_csv(path, index=False)
    refuse(results, f"evaluation/rows.csv has no row of images {network}, label_smoothing")
    # Released weights have no other.
    main = own["label_smoothing"].iloc[0]
    rows.drop(own[own["label_smoothing"] != main].index).to_csv(path, index=False)
    read_results(results, curves_of(results))


def test_a_row_that_was_cut_off_is_damage(results):
    path = results / "speed_timings.csv"
    lines = path.read_text().splitlines()
    place = pd.read_csv(path).columns.get_loc("method")
    cells = [cell if n < place else "" for n, cell in enumerate(lines[-1].split(","))]
    path.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    refuse(results, "speed_timings.csv")


def test_a_set_of_images_that_is_not_there_is_named(results):
    path = results / "evaluation/rows.csv"
    rows = pd.read_csv(path)
    rows[rows["images"] != "reconstruction"].to_csv(path, index=False)
    refuse(results, "evaluation/rows.csv has no rows of reconstruction")


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_place_of_a_file_is_named(results, name):
    (results / name).unlink()
    (results / name).mkdir()
    refuse(results, name)


CELLS = [
    *(("evaluation/rows.csv", "class_accuracy", value) for value in (3, -1, True)),
    *(("evaluation/rows.csv", "precision_classifier", value) for value in (-0.5, 1.5)),
    ("evaluation/rows.csv", "recall_random", 2),
    ("evaluation/rows.csv", "coverage_classifier", 1.01),
    ("evaluation/rows.csv", "density_classifier", -0.1),
    ("evaluation/rows.csv", "fid_classifier", -4),
    ("evaluation/rows.csv", "fid_classifier_std", -1),
    ("evaluation/rows.csv", "is_classifier", 0.5),
    ("evaluation/rows.csv", "seed", np.nan),
    *(("sweep/rows.csv", "iterations", value) for value in (0, 2.5)),
    ("sweep/rows.csv", "fid_classifier", "inf"),
    ("sweep/rows.csv", "nll", -2),
    *(("cas/rows.csv", "top1", value) for value in (70, np.nan, "1e400")),
    *(("cas/rows.csv", "seed", value) for value in (0.5, -1, np.nan)),
    ("cas/rows.csv", "augmentation", "x" * 5000),
    ("temperature/rows.csv", "choice_temperature", -1),
    ("reconstruction/rows.csv", "mask_ratio", 1.5),
    *(("speed_timings.csv", "seconds_per_image", value) for value in (0, -1)),
    ("speed_timings.csv", "low", 100),
]


@pytest.mark.parametrize(("name", "column", "value"), CELLS)
def test_a_value_that_nothing_measures_is_named(results, name, column, value):
    rows = pd.read_csv(results / name, keep_default_na=False, na_values=[""])
    rows[column] = rows[column].astype(object)
    rows.loc[0 if value is not True else rows.index, column] = value
    rows.to_csv(results / name, index=False)
    refuse(results, f"{name}.*{column}")


def test_what_was_measured_may_lie_at_the_ends():
    assert bounds_of("density_classifier").hold(1.2) and bounds_of("kid_classifier").hold(-0.1)
    assert bounds_of("is_classifier").hold(1 - 1e-9) and not bounds_of("is_classifier").hold(0.99)
    assert bounds_of("fid_infinity_x").hold(-1) and not bounds_of("fid_x").hold(-1)
    assert bounds_of("is_splits").whole and not bounds_of("is_classifier").whole


def test_a_table_of_an_endless_cell_is_not_read(results):
    with (results / "cas/rows.csv").open("ab") as out:
        out.write(b"x" * 40_000_000)
    refuse(results, "cas/rows.csv has .* bytes")


SETS = {
    "no parameters": {"parameters": None},
    "text": {"steps": "x"},
    "a list": {"fid_classifier": [1]},
    "a mapping": {"fid_classifier": {"a": 1}},
    "a huge number": {"fid_classifier": 10**400},
    "true": {"fid_classifier": True},
    "an accuracy of 3": {"class_accuracy": 3},
    "no accuracy": {"class_accuracy": None},
}


@pytest.mark.parametrize("change", SETS.values(), ids=SETS)
def test_metrics_that_nothing_measures_are_named(results, change):
    path = results / "evaluation/metrics.json"
    values = json.loads(path.read_text())
    values["transformer"] |= change
    path.write_text(json.dumps(values))
    refuse(results, f"metrics.json .*{next(iter(change))}")


def test_the_files_as_they_are_are_read(results):
    read = read_results(results, curves_of(results))
    assert np.isfinite(read.speed["seconds_per_image"]).all()
