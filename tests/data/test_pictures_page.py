"""docs/pictures.md: its table of sizes is what `plan` counts."""

import re

import pytest

from pipeline.config.params import Params
from pipeline.config.presets import preset_params
from pipeline.tools.plan import DataSize, Plan
from tests.project import ROOT

TEXT = (ROOT / "docs/pictures.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| (\d+) \| \[([\d,]+)\] \| (\d+)×\3 \| (\d+) \| (\d+) \|$", TEXT, re.MULTILINE
)


def training_flops(side: int, multipliers: list[int]) -> tuple[Params, dict[str, float]]:
    """The preset with pictures of that size, and the FLOPs of its stages."""
    values = preset_params("photos").model_dump()
    values["data"]["image_size"] = side
    values["tokenizer"]["multipliers"] = multipliers
    params = Params(**values)
    return params, Plan(params, DataSize(225, 75, 3, "test")).flops()


def test_there_is_a_row_for_every_usual_size():
    assert [row[0] for row in ROWS] == ["32", "64", "64", "128", "256"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} by {row[1]}")
def test_the_table_of_sizes_is_what_plan_counts(row):
    side, multipliers, grid, tokenizer, transformer = row
    _, before = training_flops(32, [1, 1, 2])
    params, now = training_flops(int(side), [int(m) for m in multipliers.split(",")])
    assert params.grid == int(grid)
    for stage, told in (("train_tokenizer", tokenizer), ("train_transformer", transformer)):
        assert round(now[stage] / before[stage]) == int(told)


def test_300_pictures_are_enough_for_every_metric_of_the_preset():
    params = preset_params("photos")
    held_out = round(300 * params.data.val_fraction)
    dimensions = params.feature_dimensions or 0
    assert held_out > dimensions and 300 - held_out > dimensions
    assert held_out >= params.evaluation.kid_subset_size
    assert params.editing.images <= held_out
