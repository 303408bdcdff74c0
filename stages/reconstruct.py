"""Decodes validation images from a part of their tokens (Figure 10)."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.config.replicates import main_replicates
from pipeline.experiments.reconstruct import MEDIAN, reconstruct_hidden
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import write_npz
from pipeline.runtime.stage import Stage
from stages.running import replicate_folders, write_rows


def main(params: Params) -> str:
    workers, replicates = workers_of(params.ray), main_replicates(params, "transformer")
    with Stage("reconstruct", params) as stage:
        folders = replicate_folders(stage, replicates, "reconstruction.mask_ratios")
        rows, pictures = reconstruct_hidden(params, folders, workers)
        write_npz(RESULTS / "reconstruction/pictures.npz", pictures)
        return write_rows(
            *(stage, "reconstruction/rows.csv", rows),
            group=lambda row: "median" if row["draw"] == MEDIAN else "draws",
            step=lambda row: 100 * row["mask_ratio"],  # percentage of hidden tokens
        )
