"""Makes MLflow agree with the logs in run directories, while a stage works or by `maskgit sync`.

The server may be slow or away: a stage never waits for it while it works, and at its end only while
the server answers quickly. The next stage, or `maskgit sync`, sends the rest.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable
from operator import methodcaller
from pathlib import Path
from threading import Event, Thread
from typing import Any

from filelock import FileLock, Timeout

from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.files import read_json, remove_temporary, temporary_folder, write_json
from pipeline.runtime.project import in_project
from pipeline.runtime.run_log import ARTIFACTS, IMAGES, LOG, METRICS, RUN, SENT, read_rows
from pipeline.runtime.secrets import redacted, server_of

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # a failed request is repeated here
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# A connection that stays open writes to a database file that was deleted, without an error.
os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
# At a run's end MLflow would print the server's address, with the password in it.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

RUN_KEY = "maskgit.run"  # the tag by which a run is found
LOGS = ("reproduction/*", f"*/*/{LOG}", f"*/*/{LOG}/runs/*")  # below the runs folder, parents first
MOST = {"metrics": 1000, "params": 100, "tags": 100}  # of a request; MLflow's limits
ROUND, PAUSE = 1.0, 30.0  # seconds between two rounds; at most, while the server does not answer
# A stage that has ended waits as long as each answer takes at most these seconds, of a local
# database (True) or a server; in all LONGEST for a database, and for a server LAST seconds or the
# SHARE of the stage's own time.
ANSWER, LONGEST, LAST, SHARE = {True: 3.0, False: 1.0}, 60.0, 2.0, 0.04
STUCK = 120.0  # seconds that `maskgit sync` waits for one answer
SLOW = "it answers slowly"
WAYS_OUT = {  # by what the reason says
    r"another process": "wait until it has ended",
    r"delete it": "do so",
    r"'active' state": "restore it in MLflow, or choose another mlflow.experiment in params.yaml",
    r"out-of-date database": "upgrade a copy of it with `mlflow db upgrade`, or install its MLflow",
    r"not a database|malformed|no such (table|column)|_alembic_": "move the file away",
    r"Permission denied|readonly|Read-only": "change its permissions",
    r"disk is full|No space left|quota": "make room on its disk",
    r"\b40[13]\b": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or _TOKEN",
}


class Unsent(Exception):
    """MLflow did not answer, or not as it should; the request is repeated later."""


class Refused(Unsent):
    """MLflow will never accept this value or file."""


class Gone(Unsent):
    """MLflow has lost the run or the experiment."""


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or an SQLite file in the project. The path of a file is absolute: Ray's
    workers and `dvc exp run --temp` have other working directories."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or "sqlite:///mlflow.db"
    if (file := sqlite_file(uri)) is None:
        return uri
    scheme, _, path = uri.partition(":///")
    return f"{scheme}:///{in_project(file)}{path[len(str(file)) :]}"


def is_local(uri: str) -> bool:
    """Whether an address is that of a database file on this machine."""
    return uri.startswith("sqlite:")


def sqlite_file(uri: str) -> Path | None:
    """The database file that an address names; None if it names a server or memory."""
    path = uri.partition(":///")[2].partition("?")[0]
    return Path(path) if is_local(uri) and path not in ("", ":memory:") else None


def is_database(file: Path) -> bool:
    """Whether a file begins as SQLite's do, or does not exist yet, or is empty."""
    if not os.path.lexists(file):
        return True
    if not file.is_file():
        return False
    with open(file, "rb") as content:
        return content.read(16) in (b"", b"SQLite format 3\0")


def way_out(reason: str) -> str:
    """What the user can do where MLflow fails for that reason."""
    known = [advice for said, advice in WAYS_OUT.items() if re.search(said, reason)]
    if known:
        return known[0]
    return "start the server" if server_of(tracking_uri()) else "check MLFLOW_TRACKING_URI"


def load_mlflow() -> None:
    """Import what sending needs, which takes seconds. Errors appear where MLflow is used."""
    with contextlib.suppress(Exception):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


class Server:
    """The tracking server, or the database in its place."""

    def __init__(self, uri: str):
        self.uri = uri
        self.refused: list[str] = []  # why it will never accept a value or file
        self.since, self.took = 0.0, 0.0  # when the request under way began; how long the last took
        self.experiments: dict[str, Any] = {}
        self._client: Any = None

    def ask(self, request: Callable[[Any], Any]) -> Any:
        """`request(client)`, with an MLflow client.

        Raises:
            Unsent: the request failed; the message is one line, without secrets.
        """
        self.since = time.monotonic()
        try:
            return request(self._connected())
        except Exception as error:  # of MLflow, the network and the database, which have many
            raise _kind(error)(_reason(error)) from None
        finally:
            self.took, self.since = time.monotonic() - (self.since or time.monotonic()), 0.0

    def experiment(self, name: str) -> Any:
        """MLflow's experiment of that name, found or created."""
        if name not in self.experiments:
            found = self.ask(methodcaller("get_experiment_by_name", name))
            if found is None:
                # MLflow's artifact paths follow the working directory unless they are absolute.
                here = Path(os.path.realpath(in_project("mlruns"))).as_uri()
                location = here if is_local(self.uri) else None
                self.ask(methodcaller("create_experiment", name, location))
                found = self.ask(methodcaller("get_experiment_by_name", name))
            self.experiments[name] = found
        return self.experiments[name]

    def delay(self) -> float:
        """Seconds that the request under way takes until now, or the last one took."""
        since = self.since
        return time.monotonic() - since if since else self.took

    def _connected(self) -> Any:
        from mlflow import MlflowClient

        file = sqlite_file(self.uri)
        if file and not (file.exists() and file.stat().st_size):  # it may be deleted at any time
            self.since = 0.0  # nobody is late: setting up a database is this machine's own work
            _make_database(Path(os.path.realpath(file)))
            self.since, self._client = time.monotonic(), None
        if self._client is None:
            if file and not is_database(file):  # which MLflow would try to open for a minute
                raise Unsent(f"{file} is not a database")
            self._client = MlflowClient(self.uri)
        return self._client


def _make_database(file: Path) -> None:
    """Set up a database beside its place: MLflow takes some sixty steps, and a database that two
    processes set up at once, or that a kill leaves half made, is broken for good."""
    from mlflow import MlflowClient

    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        if file.exists() and file.stat().st_size:  # another process was quicker
            return
        remove_temporary(file.parent, file.name)
        with temporary_folder(file) as folder:
            MlflowClient(f"sqlite:///{folder / file.name}").search_experiments(max_results=1)
            Path(f"{file}-journal").unlink(missing_ok=True)  # of a database that was deleted
            os.replace(folder / file.name, file)


def _kind(error: Exception) -> type[Unsent]:
    code = getattr(error, "error_code", "")
    if code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in str(error):
        return Gone
    too_large = getattr(getattr(error, "response", None), "status_code", None) == 413
    return Refused if too_large or code == "INVALID_PARAMETER_VALUE" else Unsent


def _reason(error: Exception) -> str:
    """What went wrong, in a line; of a long message about a network or database what matters."""
    text = " ".join(str(error).split()) or type(error).__name__
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)|\(sqlite3\.\w+\) ([^[]+)", text)
    return one_line(redacted((found[1] or found[2]).strip() if found else text)[:200])


def project(folder: Path, server: Server) -> bool:
    """Make MLflow agree with the log in a folder; returns whether anything was sent.

    `sent.json` notes what MLflow has. It only saves requests: MLflow ignores a row with the key,
    step, time and value of another.

    Raises:
        Unsent: not everything could be sent.
        filelock.Timeout: another process is sending this log.
    """
    with FileLock(folder / ".sent.lock").acquire(timeout=0):
        remove_temporary(folder, SENT)
        try:
            return _Projection(folder, server).send()
        except Gone:  # the next call sends everything again
            server.experiments.clear()
            (folder / SENT).unlink(missing_ok=True)
            raise


class _Projection:
    """One log on its way to MLflow."""

    def __init__(self, folder: Path, server: Server):
        self.folder, self.server, self.noted = folder, server, False
        self.run = read_json(folder / RUN)
        experiment = server.experiment(self.run["experiment"])
        self.where = experiment.experiment_id
        # The time of its creation tells an experiment from one in another database.
        database = [self.where, experiment.creation_time]
        self.sent = read_json(folder / SENT) if (folder / SENT).exists() else {}
        if self.sent.get("database") != database:
            self.sent = {"database": database, "run_id": "", "run": None, "bytes": 0}
            self.sent |= {"artifacts": {}}

    def send(self) -> bool:
        described, artifacts = self.sent["run"] == self.run, self.sent["artifacts"]
        if not described:
            self._describe()
        self._send_metrics()
        for path in sorted((self.folder / ARTIFACTS).rglob("*")):
            name = path.relative_to(self.folder / ARTIFACTS).as_posix()
            changed = path.stat().st_mtime_ns
            if path.suffix != ".tmp" and path.is_file() and artifacts.get(name) != changed:
                self._upload(path, name.rpartition("/")[0] or None)
                self._note(artifacts=(artifacts := artifacts | {name: changed}))
        if not described:
            if self.run["status"] != "RUNNING":
                self._remove_duplicates()
                self._ask("set_terminated", self.run["status"], self.run["end"])
            self._note(run=self.run)
        return self.noted

    def _ask(self, request: str, *arguments: Any, **named: Any) -> Any:
        return self.server.ask(methodcaller(request, self.sent["run_id"], *arguments, **named))

    def _note(self, **sent: Any) -> None:
        self.sent |= sent
        self.noted = True
        write_json(self.folder / SENT, self.sent)

    def _describe(self) -> None:
        """Find or create the run, and send its tags, params and data sets."""
        from mlflow.entities import Dataset, DatasetInput, Param, RunTag

        run, tags = self.run, {RUN_KEY: self.run["key"], **self.run["tags"]}
        if parent := self._runs(run["parent"]):
            tags["mlflow.parentRunId"] = parent[0].info.run_id
        if not self.sent["run_id"]:
            create = methodcaller("create_run", self.where, run["start"], tags, run["name"])
            found = self._own_runs() or [self.server.ask(create)]
            self._note(run_id=found[0].info.run_id)
        if run["status"] == "RUNNING":
            self._ask("update_run", status="RUNNING")
        self._log("tags", [RunTag(name, value) for name, value in tags.items()])
        # MLflow refuses a param that changed, as one that a resumed run does not depend on.
        known = self._ask("get_run").data.params
        new = [Param(k, v[:6000]) for k, v in run["params"].items() if k not in known]
        self._log("params", new)
        if datasets := [Dataset(source_type="local", **each) for each in run["datasets"]]:
            self._ask("log_inputs", datasets=[DatasetInput(each, []) for each in datasets])

    def _runs(self, key: str) -> list[Any]:
        search = methodcaller("search_runs", [self.where], f"tags.`{RUN_KEY}` = '{key}'")
        return self.server.ask(search) if key else []

    def _own_runs(self) -> list[Any]:
        """MLflow's runs for this log: a request to create one that failed may have succeeded."""
        found = self._runs(self.run["key"])
        return [each for each in found if each.info.start_time == self.run["start"]]

    def _remove_duplicates(self) -> None:
        """Delete the empty runs of requests that timed out: a server that hung obeys them later."""
        for run in self._own_runs():
            if run.info.run_id != self.sent["run_id"] and not (run.data.metrics or run.data.params):
                self.server.ask(methodcaller("delete_run", run.info.run_id))

    def _send_metrics(self) -> None:
        from mlflow.entities import Metric

        rows = list(read_rows(self.folder / METRICS, self.sent["bytes"]))
        values = [(row, *value) for _, row in rows for value in row["metrics"].items()]
        self._log("metrics", [Metric(k, v, row["time"], row["step"]) for row, k, v in values])
        if rows:
            self._note(bytes=rows[-1][0])

    def _log(self, kind: str, values: list[Any]) -> None:
        """Log metrics, params or tags; halve a batch that MLflow refuses, to find what it means."""
        for start in range(0, len(values), MOST[kind]):
            batch = values[start : start + MOST[kind]]
            try:
                self._ask("log_batch", **{kind: batch})
            except Refused as error:
                if len(batch) == 1:
                    self.server.refused.append(str(error))
                    continue
                for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                    self._log(kind, half)

    def _upload(self, path: Path, folder: str | None) -> None:
        try:
            self._ask("log_artifact", str(path), folder)
            if folder == IMAGES:
                self._ask("set_tag", "mlflow.loggedImages", True)
        except Refused as error:
            self.server.refused.append(f"{path}: {error}")
            return
        if not is_local(self.server.uri):  # MLflow takes any answer, such as a login page, for yes
            there = {Path(f.path).name: f.file_size for f in self._ask("list_artifacts", folder)}
            if there.get(path.name) != path.stat().st_size:
                raise Unsent(f"MLflow does not have {path.name} as it was sent")


class Sync:
    """Sends the logs below a folder of run directories, from a thread, until it is closed."""

    def __init__(self, folder: Path):
        self.folder, self.server = folder, Server(tracking_uri())
        self.problem = ""  # why the last round did not send everything
        self.sent = 0  # logs of which something was sent
        self.closing, self._loaded = Event(), Event()
        self._done: dict[Path, list[tuple[int, int, int]]] = {}
        self._began = time.monotonic()
        self.thread = Thread(target=self._run, name="mlflow", daemon=True)
        self.thread.start()

    def close(self, most: float = LONGEST) -> str:
        """Send the rest, as long as MLflow answers quickly.

        Args:
            most: seconds to wait at most.

        Returns:
            What is not sent, and why; "" if everything is.
        """
        self.closing.set()
        local, until = is_local(self.server.uri), time.monotonic() + most
        self._loaded.wait(most)
        share = max(LAST, SHARE * (time.monotonic() - self._began))
        until = until if local else min(until, time.monotonic() + share)
        while self.thread.is_alive() and time.monotonic() < until:
            if self.server.delay() > ANSWER[local]:
                break
            self.thread.join(0.05)
        said = [f"MLflow refused a record: {reason}" for reason in self.server.refused]
        if self.thread.is_alive() or self.problem:
            shown, reason = redacted(self.server.uri), self.problem or SLOW
            said.append(
                f"logs are still to be sent to {shown} ({reason}); the next stage or "
                f"`maskgit sync` sends them"
            )
        return "; ".join(said)

    def _run(self) -> None:
        load_mlflow()
        self._loaded.set()
        pause, closing = ROUND, False
        while not closing:
            closing = self.closing.is_set()  # one more round after that
            try:
                try:
                    self._send()
                except Gone:  # the database may have been replaced: every log is sent again
                    self._done.clear()
                    self._send()
                self.problem, pause = "", ROUND
            except Exception as error:  # the stage goes on, whatever it is
                self.problem, pause = redacted(str(error)), min(PAUSE, 2 * pause)
            self.closing.wait(pause)

    def _send(self) -> None:
        """Send what the logs got since they were sent, of parents first."""
        problem = ""
        for run in [run for each in LOGS for run in sorted(self.folder.glob(f"{each}/{RUN}"))]:
            log = run.parent
            files = (run, log / METRICS, log / ARTIFACTS, log / ARTIFACTS / IMAGES)
            stats = [file.stat() for file in files if file.exists()]
            changed = [(each.st_ino, each.st_size, each.st_mtime_ns) for each in stats]
            if self._done.get(log) == changed:
                continue
            try:
                self.sent += project(log, self.server)
                self._done[log] = changed
            except Timeout:
                problem = "another process is sending them"
            except (UserError, OSError) as error:
                problem = str(error)
        if problem:
            raise Unsent(problem)


def sync(folder: Path) -> str:
    """Send all logs below a folder of run directories; returns a line that says what was done.

    Raises:
        UserError: MLflow does not have everything.
    """
    work = Sync(folder)
    work.closing.set()
    while work.thread.is_alive() and work.server.delay() < STUCK:
        work.thread.join(0.1)
    shown, refused = redacted(work.server.uri), work.server.refused
    if work.thread.is_alive() or work.problem:
        raise UserError(
            f"MLflow at {shown}",
            work.problem or SLOW,
            f"{way_out(work.problem)}, and run this again",
        )
    said = [f"{work.sent} runs sent to {shown}", *(f"refused for good: {each}" for each in refused)]
    return "; ".join(said)
