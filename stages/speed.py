"""Time per image of MaskGIT and of the autoregressive baseline (Figure 4)."""

import re
import shutil

import torch

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, RESULTS
from pipeline.experiments.speed import (
    count_classes,
    device_name,
    kept_speed_rows,
    speed_rows,
)
from pipeline.runtime.checksums import keep_if_whole, write_noted
from pipeline.runtime.delivery import load_ahead
from pipeline.runtime.device import worker_device
from pipeline.runtime.files import write_csv
from pipeline.runtime.stage import Stage
from stages.running import main_schedule, run_stage


def main(params: Params) -> str:
    device, target = worker_device(params.ray.use_gpu), RESULTS / "speed_timings.csv"
    num_classes = count_classes(IMAGES)
    with Stage("speed", params) as stage:
        folder, name = stage.folder(), re.sub(r"\W+", "-", device_name(device))
        rows = []
        load_ahead()  # its import in the background would be in the times of the first grid
        for grid in params.speed.grids:
            # Times are compared within a grid, so that all of them are of one process.
            cell = folder / f"{name}-{torch.get_num_threads()}-{grid}.json"
            if not keep_if_whole(cell):
                write_noted(cell, speed_rows(params, grid, num_classes, device))
            for row in kept_speed_rows(cell, params, grid, device):
                rows.append({"method": row["method"], "tokens": row["tokens"]} | row)
        write_csv(target, rows)
        stage.run.log_artifact(target)
        for row in rows:
            # A group is a panel of Figure 4, and a step a number of tokens.
            name = f"seconds_per_image_in_batches_of_{row['batch_size']}/{row['method']}"
            stage.run.log_metrics({name: row["seconds_per_image"]}, step=row["tokens"])
    shutil.rmtree(folder)  # whoever runs this again wants it measured again
    largest = max((row["tokens"], row["batch_size"]) for row in rows)
    times = {
        row["method"]: row["seconds_per_image"]
        for row in rows
        if (row["tokens"], row["batch_size"]) == largest
    }
    return (
        f"speed: {largest[0]} tokens, batch {largest[1]}: MaskGIT {times['maskgit']:.4f} s per "
        f"image, the baseline {times['ar_uncached']:.4f} s, with a cache {times['ar_cached']:.4f} "
        f"s; in {target}"
    )


if __name__ == "__main__":
    run_stage(main, curves=main_schedule)
