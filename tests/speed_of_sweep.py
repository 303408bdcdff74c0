"""What a cell of a large sweep costs besides its own work, and whether MLflow bears as many runs:
`python -m tests.speed_of_sweep PROJECT`, in a project of preset smoke that ran. It tries 1,008
cells (7 schedules × 16 T × 9 seeds, of 100 samples each from networks of one step) in a copy, then
1,000 runs in a database of their own."""

import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient

from tests.project import Project

SCHEDULES = ["cosine", "linear", "square_root", "square", "cubic", "exponential", "logarithmic"]
ITERATIONS, SEEDS, RUNS = list(range(1, 17)), list(range(9)), 1000


def sweep(project: Project) -> None:
    project.set(sweep__schedules=SCHEDULES, sweep__iterations=ITERATIONS, sweep__seeds=SEEDS)
    project.set(sweep__crossed=[], sweep__steps=1, sweep__samples=100)
    began = time.monotonic()
    project.stage("sweep", timeout=3600)
    took = time.monotonic() - began
    timings = pd.read_csv(project.folder / "results/sweep_timings.csv")
    cells, own = len(timings), timings["decode_seconds"].sum()
    print(
        f"{cells} cells in {took:.0f} s: {took / cells:.3f} s each, {own / cells:.3f} of decoding"
    )


def runs(folder: Path) -> None:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("many")
    for number in range(RUNS):
        run = client.create_run(experiment, run_name=f"trial-{number}")
        client.log_param(run.info.run_id, "schedule", SCHEDULES[number % len(SCHEDULES)])
        for step in (1, 2):
            client.log_metric(run.info.run_id, "fid", number / step, step=step)
    began = time.monotonic()
    found = client.search_runs(
        [experiment], "metrics.fid < 100", max_results=RUNS, order_by=["metrics.fid ASC"]
    )
    took = time.monotonic() - began
    print(f"{RUNS} runs searched and ordered in {took:.2f} s, {len(found)} found")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        finished = Project(Path(sys.argv[1]).absolute())
        sweep(finished.copy(Path(name, "project")))
        runs(Path(name))


if __name__ == "__main__":
    main()
