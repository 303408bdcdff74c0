"""Sends the logs in run directories to MLflow, while a stage runs or when `maskgit sync` runs.

A running stage never waits for the server. At its end, a stage waits only for a limited time (see
`ENDED`); the next stage or `maskgit sync` sends the rest.
"""

import contextlib
import math
import os
import re
import time
from collections.abc import Callable
from operator import methodcaller
from pathlib import Path
from threading import Event, Thread
from typing import Any

from filelock import FileLock

from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.files import read_json, remove_temporary, temporary_folder, write_json
from pipeline.runtime.project import in_project
from pipeline.runtime.run_log import ARTIFACTS, IMAGES, LOG, METRICS, RUN, SENT, read_rows
from pipeline.runtime.secrets import redacted

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # this module repeats requests
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# With a pool, an open connection would write to a deleted database file without an error.
os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
# By default, MLflow prints the server's address at a run's end, with the password in it.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

RUN_KEY = "maskgit.run"  # the MLflow tag that holds `RunLog.key`, which identifies a run
LOGS = ("reproduction/*", *(f"*/*/{LOG}{below * '/runs/*'}" for below in range(3)))  # parents first
MOST = {"metrics": 1000, "params": 100, "tags": 100}  # MLflow's limits for one request
ROUND, PAUSE = 1.0, 30.0  # seconds between rounds of sending: normally, and at most after errors
# Seconds that a stage waits at its end, for one answer and in total. The key is True for a
# local database, False for a server.
ENDED = {True: (3.0, 60.0), False: (1.0, 5.0)}
STUCK = 120.0  # seconds that `maskgit sync` waits for one answer
WAYS_OUT = {  # pattern in MLflow's error -> what the user can do
    r"'active' state": "restore the experiment, or set another mlflow.experiment in params.yaml",
    r"malformed|no such (table|column)|already exists|_alembic_": "move the database file away",
    r"\b40[13]\b": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or _TOKEN",
}


class Unsent(Exception):
    """MLflow did not answer, or answered with an error; the request is repeated later."""


class Refused(Unsent):
    """MLflow refused a value or file, and would refuse it again."""


class Gone(Unsent):
    """The run or experiment was deleted from MLflow."""


def tracking_uri() -> str:
    """The URI in MLFLOW_TRACKING_URI, else the URI of an SQLite file in the project. The path of
    the file is absolute, because Ray's workers and `dvc exp run --temp` run in other folders."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or "sqlite:///mlflow.db"
    file = sqlite_file(uri)
    return uri.replace(f":///{file}", f":///{in_project(file)}", 1) if file else uri


def is_local(uri: str) -> bool:
    """Whether a tracking URI names a database on this machine."""
    return uri.startswith("sqlite:")


def sqlite_file(uri: str) -> Path | None:
    """The database file of a tracking URI; None for a server or a database in memory."""
    path = uri.partition(":///")[2].partition("?")[0]
    return Path(path) if is_local(uri) and path not in ("", ":memory:") else None


def way_out(reason: str) -> str:
    """What the user can do about an error of MLflow, whose message is `reason`."""
    known = (advice for said, advice in WAYS_OUT.items() if re.search(said, reason))
    return next(known, "start the server, or correct MLFLOW_TRACKING_URI")


def load_mlflow() -> None:
    """Import MLflow early, because the import takes seconds. Import errors are ignored here."""
    with contextlib.suppress(Exception):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


class Server:
    """Sends requests to MLflow's tracking server or local database."""

    def __init__(self, uri: str):
        self.uri = uri
        self.refused: list[str] = []  # reasons of refused values and files
        self.asked = math.inf  # start of the current request
        self.experiments: dict[str, Any] = {}
        self._client: Any = None

    def ask(self, request: Callable[[Any], Any]) -> Any:
        """Call `request(client)`. Raises any error as `Unsent`, in one line without passwords."""
        try:
            client = self._connected()
            self.asked = time.monotonic()
            return request(client)
        except Exception as error:  # MLflow, the network and the database raise many types
            raise _kind(error)(_reason(error)) from None
        finally:
            self.asked = math.inf

    def experiment(self, name: str) -> Any:
        """Find or create an MLflow experiment by its name."""
        if name not in self.experiments:
            get, location = methodcaller("get_experiment_by_name", name), None
            if is_local(self.uri):  # a relative path would depend on the working directory
                location = Path(os.path.realpath(in_project("mlruns"))).as_uri()
            if not (found := self.ask(get)):
                self.ask(methodcaller("create_experiment", name, location))
            self.experiments[name] = found or self.ask(get)
        return self.experiments[name]

    def _connected(self) -> Any:
        from mlflow import MlflowClient

        file = sqlite_file(self.uri)
        if file and not file.exists():  # the user may delete it at any time
            _make_database(Path(os.path.realpath(file)))
            self._client = None
        if self._client is None:
            self.asked = time.monotonic()
            self._client = MlflowClient(self.uri)
        return self._client


def _make_database(file: Path) -> None:
    """Create an SQLite database under a temporary name, then rename it. A database could not be
    repaired if a kill left it unfinished, or if two processes created it at once."""
    from mlflow import MlflowClient

    with FileLock(file.with_name(f".{file.name}.lock")):
        remove_temporary(file.parent, file.name)
        with temporary_folder(file) as folder:
            if not file.exists():  # no other process has made it
                MlflowClient(f"sqlite:///{folder / file.name}").search_experiments(max_results=1)
                Path(f"{file}-journal").unlink(missing_ok=True)  # left by a deleted database
                os.replace(folder / file.name, file)


def _kind(error: Exception) -> type[Unsent]:
    code = getattr(error, "error_code", "")
    if code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in str(error):
        return Gone
    too_large = getattr(getattr(error, "response", None), "status_code", None) == 413
    return Refused if too_large or code == "INVALID_PARAMETER_VALUE" else Unsent


def _reason(error: Exception) -> str:
    """Shorten an error to one line without passwords; of OS and SQLite errors, keep the reason."""
    text = " ".join(str(error).split()) or type(error).__name__
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)|\(sqlite3\.\w+\) ([^[]+)", text)
    return one_line(redacted((found[1] or found[2]).strip() if found else text)[:200])


def project(folder: Path, server: Server) -> None:
    """Send the log of a run to MLflow. To save requests, `sent.json` in the log's folder records
    what was sent. MLflow ignores repeated metrics (same key, step, time and value)."""
    with FileLock(folder / ".sent.lock"):
        remove_temporary(folder, SENT)
        try:
            _Projection(folder, server).send()
        except Gone:  # the next call sends everything again
            server.experiments.clear()
            (folder / SENT).unlink(missing_ok=True)
            raise


class _Projection:
    """Sends the log of one run to MLflow."""

    def __init__(self, folder: Path, server: Server):
        self.folder, self.server, self.run = folder, server, read_json(folder / RUN)
        experiment = server.experiment(self.run["experiment"])
        self.where = experiment.experiment_id
        # Experiments with the same id in different databases differ in creation time.
        database = [self.where, experiment.creation_time]
        self.sent: dict[str, Any] = read_json(folder / SENT) if (folder / SENT).exists() else {}
        if self.sent.get("database") != database:
            self.sent = {"database": database, "run_id": "", "run": None, "bytes": 0}
            self.sent["artifacts"] = {}

    def send(self) -> None:
        described = self.sent["run"] == self.run
        if not described:
            self._describe()
        self._send_metrics()
        if not described and self.run["status"] != "RUNNING":
            for run in self._own_runs():  # a create call that timed out may have made another run
                empty = not (run.data.metrics or run.data.params)
                if empty and run.info.run_id != self.sent["run_id"]:
                    self.server.ask(methodcaller("delete_run", run.info.run_id))
            self._ask("set_terminated", self.run["status"], self.run["end"])
        self._note(run=self.run)
        self._send_artifacts()

    def _ask(self, request: str, *arguments: Any, **named: Any) -> Any:
        return self.server.ask(methodcaller(request, self.sent["run_id"], *arguments, **named))

    def _note(self, **sent: Any) -> None:
        self.sent |= sent
        write_json(self.folder / SENT, self.sent)

    def _describe(self) -> None:
        """Find or create the MLflow run, and send the run's tags, params and data sets."""
        from mlflow.entities import Dataset, DatasetInput, Param, RunTag

        run, tags = self.run, {RUN_KEY: self.run["key"], **self.run["tags"]}
        if run["parent"] and (parents := self._runs(run["parent"])):
            tags["mlflow.parentRunId"] = parents[0].info.run_id
        if not self.sent["run_id"]:  # a create request that timed out may have made the run
            create = methodcaller("create_run", self.where, run["start"], tags, run["name"])
            found = self._own_runs() or [self.server.ask(create)]
            self._note(run_id=found[0].info.run_id)
        if run["status"] == "RUNNING":
            self._ask("update_run", status="RUNNING")
        self._log("tags", [RunTag(name, value) for name, value in tags.items()])
        self._log("params", [Param(k, v[:6000]) for k, v in run["params"].items()])
        if datasets := [Dataset(source_type="local", **each) for each in run["datasets"]]:
            self._ask("log_inputs", datasets=[DatasetInput(each, []) for each in datasets])

    def _runs(self, key: str, also: str = "") -> list[Any]:
        query = f"tags.`{RUN_KEY}` = '{key}'{also}"
        return self.server.ask(methodcaller("search_runs", [self.where], query))

    def _own_runs(self) -> list[Any]:
        return self._runs(self.run["key"], f" AND attributes.start_time = {self.run['start']}")

    def _send_metrics(self) -> None:
        from mlflow.entities import Metric

        rows = list(read_rows(self.folder / METRICS, self.sent["bytes"]))
        values = [(row, *value) for _, row in rows for value in row["metrics"].items()]
        self._log("metrics", [Metric(k, v, row["time"], row["step"]) for row, k, v in values])
        if rows:
            self._note(bytes=rows[-1][0])

    def _log(self, kind: str, values: list[Any]) -> None:
        """Send metrics, params or tags in one request. If the request is too large, or if MLflow
        refuses it, send each half of the values in its own request."""
        if not values:
            return
        try:
            if len(values) <= MOST[kind]:
                self._ask("log_batch", **{kind: values})
                return
        except Refused as error:
            if len(values) == 1:
                self.server.refused.append(str(error))
                return
        half = len(values) // 2
        self._log(kind, values[:half])
        self._log(kind, values[half:])

    def _send_artifacts(self) -> None:
        for path in sorted((self.folder / ARTIFACTS).rglob("*.*")):
            name = path.relative_to(self.folder / ARTIFACTS).as_posix()
            if path.suffix == ".tmp":  # an unfinished copy
                continue
            changed = path.stat().st_mtime_ns
            if self.sent["artifacts"].get(name) == changed:
                continue
            folder = name.rpartition("/")[0] or None
            try:
                self._ask("log_artifact", str(path), folder)
                if folder == IMAGES:
                    self._ask("set_tag", "mlflow.loggedImages", True)
            except Refused as error:
                self.server.refused.append(f"{path}: {error}")
            self._note(artifacts=self.sent["artifacts"] | {name: changed})


class Sync:
    """A thread that sends the logs in a folder of run directories until `close` is called."""

    def __init__(self, folder: Path):
        self.folder, self.server = folder, Server(tracking_uri())
        self.problem = ""  # why the last round did not send everything
        self._closing, self._loaded = Event(), Event()
        self._sent: dict[Path, list[int]] = {}  # times of last changes of sent logs
        self.thread = Thread(target=self._run, name="mlflow", daemon=True)
        self.thread.start()

    def close(self, most: float = 60.0) -> str:
        """Send the remaining logs at a stage's end, for at most `most` seconds. Returns a message
        about logs that were not sent or were refused, with reasons; empty if there are none."""
        self._loaded.wait(most)
        answer, longest = ENDED[is_local(self.server.uri)]
        reason = self.send_rest(answer, min(most, longest))
        said = [f"MLflow refused a record: {each}" for each in self.server.refused]
        if reason:
            waiting = f"logs are still to be sent to {redacted(self.server.uri)} ({reason})"
            said.append(f"{waiting}; the next stage or `maskgit sync` sends them")
        return "; ".join(said)

    def send_rest(self, answer: float, most: float) -> str:
        """Send the remaining logs for at most `most` seconds, and stop if an answer takes longer
        than `answer` seconds. Returns why some logs were not sent; empty if all logs were sent."""
        self._closing.set()
        until = time.monotonic() + most
        while self.thread.is_alive() and (now := time.monotonic()) < until:
            if now - self.server.asked > answer:
                break
            self.thread.join(0.05)
        return "the server answers slowly" if self.thread.is_alive() else self.problem

    def _run(self) -> None:
        load_mlflow()
        self._loaded.set()
        pause, closing = ROUND, False
        while not closing:
            closing = self._closing.is_set()  # then this round is the last
            try:
                self._send()
                self.problem = ""
            except Exception as error:  # no error may stop the stage
                self.problem = redacted(str(error))
            pause = min(PAUSE, 2 * pause) if self.problem else ROUND
            self._closing.wait(pause)

    def _send(self) -> None:
        """Send the new entries of each log, parent runs first, and raise the first error at the
        end. If a run cannot be sent, its child runs are skipped. After an error that took more than
        `ROUND` seconds, stop, because the server probably hangs."""
        first: Exception | None = None
        failed: set[str] = set()  # keys of runs that could not be sent
        for file in [file for each in LOGS for file in sorted(self.folder.glob(f"{each}/{RUN}"))]:
            artifacts = file.parent / ARTIFACTS
            files = (file, file.parent / METRICS, artifacts, artifacts / IMAGES)
            changed = [file.stat().st_mtime_ns for file in files if file.exists()]
            if self._sent.get(file) == changed:
                continue
            run = read_json(file)
            if run["parent"] in failed:
                failed.add(run["key"])
                continue
            began = time.monotonic()
            try:
                try:
                    project(file.parent, self.server)
                except Gone:  # the database may have been replaced: every log is sent again
                    self._sent.clear()
                    project(file.parent, self.server)
                self._sent[file] = changed
            except (Unsent, UserError, OSError) as error:
                first = first or error
                failed.add(run["key"])
                if time.monotonic() - began > ROUND:
                    break
        if first:
            raise first


def sync(folder: Path) -> str:
    """Send all logs in a folder of run directories to MLflow. Returns a line to print. Raises a
    `UserError` if some logs could not be sent."""
    work = Sync(folder)
    reason, shown = work.send_rest(STUCK, math.inf), redacted(work.server.uri)
    if reason:
        raise UserError(f"MLflow at {shown}", reason, f"{way_out(reason)}, then run `maskgit sync`")
    refused = (f"; MLflow refused a record: {each}" for each in work.server.refused)
    return f"all logs were sent to {shown}{''.join(refused)}"
