"""Time per image of MaskGIT and of the autoregressive baseline (Figure 4)."""

from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, RESULTS
from pipeline.experiments.speed import SpeedJob, count_classes, run_speed
from pipeline.runtime.cluster import join_ray
from pipeline.runtime.device import driver_device
from pipeline.runtime.files import read_json, write_csv
from pipeline.runtime.mlflow_sync import load_mlflow
from pipeline.runtime.room import require_resources
from pipeline.runtime.stage import Stage
from pipeline.runtime.tasks import run_tasks
from stages.running import main_schedule, run_stage


def main(params: Params) -> str:
    device = driver_device(params.ray.use_gpu, params.ray.num_workers)
    num_classes, target = count_classes(IMAGES), RESULTS / "speed_timings.csv"
    with Stage("speed", params) as stage:
        job = SpeedJob(params.model_dump(), num_classes, str(stage.folder()))
        if params.ray.use_gpu and device.type == "cpu":
            _run_on_a_worker(job, params)
        else:
            load_mlflow()  # its import in the background would be in the times of the first grid
            run_speed(job)
        rows = [
            {"method": row["method"], "tokens": row["tokens"]} | row
            for row in read_json(job.result)
        ]
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


def _run_on_a_worker(job: SpeedJob, params: Params) -> None:
    """Time on a GPU of the cluster, where this machine has none."""
    cpus = params.ray.cpus_per_worker
    join_ray()
    require_resources(1, cpus, params.ray.use_gpu, "ray.num_workers")
    retries = params.ray.max_failures
    run_tasks(run_speed, [job], cpus=cpus, gpus=1, max_retries=retries, on_done=lambda job: None)


if __name__ == "__main__":
    run_stage(main, curves=main_schedule)
