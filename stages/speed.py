"""Measures the time per image of MaskGIT and of the autoregressive baseline (Figure 4)."""

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, RESULTS
from pipeline.experiments.speed import run_speed
from pipeline.runtime.device import driver_device
from pipeline.runtime.files import read_json, write_csv
from pipeline.runtime.mlflow_sync import load_mlflow
from pipeline.runtime.ray_cluster import join_ray, require_resources
from pipeline.runtime.stage import Stage
from pipeline.runtime.trials import run_beside


def main(params: Params) -> str:
    ray, path = params.ray, RESULTS / "speed_timings.csv"
    device = driver_device(ray.use_gpu, ray.num_workers)
    num_classes = len(read_json(IMAGES / "manifest.json", "class_names")["class_names"])
    with Stage("speed", params) as stage:
        if ray.use_gpu and device.type == "cpu":  # workers have GPUs; this machine has none
            join_ray()
            require_resources(1, ray.cpus_per_worker, ray.use_gpu, "ray.num_workers")
            resources = {"CPU": ray.cpus_per_worker, "GPU": 1}
            rows = run_beside(run_speed, params, num_classes, resources=resources)
        else:
            load_mlflow()  # an import in the background would slow the first timings
            rows = run_speed(params, num_classes)
        write_csv(path, rows)
        stage.run.log_artifact(path)
        for row in rows:
            # MLflow groups the charts by batch size, like Figure 4's panels; steps count tokens.
            name = f"seconds_per_image_in_batches_of_{row['batch_size']}/{row['method']}"
            stage.run.log_metrics({name: row["seconds_per_image"]}, step=row["tokens"])
    return f"speed: {len(rows)} timings in {path}"
