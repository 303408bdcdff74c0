"""Measures the samples that rejection sampling keeps, for MaskGIT and the baseline (Table 4)."""

from pipeline.config.params import Params
from pipeline.config.replicates import NETWORKS, main_replicates
from pipeline.experiments.reject import rejection_rows
from pipeline.runtime.batches import workers_of
from pipeline.runtime.stage import Stage
from stages.running import replicate_folders, write_rows


def main(params: Params) -> str:
    workers = workers_of(params.ray)
    with Stage("reject", params) as stage:
        every = [r for network in NETWORKS for r in main_replicates(params, network)]
        folders = replicate_folders(stage, every, "rejection.acceptance", samples=True)
        return write_rows(
            *(stage, "rejection/rows.csv", rejection_rows(params, folders, workers)),
            group="{network}/{selection}".format_map,
            step=lambda row: 100 * row["acceptance"],  # percentage of kept samples
        )
