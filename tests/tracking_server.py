"""A tracking server in memory, with the failures of real ones."""

import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from PIL import Image
from pipeline.runtime.tracking import open_run

from pipeline.runtime import delivery


class FakeServer:
    """Stands for MLflow's client and the server behind it. As the real one it keeps a metric
    once that it is sent twice, and one file of each name, and it creates two runs where it is asked
    twice.

    `fails` is asked before each request: "down" does not carry it out, "lost" does, and both raise
    an error, as does "page" (another program answers), but for uploads, which seem to succeed;
    "slow" takes `latency` seconds; a number is the status of HTTP of an error. None of them: all is
    well.
    """

    def __init__(self):
        self.runs: dict[str, SimpleNamespace] = {}
        self.experiments: dict[str, SimpleNamespace] = {}
        self._clock, self._ids = itertools.count(1), itertools.count()
        self.requests: list[str] = []
        self.fails = lambda request: None
        self.latency = 0.0

    def __call__(self, uri: str) -> "FakeServer":
        """As the class of MLflow's client, of which one is made for a URI."""
        self.uri = uri
        return self

    def begin_anew(self) -> None:
        """As with an empty database."""
        self.runs.clear()
        self.experiments.clear()

    def run(self, name: str) -> SimpleNamespace:
        (found,) = [run for run in self.runs.values() if run.name == name]
        return found

    def __getattr__(self, request: str) -> Any:
        def answer(*args, **kwargs):
            self.requests.append(request)
            failure = self.fails(request)
            if failure == "slow":
                time.sleep(self.latency)
            if failure == "down":
                raise MlflowException(
                    f"API request to {self.uri}/api failed with exception refused"
                )
            if isinstance(failure, int):
                raise http_error(failure, f"{self.uri}/api")
            if failure == "page":
                if request == "log_artifact":
                    return None
                raise MlflowException("not JSON")
            result = getattr(self, f"_{request}")(*args, **kwargs)
            if failure == "lost":
                raise MlflowException(f"API request to {self.uri}/api failed: connection reset")
            return result

        if request.startswith("_"):
            raise AttributeError(request)
        return answer

    def _get_experiment_by_name(self, name):
        return self.experiments.get(name)

    def _create_experiment(self, name, location, tags):
        created, number = next(self._clock), str(len(self.experiments) + 1)
        self.experiments[name] = SimpleNamespace(experiment_id=number, creation_time=created)
        return number

    def _search_runs(self, experiments, query, max_results=1000):
        key = query.split("'")[1]
        return [
            SimpleNamespace(info=SimpleNamespace(run_id=run_id), data=run)
            for run_id, run in self.runs.items()
            if run.tags["maskgit.run"] == key
        ][:max_results]

    def _delete_run(self, run_id):
        del self.runs[run_id]

    def _create_run(self, experiment, start_time, tags, run_name):
        run_id = f"run{next(self._ids)}"
        self.runs[run_id] = SimpleNamespace(
            name=run_name,
            started=start_time,
            tags=dict(tags),
            metrics=[],
            params={},
            files={},
            images={},
            sizes={},
            status="RUNNING",
        )
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def _known(self, run_id):
        if run_id not in self.runs:
            text = f"Run with id={run_id} not found"
            raise RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": text})
        return self.runs[run_id]

    def _update_run(self, run_id, status):
        self._known(run_id).status = status

    def _set_terminated(self, run_id, status, end_time):
        self._known(run_id).status = status

    def _get_run(self, run_id):
        return SimpleNamespace(
            data=SimpleNamespace(params=self._known(run_id).params),
            info=SimpleNamespace(artifact_uri=f"mlflow-artifacts:/1/{run_id}/artifacts"),
        )

    def _list_artifacts(self, run_id, folder=None):
        run = self._known(run_id)
        return [
            SimpleNamespace(path=path, file_size=size)
            for path, size in run.sizes.items()
            if path.rpartition("/")[0] == (folder or "")
        ]

    def _log_batch(self, run_id, metrics=(), params=(), tags=()):
        run = self._known(run_id)
        changed = [p for p in params if run.params.get(p.key, p.value) != p.value]
        if changed or any("$" in metric.key for metric in metrics):
            text = "not allowed"
            raise RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": text})
        assert len(metrics) <= 1000 and len(params) <= 100
        run.params |= {param.key: param.value for param in params}
        run.tags |= {tag.key: tag.value for tag in tags}
        points = [(m.key, m.value, m.step, m.timestamp) for m in metrics]
        run.metrics += [point for point in points if point not in run.metrics]

    def _log_artifact(self, run_id, path, folder=None):
        run, name = self._known(run_id), Path(path).name
        run.sizes[f"{folder}/{name}" if folder else name] = Path(path).stat().st_size
        if folder is None:
            run.files[name] = Path(path).read_text()
        else:
            with Image.open(path) as picture:
                run.images[name] = picture.size

    def _set_tag(self, run_id, name, value):
        self._known(run_id).tags[name] = str(value)


def http_error(status: int, url: str) -> Exception:
    """As MLflow's client raises for an answer with an error's status, here of an upload."""
    response = requests.Response()
    response.status_code, response.url, response.reason = status, url, "for a reason"
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        return error
    raise AssertionError(status)


def fake_server(patch: pytest.MonkeyPatch, folder: Path, uri: str) -> FakeServer:
    """A server in the place of MLflow's client, for a project that is in the folder."""
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    patch.setattr(delivery, "ROUND", 0.02)
    fake = FakeServer()
    patch.setattr(mlflow, "MlflowClient", fake)
    Path("params.yaml").write_text("a: 1\n")
    return fake


def log_everything(folder: Path, rows: int = 20) -> None:
    """A stage's run with a child."""
    run = open_run("key", "stage", {"a.b": 1}, "experiment", folder)
    child = run.child("key/trial", "trial", {"seed": 3}).begin()
    for step in range(rows):
        run.log_metrics({"loss": 1 / (step + 1)}, step)
        child.log_metrics({"fid": step / 3}, step)
    child.finish(ok=False)
    run.finish(ok=True)


def check_everything(server: FakeServer, rows: int = 20, files: bool = True) -> None:
    run, child = server.run("stage"), server.run("trial")
    assert [(n, v, s) for n, v, s, _ in run.metrics] == [
        ("loss", 1 / (step + 1), step) for step in range(rows)
    ]
    assert [v for _, v, _, _ in child.metrics] == [step / 3 for step in range(rows)]
    assert run.params == {"a.b": "1"} and child.params == {"seed": "3"}
    assert run.files == ({"params.yaml": "a: 1\n"} if files else {})
    assert (run.status, child.status) == ("FINISHED", "FAILED")
    assert server.runs[child.tags["mlflow.parentRunId"]] is run
    assert run.tags["maskgit.run"] == "key" and "git.commit" in run.tags
    assert set(server.experiments) == {"experiment"}
