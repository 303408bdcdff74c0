"""Result files that a disk, or a hand, has damaged: one line that names the file."""

import numpy as np
import pandas as pd
import pytest

from analysis.exhibits.inputs.results import TABLES, read_results
from pipeline.runtime.errors import UserError
from tests.errors import one_line
from tests.synthetic_results import FILES, curves_of

CSV = ["sweep/rows.csv", *(name for name, *_ in TABLES.values())]


def refuse(results, name: str) -> None:
    with pytest.raises(UserError, match=name) as error:
        read_results(results, curves_of(results))
    one_line(error)
    assert "dvc repro" in str(error.value) or "put the file" in str(error.value)


@pytest.mark.parametrize("name", CSV)
def test_text_among_numbers_is_damage(results, name):
    rows = pd.read_csv(results / name)
    number = next(c for c in reversed(rows.columns) if pd.api.types.is_numeric_dtype(rows[c]))
    rows[number] = rows[number].astype(object)
    rows.loc[len(rows) - 1, number] = "0.1x"
    rows.to_csv(results / name, index=False)
    refuse(results, name)


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


def test_the_files_as_they_are_are_read(results):
    read = read_results(results, curves_of(results))
    assert np.isfinite(read.speed["seconds_per_image"]).all()
