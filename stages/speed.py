"""Time per image of MaskGIT and of the autoregressive baseline (Figure 4)."""

from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, RESULTS
from pipeline.experiments.speed import SpeedJob, count_classes, run_speed
from pipeline.runtime.device import driver_device
from pipeline.runtime.files import write_csv
from pipeline.runtime.mlflow_sync import load_mlflow
from pipeline.runtime.ray_cluster import join_ray, require_resources
from pipeline.runtime.stage import Stage
from pipeline.runtime.trials import Needs, run_trials
from stages.running import run_stage


def main(params: Params) -> str:
    device = driver_device(params.ray.use_gpu, params.ray.num_workers)
    num_classes, target = count_classes(IMAGES), RESULTS / "speed_timings.csv"
    with Stage("speed", params) as stage:
        job = SpeedJob(params.model_dump(), num_classes, str(stage.folder()))
        if params.ray.use_gpu and device.type == "cpu":
            timed = _run_on_a_worker(job, params)
        else:
            load_mlflow()  # its import in the background would be in the times of the first grid
            timed = run_speed(job)
        rows = [{"method": row["method"], "tokens": row["tokens"]} | row for row in timed]
        write_csv(target, rows)
        stage.run.log_artifact(target)
        for row in rows:
            # A group is a panel of Figure 4, and a step a number of tokens.
            name = f"seconds_per_image_in_batches_of_{row['batch_size']}/{row['method']}"
            stage.run.log_metrics({name: row["seconds_per_image"]}, step=row["tokens"])
    for measured in Path(job.folder).glob("*.json"):  # the next run measures again
        measured.unlink()
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


def _run_on_a_worker(job: SpeedJob, params: Params) -> list[dict[str, Any]]:
    """Time on a GPU of the cluster, where this machine has none."""
    cpus, timed = params.ray.cpus_per_worker, list[dict[str, Any]]()
    join_ray()
    require_resources(1, cpus, params.ray.use_gpu, "ray.num_workers")
    resources = {"CPU": cpus, "GPU": 1}
    needs = Needs(1, resources, params.ray.max_failures, Path(job.folder))
    run_trials(run_speed, [job], needs, stage="speed", on_done=lambda job, rows: timed.extend(rows))
    return timed


if __name__ == "__main__":
    run_stage(main)
