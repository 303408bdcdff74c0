"""Draws and measures samples of MaskGIT and the baseline with several sampling settings."""

from pipeline.config.params import Params
from pipeline.config.replicates import NETWORKS, main_replicates
from pipeline.experiments.temperature import temperature_rows
from pipeline.runtime.batches import workers_of
from pipeline.runtime.stage import Stage
from stages.running import replicate_folders, write_rows


def main(params: Params) -> str:
    workers = workers_of(params.ray)
    replicates = [r for network in NETWORKS for r in main_replicates(params, network)]
    with Stage("temperature", params) as stage:
        lists = (f"temperature.{name}" for name in ("values", "softmax_temperatures", "top_k"))
        folders = replicate_folders(stage, replicates, *lists)
        return write_rows(
            *(stage, "temperature/rows.csv", temperature_rows(params, folders, workers)),
            group=lambda row: (  # MLflow allows no comma in a metric's name
                "transformer" if row["images"] == "transformer" else row["setting"].replace(",", "")
            ),
            step=lambda row: 10 * (row["choice_temperature"] or 0),  # in tenths: steps are integers
        )
