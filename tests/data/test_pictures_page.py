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


def counted(side: int, multipliers: str) -> tuple[int, dict[str, float]]:
    """Tokens a side of the preset with pictures of that size, and the FLOPs of its stages."""
    values = preset_params("photos").model_dump()
    values["data"]["image_size"] = side
    values["tokenizer"]["multipliers"] = [int(m) for m in multipliers.split(",")]
    params = Params(**values)
    return params.grid, Plan(params, DataSize(225, 75, 3, "test")).flops()


@pytest.mark.slow
def test_the_table_of_sizes_is_what_plan_counts():
    assert [row[0] for row in ROWS] == ["32", "64", "64", "128", "256"]
    _, before = counted(32, "1,1,2")
    for side, multipliers, wanted, tokenizer, transformer in ROWS:
        grid, now = counted(int(side), multipliers)
        assert grid == int(wanted)
        assert round(now["train_tokenizer"] / before["train_tokenizer"]) == int(tokenizer)
        assert round(now["train_transformer"] / before["train_transformer"]) == int(transformer)


def test_300_pictures_are_enough_for_every_metric_of_the_preset():
    params = preset_params("photos")
    held_out, dimensions = round(300 * params.data.val_fraction), params.feature_dimensions or 0
    assert dimensions < held_out < 300 - dimensions
    assert held_out >= max(params.evaluation.kid_subset_size, params.editing.images)
