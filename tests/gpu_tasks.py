"""`python -m tests.gpu_tasks`: tasks on a cluster that says it has a GPU. Prints the process of
each, those of `run_tasks` first."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.failures import Failure
from pipeline.runtime.trials import run_beside, run_tasks


@dataclass(frozen=True)
class Job:
    noted: str

    @property
    def failure(self) -> Failure:
        return Failure(Path(self.noted).parent)


def note_process(job: Job) -> None:
    Path(job.noted).write_text(f"{os.getpid()}")


def main() -> None:
    import ray

    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, logging_level="error")
    with tempfile.TemporaryDirectory() as folder:
        jobs = [Job(f"{folder}/{number}") for number in range(6)]
        run_tasks(note_process, jobs[:3], cpus=1, gpus=1, max_retries=0, on_done=lambda job: None)
        for job in jobs[3:]:
            run_beside(note_process, job, resources={"CPU": 1, "GPU": 1})
        print(*(Path(job.noted).read_text() for job in jobs))


if __name__ == "__main__":
    main()
