"""`python -m tests.gpu_speed`: timings for a stage without a GPU, on a cluster that says it has
one. Prints the process that made them, the GPUs that Ray gave it, and the stage's own process."""

import os
import tempfile
from pathlib import Path
from typing import Any

from pipeline.experiments import speed
from pipeline.runtime.trials import run_beside
from stages import speed as stage
from tests.tiny_project import CPU, with_params


def run_speed(job: speed.SpeedJob) -> list[dict[str, Any]]:
    import ray

    speed.worker_device = lambda use_gpu: CPU
    speed.device_name = lambda device: f"{os.getpid()} {ray.get_gpu_ids()}"
    return speed.run_speed(job)


def main() -> None:
    import ray

    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, logging_level="error")
    stage.run_speed = run_speed
    with tempfile.TemporaryDirectory() as folder:
        params = with_params(ray={"use_gpu": True})
        job = speed.SpeedJob(params, 3, Path(folder))
        (device,) = {row["device"] for row in stage._run_on_a_worker(job)}
        beside = {run_beside(os.getpid, resources={"CPU": 1, "GPU": 1}) for _ in range(3)}
    ray.shutdown()  # which prints what workers say, perhaps in the middle of this line
    print(f"by {device} for {os.getpid()}")
    print(f"beside by {len(beside)} processes")


if __name__ == "__main__":
    main()
