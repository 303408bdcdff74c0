"""Writes every mask schedule γ as numbers, so that a stage depends on the curve of its own schedule
and not on the code of all."""

from pipeline.config.params import Params
from pipeline.config.paths import CURVES
from pipeline.runtime.files import atomic_folder, write_csv
from pipeline.runtime.stage import Stage
from pipeline.schedules import SCHEDULES, curve
from stages.running import run_stage


def main(params: Params) -> str:
    with Stage("schedules", params), atomic_folder(CURVES) as folder:
        for name in SCHEDULES:
            write_csv(folder / f"{name}.csv", curve(name, params.num_tokens))
    return f"schedules: {len(SCHEDULES)} curves in {CURVES}"


if __name__ == "__main__":
    run_stage(main)
