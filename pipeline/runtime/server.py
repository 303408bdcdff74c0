"""The tracking server, or the database in its place: one request at a time, and how it fails."""

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from pipeline.runtime.errors import UserError, one_line, printable
from pipeline.runtime.files import remove_temporary, require_file, temporary_folder
from pipeline.runtime.project import in_project
from pipeline.runtime.uris import is_local, own_database, scrubbed, sqlite_file

# A request that failed may have been carried out. It is sent again by us, who ask for that first
# where it matters, and not by the library.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# A connection that is kept writes on to a database file that was deleted, without an error.
os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
# As a run ends it would print where it is shown, by the server's address, the password with it.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

ARTIFACTS = "maskgit.artifacts"  # an experiment's tag: where we have put them
LOCATIONS = (  # where MLflow's database names places of artifacts, by table and column
    *(("experiments", "artifact_location"), ("runs", "artifact_uri")),
    *(("logged_models", "artifact_location"), ("model_versions", "storage_location")),
    *(("model_versions", "source"), ("experiment_tags", "value")),
)
PLACES = """
SELECT DISTINCT artifact_location, (
    SELECT value FROM experiment_tags AS tags
    WHERE tags.experiment_id = experiments.experiment_id AND key = ?
), EXISTS (SELECT 1 FROM runs WHERE runs.experiment_id = experiments.experiment_id)
FROM experiments WHERE artifact_location != ?
"""
UNTAGGED = """
SELECT experiment_id FROM experiments WHERE artifact_location = ? AND experiment_id NOT IN (
    SELECT experiment_id FROM experiment_tags WHERE key = ?
)
"""
TAG = "INSERT INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?)"
TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"
# Which rows of its tables a fresh one has.
FRESH = {"alembic_version": "TRUE", "experiments": "name = 'Default'", "workspaces": "TRUE"}
NO_MLFLOW = "it creates no"  # begins what is said of an answer that names nothing made
SETTING_UP = 2.0  # seconds in which a server that sets one up changes it
LOCKED = 1.0  # seconds that another process may hold a database that is to be opened
LOOKED_THROUGH = 2**28  # bytes of a database that is looked through while a user waits, at most


class Unsent(Exception):
    """The server did not answer, or not as it should: to be sent again later."""


class Refused(Unsent):
    """The server answered that it will never take this."""


class Gone(Unsent):
    """The server does not know the run."""


class Server:
    """The tracking server: one request at a time, and how quickly it answers."""

    def __init__(self, uri: str):
        self.uri = uri
        self.since: float | None = None  # when the request under way began
        self.took = 0.0  # seconds of the last one
        self.records = 0  # that were sent to it
        self._experiments: dict[str, Any] = {}  # MLflow's, by name
        self._client: Any = None

    def ask(self, request: Callable[[Any], Any]) -> Any:
        """`request(client)`, with an MLflow client.

        Raises:
            Unsent: it failed; the message is one line, without secrets.
        """
        self.since = time.monotonic()
        try:
            return request(self._connected())
        except Exception as error:  # MLflow's, or of the network and the database, which have many
            raise _kind(error)(_one_line(error)) from None
        finally:
            self.took, self.since = time.monotonic() - self.since, None

    def experiment(self, name: str) -> Any:
        """MLflow's experiment of that name, found or created. The time of its creation tells the
        database from another at the same place.

        Raises:
            Unsent: as `ask`.
        """
        if name not in self._experiments:
            found = self.ask(lambda client: client.get_experiment_by_name(name))
            if found is None:
                # Artifact paths follow the working directory unless they are absolute.
                here = _artifacts_here() if sqlite_file(self.uri) else None
                tags = {ARTIFACTS: here} if here else None
                self.ask(lambda client: client.create_experiment(name, here, tags))
                found = self.ask(lambda client: client.get_experiment_by_name(name))
            if found is None:
                raise Unsent(f"{NO_MLFLOW} experiment")
            self._experiments[name] = found
        return self._experiments[name]

    def forget(self) -> None:
        """Ask again for what is known of it: it lacks what it had."""
        self._experiments.clear()

    def _connected(self) -> Any:
        file = sqlite_file(self.uri)
        if self._client is None and is_local(self.uri):
            _check_database(file)
        if self._client is None or _lacks_content(file):  # it may be deleted at any time
            # Two processes that set up one fresh database at once break it for good.
            beside = FileLock(file.with_name(f".{file.name}.lock")) if file else None
            with beside or contextlib.nullcontext():
                if file and _lacks_content(file):
                    self._make_database(file)
                if file and self.uri == own_database():
                    _take_artifacts_along(file)
                self._client = self._opened(file)
        return self._client

    def _opened(self, file: Path | None) -> Any:
        """A client; a database that is left half made is made anew, as where one is deleted, which
        MLflow sets up in its place, and the process ends."""
        from mlflow import MlflowClient

        try:
            return MlflowClient(self.uri)  # which opens a database, and upgrades a fresh one
        except Exception:  # of many kinds, by where it was left
            if file is None or not _is_abandoned(file):
                raise
        self._make_database(file)
        return MlflowClient(self.uri)

    def _make_database(self, file: Path) -> None:
        """This machine's own work: nobody is late with an answer."""
        self.since = None
        try:
            _make_database(file)
        finally:
            self.since = time.monotonic()


def _kind(error: Exception) -> type[Unsent]:
    """What an error of MLflow's client says of the request."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException) and error.error_code in _KINDS:
        return _KINDS[error.error_code]
    return Refused if status(str(error)) == TOO_LARGE else Unsent


_KINDS = {"INVALID_PARAMETER_VALUE": Refused, "RESOURCE_DOES_NOT_EXIST": Gone}
TOO_LARGE = 413  # of HTTP: a proxy before the server takes no file of that size


def status(reason: str) -> int | None:
    """The status of HTTP in the text of an error of MLflow's client, if it has one."""
    found = re.search(r"error code (\d{3}) != 200|^(\d{3}) (?:Client|Server) Error", reason)
    return int(found[1] or found[2]) if found else None


def _check_database(file: Path | None) -> None:
    """Look at what is to be the database: MLflow would try for a minute, and a fresh one takes the
    place of what has no content, as a device.

    Raises:
        UserError: it is no file.
        sqlite3.Error: it is no database.
    """
    if file is None:
        raise UserError(
            "it is in memory, and lost with the process; name a file, as sqlite:///a.db"
        )
    with contextlib.suppress(FileNotFoundError):
        require_file(file)
        with contextlib.closing(_connected(file)) as db:
            db.execute("PRAGMA schema_version")


def damage_of(file: Path) -> str:
    """What SQLite says is wrong with a database's content; "" where nothing is, or is not told."""
    if _lacks_content(file) or file.stat().st_size > LOOKED_THROUGH:
        return ""
    try:
        with contextlib.closing(_connected(file)) as db:
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:  # an operational one: it is locked, or cannot be opened
        found = "ok" if isinstance(error, sqlite3.OperationalError) else str(error)
    return "" if found == "ok" else one_line(found)


def _connected(file: Path) -> sqlite3.Connection:
    """To a database that there is. Not for reading alone: what a process was killed in the middle
    of is first taken back, which writes."""
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=LOCKED)


def _artifacts_here() -> str:
    return Path(os.path.realpath(in_project("mlruns"))).as_uri()


def _take_artifacts_along(file: Path) -> None:
    """Let a project's own database, which was moved or copied with it, name this project's
    artifacts, and not those of the place where it was. Places that a user chose stay.

    Raises:
        sqlite3.Error: it is locked, say.
    """
    here = _artifacts_here()
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=LOCKED)) as db, db:
            for before, ours, used in db.execute(PLACES, (ARTIFACTS, here)).fetchall():
                if before == ours or (ours is None and used and _is_gone(before)):
                    _rename(db, before, here)
            for (each,) in db.execute(UNTAGGED, (here, ARTIFACTS)).fetchall():
                db.execute(TAG, (ARTIFACTS, here, each))  # older versions did not
    except sqlite3.OperationalError as error:
        if "no such" not in str(error):  # as in an old database, of which MLflow itself tells
            raise


def _is_gone(location: str) -> bool:
    """Whether it is where an older version has put artifacts, before the project was moved."""
    path = Path(unquote(urlsplit(location).path))
    return location.startswith("file:") and path.name == "mlruns" and not path.exists()


def _rename(db: sqlite3.Connection, before: str, here: str) -> None:
    for table, column in LOCATIONS:
        db.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
            f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            (here, len(before) + 1, before, len(before) + 1, f"{before}/"),
        )


def _lacks_content(file: Path | None) -> bool:
    return file is not None and not (file.exists() and file.stat().st_size)


def _is_abandoned(file: Path) -> bool:
    """Whether a database that cannot be opened holds nothing, and no server sets it up just now."""
    before = file.stat()
    if _holds_nothing(file):
        time.sleep(SETTING_UP)
    now = file.stat()
    changed = (before.st_mtime_ns, before.st_size) != (now.st_mtime_ns, now.st_size)
    return not changed and _holds_nothing(file)


def _holds_nothing(file: Path) -> bool:
    """Whether a database has no row but those of a fresh one.

    Raises:
        sqlite3.Error: it is locked, or no database.
    """
    with contextlib.closing(_connected(file)) as db:
        tables = [name for (name,) in db.execute(TABLES).fetchall()]
        others = ((name, FRESH.get(name, "FALSE")) for name in tables)
        return not any(
            db.execute(f'SELECT 1 FROM "{name}" WHERE NOT ({fresh}) LIMIT 1').fetchone()
            for name, fresh in others
        )


def _make_database(file: Path) -> None:
    """Set up a fresh database beside its place: MLflow does so in some sixty steps, and one that a
    kill or a full disk ended in between is broken for good. What others have set up meanwhile
    stays."""
    from mlflow import MlflowClient

    file = Path(os.path.realpath(file))
    remove_temporary(file.parent, file.name)
    with temporary_folder(file) as folder:
        MlflowClient(f"sqlite:///{folder / file.name}").search_experiments(max_results=1)
        if _lacks_content(file):  # what one left that is deleted, SQLite would write into this one
            Path(f"{file}-journal").unlink(missing_ok=True)
        if _lacks_content(file) or _holds_nothing(file):
            os.replace(folder / file.name, file)


def _one_line(error: Exception) -> str:
    """What went wrong, without secrets; of a page about the network or a database what the system
    says."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename:
        return printable(scrubbed(f"{error.filename}: {error.strerror}")[:200])
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)|\(sqlite3\.\w+\) ([^[]+)", text)
    return printable((found[1] or found[2]).strip() if found else scrubbed(text)[:200])
