"""Classifier-based rejection sampling of both networks' samples (Table 4)."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.config.replicates import NETWORKS, main_replicates
from pipeline.experiments.reject import KEYS, rejection_rows
from pipeline.runtime.batches import workers_of
from pipeline.runtime.stage import Stage
from stages.running import replicate_folders, run_stage, write_rows

FILE = "rejection/rows.csv"


def main(params: Params) -> str:
    workers = workers_of(params.ray)
    with Stage("reject", params) as stage:
        every = [r for network in NETWORKS for r in main_replicates(params, network)]
        folders = replicate_folders(stage, every, "rejection.acceptance", samples=True)
        rows = rejection_rows(params, folders, workers)
        # A step is a percent of the samples that is kept.
        write_rows(
            *(stage, FILE, rows, KEYS),
            group=lambda row: f"{row['network']}/{row['selection']}",
            step=lambda row: 100 * row["acceptance"],
        )
    return f"reject: {len(rows)} rows in {RESULTS / FILE}"


if __name__ == "__main__":
    run_stage(main)
