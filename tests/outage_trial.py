"""One stage of a finished project, run again from nothing, and what has to be true afterwards."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from mlflow import MlflowClient

from pipeline.runtime.dag import stage_outputs
from pipeline.runtime.files import read_json, read_yaml, tree_hash
from pipeline.runtime.run_log import read_rows
from tests.failing_proxy import FailingProxy
from tests.project import SECRET, Project, files_with_secret

# Of times, which differ from run to run.
TIMED = ("results/sources", "timings")
# Smoke's trainings are over before an outage comes: those of the stages that use Ray are longer.
LONGER: dict[str, dict[str, int]] = {
    "cas": {"cas__steps": 20},
    "sweep": {"sweep__steps": 60},
    "train_transformer": {"training__steps": 160},
    "train_autoregressive": {"autoregressive__steps": 120},
}
# Beside what a stage goes on from; who works there is noted after each checkpoint.
NOT_KEPT = {".lock", ".owner", "key.json"}
Points = dict[tuple[str, str, int], float]


@dataclass
class Trial:
    """A copy of a finished project without what the stage has made."""

    project: Project
    stage: str
    proxy: FailingProxy | None  # None logs to the project's own database
    other: int = 0  # port of a tracking server that knows nothing
    plain: float = 10.0  # seconds that the stage takes undisturbed
    took: float = 0.0  # seconds of the disturbed run, where it is to be compared
    said: list[str] = field(default_factory=list)  # what the stage printed, and what was done to it
    made: dict[str, str | None] = field(default_factory=dict)  # its outputs in the end
    points: Points = field(default_factory=dict)  # what it had logged in the end
    delivered: int = 0  # points that the server has of it, the machine's load too

    @property
    def uri(self) -> str:
        if self.proxy:
            return f"http://me:{SECRET}@127.0.0.1:{self.proxy.port}"
        return f"sqlite:///{self.database}"

    @property
    def database(self) -> Path:
        return self.project.folder / "mlflow.db"

    def wait_for_database(self, process: subprocess.Popen) -> None:
        while not self.database.exists() and process.poll() is None:
            time.sleep(0.02)

    def start(self, **env: str) -> subprocess.Popen:
        """Begin the stage, in a process group of its own."""
        module = ("analysis",) if self.stage == "analysis" else ("stages", self.stage)
        env = self.project.env | ({"MLFLOW_TRACKING_URI": self.uri} if self.proxy else {}) | env
        with open(self.log, "w") as log:
            process = subprocess.Popen(
                ("python", "-m", *module),
                cwd=self.project.folder,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._began = time.monotonic()
        return process

    @property
    def log(self) -> Path:
        return self.project.folder.parent / "log"

    def wait(self, share: float) -> None:
        """Until that share of the stage's usual time is over, since it began."""
        time.sleep(max(0.0, self._began + share * self.plain - time.monotonic()))

    def end(self, process: subprocess.Popen, ok: bool | None = True) -> int:
        """Wait for the stage's end.

        Args:
            ok: whether it must end well; it must not, with one line, where this is False.
        """
        code = process.wait(timeout=600)
        self.took = time.monotonic() - self._began
        said = self.log.read_text()
        self.said.append(said)
        assert ok is None or (code == 0) == ok, said
        assert "Traceback" not in said and "unexpected: traceback" not in said, said
        if code:
            (_,) = [line for line in said.splitlines() if line.startswith("error: ")]
        return code

    def run(self, **env: str) -> None:
        self.end(self.start(**env))

    def kill(self, process: subprocess.Popen) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.no_strays()  # of which one that still writes would note a damaged file's hash

    def kill_one(self, process: subprocess.Popen, name: str) -> None:
        """SIGKILL to a process below the stage's whose command line begins so, in the middle of the
        work: there is a checkpoint, and one of Ray's workers is busy."""
        while process.poll() is None:
            below = psutil.Process(process.pid).children(recursive=True)
            busy = any(_is(child, "ray::") for child in below)
            child = next((child for child in below if _is(child, name)), None)
            if busy and child and (count := len(self._checkpoints())):
                child.kill()
                made = [o for o in stage_outputs(self.stage) if (self.project.folder / o).exists()]
                assert made == [], f"{name} was killed after the work"
                self.said.append(f"killed {name} at {count} checkpoints")
                return
            time.sleep(0.02)
        raise AssertionError(f"it ended before {name} was killed: {self.log.read_text()}")

    def _checkpoints(self) -> list[Path]:
        return list((self.project.folder / "runs" / self.stage).rglob("checkpoint.pt"))

    def no_strays(self) -> None:
        deadline = time.monotonic() + 90  # Ray's agents notice within about a minute
        while self.project.strays() and time.monotonic() < deadline:
            time.sleep(0.5)
        assert self.project.strays() == []

    def newest(self) -> Path | None:
        """The file that a run directory of the stage got last, to go on from."""
        found = [
            path
            for path in (self.project.folder / "runs" / self.stage).rglob("*")
            if path.is_file()
            and path.name not in NOT_KEPT
            and not path.name.endswith(".txt")
            and not any(part.endswith(".tmp") for part in path.parts)
            and not {"tune", "log"} & {*path.parts}  # what no stage goes on from
        ]
        return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)

    def sync(self) -> None:
        """What waits is sent now: the server is there."""
        env = {"MLFLOW_TRACKING_URI": self.uri} if self.proxy else {}
        self.said.append(self.project.run("python", "-m", "pipeline", "sync", **env))

    def outputs(self) -> dict[str, str | None]:
        """What the stage has made: the hash of each output (None of one that holds times)."""
        return {
            str(path): None if any(t in str(path) for t in TIMED) else self._hash(path)
            for path in stage_outputs(self.stage)
        }

    def _hash(self, path: Path) -> str:
        return tree_hash(self.project.folder / path)

    def logged(self) -> Points:
        """Every point of a metric in the logs, but the machine's load and times."""
        return {
            (read_json(log / "run.json")["name"], metric, row["step"]): value
            for log in self._logs()
            for _, row in read_rows(log / "metrics.jsonl")
            for metric, value in row["metrics"].items()
            if not metric.startswith("system/") and "second" not in metric
        }

    def count(self) -> int:
        """The number of points that the server has: all that were logged, each once, in a run for
        each log."""
        client, count, runs = MlflowClient(self.uri), 0, {}
        for log in self._logs():
            run_id = read_json(log / "sent.json")["run_id"]
            wanted: dict[str, set[tuple[int, float]]] = {}
            for _, row in read_rows(log / "metrics.jsonl"):
                for metric, value in row["metrics"].items():
                    wanted.setdefault(metric, set()).add((row["step"], value))
            for metric, points in wanted.items():
                found = client.get_metric_history(run_id, metric)
                assert {(p.step, p.value) for p in found} == points, (metric, found)
                assert len(found) == len(points), f"{metric} was sent twice"
                count += len(points)
            for path in filter(Path.is_file, (log / "artifacts").rglob("*")):
                name = path.relative_to(log / "artifacts")
                there = client.list_artifacts(run_id, "images" if len(name.parts) > 1 else None)
                assert str(name) in [file.path for file in there]
            runs[run_id] = client.get_run(run_id).info
            assert runs[run_id].status == "FINISHED"
        experiments = {info.experiment_id for info in runs.values()}
        assert {run.info.run_id for run in client.search_runs(list(experiments))} == set(runs)
        return count

    def _logs(self) -> list[Path]:
        """The folders of the logs of this experiment's runs: the stage's, and those around it."""
        found = (self.project.folder / "runs").rglob("run.json")
        own = read_yaml(self.project.folder / "params.yaml")["mlflow"]["experiment"]
        return sorted(f.parent for f in found if read_json(f)["experiment"] == own)

    def no_password(self) -> None:
        """Neither in what was printed nor in a file."""
        assert SECRET not in "".join(self.said)
        assert files_with_secret(self.project.folder) == []

    def left(self) -> list[Path]:
        """Temporary files and folders."""
        folder = self.project.folder
        return [*folder.rglob(".*.tmp"), *folder.glob("runs/*/*/tune"), *folder.glob(".seen-*")]


def fresh(finished: Project, stage: str, folder: Path, proxy: FailingProxy | None) -> Trial:
    """A copy of the project at `folder / "project"`, without what the stage, and MLflow, have."""
    target = folder / "project"
    left_out = {"": {".git", ".dvc", "mlflow.db", "mlruns"}, "runs": {"reproduction", stage}}

    def ignored(parent: str, names: list[str]) -> set[str]:
        inside = Path(parent).relative_to(finished.folder).as_posix().removeprefix(".")
        return left_out.get(inside, set()) & set(names)

    shutil.copytree(finished.folder, target, symlinks=True, ignore=ignored, dirs_exist_ok=True)
    for output in stage_outputs(stage):
        if (path := target / output).is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    project = Project(target)
    experiment = f"{stage} {time.time_ns()}"  # a server that saw none of it
    project.set(mlflow__experiment=experiment, **LONGER.get(stage, {}))
    return Trial(project, stage, proxy)


def _is(process: psutil.Process, name: str) -> bool:
    """Whether it is one of that name which is busy; of Ray's workers, whose agents are none."""
    try:
        command = " ".join(process.cmdline()).partition(" ")[0]
    except psutil.Error:  # it has just ended
        return False
    return name in command and not command.endswith(("::IDLE", "Agent"))
