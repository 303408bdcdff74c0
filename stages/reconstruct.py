"""Validation images from a part of their tokens (Figure 10)."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.config.replicates import main_replicates
from pipeline.experiments.reconstruct import reconstruct_hidden
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import write_csv, write_npz
from pipeline.runtime.stage import Stage
from stages.running import model_folders, run_stage

KEYS = ("mask_ratio", "draw", "seed", "images")


def main(params: Params) -> str:
    workers, results = workers_of(params.ray), RESULTS / "reconstruction"
    with Stage("reconstruct", params) as stage:
        replicates = main_replicates(params, "transformer")
        folders = model_folders(stage, replicates, "reconstruction.mask_ratios")
        rows, pictures = reconstruct_hidden(params, folders, workers)
        write_csv(results / "rows.csv", rows)
        write_npz(results / "pictures.npz", pictures)
        stage.run.log_artifact(results / "rows.csv")
        # A step is a percent of the tokens that is hidden.
        stage.run.log_means(
            rows,
            lambda row: "median" if row["draw"] < 0 else "draws",
            KEYS,
            lambda row: 100 * row["mask_ratio"],
        )
    medians: dict[float, list[float]] = {}
    for row in rows:
        if row["draw"] < 0:
            medians.setdefault(row["mask_ratio"], []).append(row["psnr"])
    shown = ", ".join(
        f"{sum(psnr) / len(psnr):.1f} dB at {ratio:.0%}" for ratio, psnr in medians.items()
    )
    return f"reconstruct: PSNR of the median {shown} hidden; in {results}"


if __name__ == "__main__":
    run_stage(main)
