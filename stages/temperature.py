"""Draws and measures samples of MaskGIT's main replicates at several choice temperatures."""

from pipeline.config.params import Params
from pipeline.config.replicates import main_replicates
from pipeline.experiments.temperature import temperature_rows
from pipeline.runtime.batches import workers_of
from pipeline.runtime.stage import Stage
from stages.running import replicate_folders, write_rows


def main(params: Params) -> str:
    workers, replicates = workers_of(params.ray), main_replicates(params, "transformer")
    with Stage("temperature", params) as stage:
        folders = replicate_folders(stage, replicates, "temperature.values")
        return write_rows(
            *(stage, "temperature/rows.csv", temperature_rows(params, folders, workers)),
            group=lambda row: "transformer",
            step=lambda row: 10 * row["choice_temperature"],  # in tenths: steps are integers
        )
