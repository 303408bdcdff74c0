"""Decodes validation images from a part of their tokens (Figure 10)."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.config.replicates import main_replicates
from pipeline.experiments.reconstruct import MEDIAN, reconstruct_hidden
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import write_npz
from pipeline.runtime.stage import Stage
from stages.running import replicate_folders, run_stage, write_rows

KEYS = ("mask_ratio", "draw", "seed", "images")


def main(params: Params) -> str:
    workers, results = workers_of(params.ray), RESULTS / "reconstruction"
    with Stage("reconstruct", params) as stage:
        replicates = main_replicates(params, "transformer")
        folders = replicate_folders(stage, replicates, "reconstruction.mask_ratios")
        rows, pictures = reconstruct_hidden(params, folders, workers)
        write_npz(results / "pictures.npz", pictures)
        # A step is a percent of the tokens that is hidden.
        write_rows(
            *(stage, "reconstruction/rows.csv", rows, KEYS),
            group=lambda row: "median" if row["draw"] == MEDIAN else "draws",
            step=lambda row: 100 * row["mask_ratio"],
        )
    return f"reconstruct: {len(rows)} rows and the pictures in {results}"


if __name__ == "__main__":
    run_stage(main)
