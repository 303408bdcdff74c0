"""Writes a CSV file per mask schedule γ, so that a stage depends only on the schedules it uses."""

from pipeline.config.params import Params
from pipeline.config.paths import CURVES
from pipeline.runtime.files import atomic_folder, write_text
from pipeline.runtime.stage import Stage
from pipeline.schedules import SCHEDULES, curve_csv


def main(params: Params) -> str:
    with Stage("schedules", params), atomic_folder(CURVES) as folder:
        for name in SCHEDULES:
            write_text(folder / f"{name}.csv", curve_csv(name, params.num_tokens))
    return f"schedules: {len(SCHEDULES)} curves in {CURVES}"
