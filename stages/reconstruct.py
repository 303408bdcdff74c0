"""Validation images from a part of their tokens (Figure 10)."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.experiments.reconstruct import reconstruct_hidden
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import write_csv, write_npz
from pipeline.runtime.stage import Stage
from stages.running import main_schedule, run_stage


def main(params: Params) -> str:
    results = RESULTS / "reconstruction"
    with Stage("reconstruct", params) as stage:
        folder = stage.folder("reconstruction.mask_ratios")
        rows, pictures = reconstruct_hidden(params, folder, pick_device())
        write_csv(results / "rows.csv", rows)
        write_npz(results / "pictures.npz", pictures)
        stage.run.log_artifact(results / "rows.csv")
        for row in rows:
            name = f"draw{row['draw']}" if row["draw"] >= 0 else "median"
            values = {f"{name}/{metric}": row[metric] for metric in ("psnr", "perceptual")}
            stage.run.log_metrics(values, step=round(100 * row["mask_ratio"]))
    medians = [row for row in rows if row["draw"] < 0]
    shown = ", ".join(f"{row['psnr']:.1f} dB at {row['mask_ratio']:.0%}" for row in medians)
    return f"reconstruct: PSNR of the median {shown} hidden; in {results}"


if __name__ == "__main__":
    run_stage(main, curves=main_schedule)
