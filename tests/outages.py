"""A stage of a finished project, run again through an outage, and the checks after it."""

import shutil
import subprocess
import time
from pathlib import Path

import psutil
from mlflow import MlflowClient

from pipeline.runtime.dag import stage_outputs
from pipeline.runtime.files import read_json, tree_hash
from pipeline.runtime.run_log import read_rows
from pipeline.training.loop.checkpoints import CHECKPOINT
from tests.failing_proxy import FailingProxy
from tests.project import SECRET, Project, files_with_secret

TIMED = ("results/sources", "timings")  # outputs that hold times
# The smoke preset's trainings would end before an outage comes.
LONGER: dict[str, dict[str, int]] = {
    "sweep": {"sweep__steps": 60},
    "train_transformer": {"training__steps": 160},
}
# What a tracking server does, and in which part of the time that the stage takes undisturbed.
OF_SERVER: dict[str, tuple[str, float, float | None]] = {
    "goes and comes back": ("refused", 0.3, 0.7),
    "goes for good": ("refused", 0.3, None),
    "answers with errors": ("errors", 0.3, None),
    "never answers": ("silent", 0.3, None),
    "answers after 5 s": ("slow", 0, None),
}
# A stage of each kind: one training in the stage's process, trainings in workers, trials, batches,
# and one that logs to the run of the whole `dvc repro`.
KINDS = ("train_classifier", "train_transformer", "sweep", "evaluate", "analysis")
OF_RAY = ("train_transformer", "sweep")
OUTAGES = {
    **dict.fromkeys(OF_SERVER, KINDS),
    "worker killed": OF_RAY,
    "Ray killed": OF_RAY,
}


class Trial:
    """A copy of a finished project without the stage's outputs.

    Args:
        folder: empty.
        port: of a tracking server; without it the stage logs to the project's own database.
        plain: seconds that the stage takes undisturbed.
    """

    def __init__(
        self, finished: Project, stage: str, folder: Path, port: int | None, plain: float = 10.0
    ):
        self.project, self.stage = finished.copy(folder / "project"), stage
        self.plain, self.took, self.log = plain, 0.0, folder / "log"
        made = ("mlflow.db", "mlruns", "runs/reproduction", f"runs/{stage}", *stage_outputs(stage))
        # Nor the logs of other stages, all of which a new server would be sent.
        logs = self.project.folder.glob("runs/*/*/log")
        for path in [*map(self.project.folder.joinpath, made), *logs]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        # A server that saw none of it.
        self.project.set(mlflow__experiment=f"{stage} {time.time_ns()}", **LONGER.get(stage, {}))
        self.said: list[str] = []  # what the stage printed, and what was done to it
        self.proxy, self.uri = None, f"sqlite:///{self.project.folder}/mlflow.db"
        if port:
            self.proxy = FailingProxy(port)
            self.uri = f"http://me:{SECRET}@127.0.0.1:{self.proxy.port}"
            self.project.env["MLFLOW_TRACKING_URI"] = self.uri

    def start(self) -> subprocess.Popen:
        module = ("analysis",) if self.stage == "analysis" else ("stages", self.stage)
        self._began = time.monotonic()
        return self.project.start("python", "-m", *module, log=self.log)

    def wait(self, share: float) -> None:
        """Wait until a share of the stage's usual time has passed since its start."""
        time.sleep(max(0.0, self._began + share * self.plain - time.monotonic()))

    def end(self, process: subprocess.Popen, may_fail: bool = False) -> None:
        """Wait for the stage's end: success, or an error in one line if it may fail."""
        code = process.wait(timeout=600)
        self.took = time.monotonic() - self._began
        said = self.log.read_text()
        self.said.append(said)
        assert code == 0 or may_fail, said
        assert "Traceback" not in said and "unexpected: traceback" not in said, said
        if code:
            (_,) = [line for line in said.splitlines() if line.startswith("error: ")]

    def through(self, outage: str) -> None:
        """Run the stage through an outage to its end. `took` is the time of the disturbed run, or
        0 if the stage ran several times."""
        process = self.start()
        if self.proxy:
            mode, begin, stop = OF_SERVER[outage]
            self.wait(begin)
            self.proxy.mode = mode
            if stop is not None:
                self.wait(stop)
                self.proxy.mode = "open"
        else:
            self._kill_one(process, "raylet" if outage == "Ray killed" else "ray::")
        self.end(process, may_fail=outage == "Ray killed")
        if self.proxy:
            self.proxy.mode = "open"
        if outage == "Ray killed":  # it may have ended the stage
            assert self.project.all_ended()
            self.end(self.start())
            self.took = 0.0

    def _kill_one(self, process: subprocess.Popen, name: str) -> None:
        """SIGKILL one of the stage's child processes, whose command line begins with the name.
        Wait for a checkpoint and a busy Ray worker before it."""
        while process.poll() is None:
            below = psutil.Process(process.pid).children(recursive=True)
            child = next((child for child in below if _is(child, name)), None)
            if child and any(_is(child, "ray::") for child in below) and self._checkpoints():
                child.kill()
                made = [o for o in stage_outputs(self.stage) if (self.project.folder / o).exists()]
                assert made == [], f"{name} was killed after the work"
                return
            time.sleep(0.02)
        raise AssertionError(f"it ended before {name} was killed: {self.log.read_text()}")

    def _checkpoints(self) -> list[Path]:
        return list((self.project.folder / "runs" / self.stage).rglob(CHECKPOINT))

    def sync(self) -> None:
        """Send the unsent rows: the server is back."""
        self.said.append(self.project.run("python", "-m", "pipeline", "sync"))

    def outputs(self) -> dict[str, str]:
        """Return the hash of each of the stage's outputs without times."""
        names = map(str, stage_outputs(self.stage))
        kept = [name for name in names if not any(timed in name for timed in TIMED)]
        return {name: tree_hash(self.project.folder / name) for name in kept}

    def logged(self) -> dict[tuple[str, str, int], float]:
        """Return the metrics in the logs, except times."""
        return {
            (read_json(log / "run.json")["name"], metric, row["step"]): value
            for log in self._logs()
            for _, row in read_rows(log / "metrics.jsonl")
            for metric, value in row["metrics"].items()
            if "second" not in metric
        }

    def count(self) -> int:
        """Return the server's number of points. It must have all points, in one run per log."""
        client = MlflowClient(self.uri)
        count = sum(sent(client, log) for log in self._logs())
        runs = {read_json(log / "sent.json")["run_id"] for log in self._logs()}
        experiments = {client.get_run(run).info.experiment_id for run in runs}
        assert {run.info.run_id for run in client.search_runs(list(experiments))} == runs
        return count

    def _logs(self) -> list[Path]:
        """Return the folders of the stage's logs and of their parents."""
        return sorted(file.parent for file in (self.project.folder / "runs").rglob("run.json"))

    def check_left(self) -> None:
        """All processes ended, no temporary file is left, and no file holds the password."""
        folder = self.project.folder
        assert self.project.all_ended()
        assert [*folder.rglob(".*.tmp"), *folder.glob("runs/*/*/tune")] == []
        assert SECRET not in "".join(self.said) and files_with_secret(folder) == []


def sent(client: MlflowClient, log: Path) -> int:
    """Return MLflow's number of points of a log. It must have each point once."""
    run_id = read_json(log / "sent.json")["run_id"]
    wanted: dict[str, set[tuple[int, float]]] = {}
    for _, row in read_rows(log / "metrics.jsonl"):
        for metric, value in row["metrics"].items():
            wanted.setdefault(metric, set()).add((row["step"], value))
    for metric, points in wanted.items():
        found = client.get_metric_history(run_id, metric)
        assert {(p.step, p.value) for p in found} == points, (metric, found)
        assert len(found) == len(points), f"{metric} was sent twice"
    for path in filter(Path.is_file, (log / "artifacts").rglob("*")):
        name = path.relative_to(log / "artifacts")
        there = client.list_artifacts(run_id, "images" if len(name.parts) > 1 else None)
        assert str(name) in [file.path for file in there]
    assert client.get_run(run_id).info.status == "FINISHED"
    return sum(map(len, wanted.values()))


def _is(process: psutil.Process, name: str) -> bool:
    """Whether a busy process has that name; Ray's agents are not workers."""
    try:
        command = " ".join(process.cmdline()).partition(" ")[0]
    except psutil.Error:  # it has just ended
        return False
    return name in command and not command.endswith(("::IDLE", "Agent"))
