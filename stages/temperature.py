"""Draws samples of the main model at other choice temperatures."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.config.replicates import main_replicates
from pipeline.experiments.temperature import temperature_rows
from pipeline.runtime.batches import workers_of
from pipeline.runtime.stage import Stage
from stages.running import replicate_folders, run_stage, write_rows

FILE, KEYS = "temperature/rows.csv", ("choice_temperature", "seed", "samples")


def main(params: Params) -> str:
    workers, replicates = workers_of(params.ray), main_replicates(params, "transformer")
    with Stage("temperature", params) as stage:
        folders = replicate_folders(stage, replicates, "temperature.values")
        rows = temperature_rows(params, folders, workers)
        # A step is a tenth of a choice temperature.
        write_rows(
            *(stage, FILE, rows, KEYS),
            group=lambda row: "transformer",
            step=lambda row: 10 * row["choice_temperature"],
        )
    return f"temperature: {len(rows)} rows in {RESULTS / FILE}"


if __name__ == "__main__":
    run_stage(main)
