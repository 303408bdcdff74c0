"""Measures the time per image of MaskGIT and of the autoregressive baseline (Figure 4)."""

from typing import Any

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, RESULTS
from pipeline.experiments.speed import SpeedJob, run_speed
from pipeline.runtime.device import driver_device
from pipeline.runtime.files import read_json, write_csv
from pipeline.runtime.mlflow_sync import load_mlflow
from pipeline.runtime.ray_cluster import join_ray, require_resources
from pipeline.runtime.stage import Stage
from pipeline.runtime.trials import Needs, run_trials
from stages.running import run_stage

TARGET = RESULTS / "speed_timings.csv"


def main(params: Params) -> str:
    device = driver_device(params.ray.use_gpu, params.ray.num_workers)
    num_classes = len(read_json(IMAGES / "manifest.json", "class_names")["class_names"])
    with Stage("speed", params) as stage:
        job = SpeedJob(params, num_classes, stage.folder())
        if params.ray.use_gpu and device.type == "cpu":
            timed = _run_on_a_worker(job)
        else:
            load_mlflow()  # its import in the background would be in the times of the first grid
            timed = run_speed(job)
        rows = [{"method": row["method"], "tokens": row["tokens"]} | row for row in timed]
        write_csv(TARGET, rows)
        stage.run.log_artifact(TARGET)
        for row in rows:
            # A group is a panel of Figure 4, and a step a number of tokens.
            name = f"seconds_per_image_in_batches_of_{row['batch_size']}/{row['method']}"
            stage.run.log_metrics({name: row["seconds_per_image"]}, step=row["tokens"])
    for measured in job.folder.glob("*.json"):  # the next run measures again
        measured.unlink()
    return f"speed: {len(rows)} times in {TARGET}"


def _run_on_a_worker(job: SpeedJob) -> list[dict[str, Any]]:
    """Time on a GPU of the cluster, where this machine has none."""
    ray, timed = job.params.ray, list[dict[str, Any]]()
    join_ray()
    require_resources(1, ray.cpus_per_worker, ray.use_gpu, "ray.num_workers")
    needs = Needs(1, {"CPU": ray.cpus_per_worker, "GPU": 1}, ray.max_failures, job.folder)
    run_trials(run_speed, [job], needs, stage="speed", on_done=lambda job, rows: timed.extend(rows))
    return timed


if __name__ == "__main__":
    run_stage(main)
