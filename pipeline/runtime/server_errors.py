"""What a user can do where MLflow does not answer, or refuses, and what is wrong with an address
where none could."""

import os
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

from pipeline.runtime.project import in_project
from pipeline.runtime.server import NO_MLFLOW, status
from pipeline.runtime.uris import (
    DATABASE,
    is_local,
    redacted,
    server_of,
    sqlite_file,
    tracking_uri,
)

# What SQLite says of a file that is no database, is cut off, or lacks what a database began with,
# or of one that MLflow has half made in the place of one just deleted; and Python of one whose
# texts are none.
RUINED = (
    *("file is not a database", "disk image is malformed", "no such table"),
    *("has no column named", "no such column", "codec can't decode", "_alembic_tmp_"),
)
HEADER = b"SQLite format 3\0"  # which its files begin with
MEND = "mend MLFLOW_TRACKING_URI"
DATABASES = ("postgresql", "mysql", "mssql", "sqlite")  # that MLflow knows, as schemes name them
PLUGINS = "mlflow.tracking_store"  # packages that add servers to MLflow, as Azure's
HOSTED = "databricks"  # whose address is in its credentials
OUTDATED = "out-of-date database schema"  # what MLflow says of another version's
DENIED = ("Permission denied", "readonly database", "Read-only file system")
FULL = ("disk is full", "No space left", "Disk quota exceeded")
DELETED = "must be in the 'active' state"  # what MLflow says of an experiment


def ruined(reason: str) -> bool:
    """Whether what does not answer is a file that is no database, or no file."""
    file = sqlite_file(tracking_uri())
    odd = file is not None and os.path.lexists(file) and not file.is_file()
    return odd or any(said in reason for said in RUINED)


def fault_of(uri: str) -> tuple[str, str] | None:
    """What keeps an address from being any database's or server's, and the way out; None where it
    may be one's."""
    scheme = uri.partition(":")[0].lower()
    if file := sqlite_file(uri):
        if os.path.exists(file):
            try:
                odd = not _is_database(file)
            except OSError as error:
                return f"cannot be read ({error.strerror})", f"change the permissions of {file}"
            return ("is no database that can be read", mend_file(file)) if odd else None
        around = next(each for each in file.absolute().parents if os.path.exists(each))
        return None if around.is_dir() else (f"lies in {around}, which is no folder", MEND)
    if scheme in ("http", "https"):
        return None if server_of(uri) else ("is no address", MEND)
    if scheme.partition("+")[0] in DATABASES and not is_local(uri):
        return _without_driver(uri)
    if scheme == HOSTED or scheme in {plugin.name for plugin in entry_points(group=PLUGINS)}:
        return None
    return "is no address of a server or database", MEND


def _without_driver(uri: str) -> tuple[str, str] | None:
    from sqlalchemy.engine import make_url

    try:
        make_url(uri).get_dialect().import_dbapi()
    except ImportError as error:
        return f"has no driver ({error})", "install one with pip, as SQLAlchemy's page on it says"
    except Exception:  # of many kinds: a driver that it does not know, a port that is no number
        return "is no address", MEND
    return None


def _is_database(file: Path) -> bool:
    """Whether a file begins as SQLite's do, or is empty, and so one that is still to be written.

    Raises:
        OSError: it cannot be read.
    """
    if not file.is_file():
        return False
    with open(file, "rb") as handle:
        return handle.read(len(HEADER)) in (b"", HEADER)


def mend_file(file: Path) -> str:
    """The way out where a file is no database: only of what was one may the advice be to delete."""
    own = os.path.realpath(file) == os.path.realpath(in_project(DATABASE))
    with suppress(OSError):
        own = own or _is_database(file)
    if own:
        return (
            f"{file} is damaged: put a whole copy in its place; or delete it, with the models that "
            f"are registered there, and `maskgit sync` sends all runs that are kept"
        )
    return (
        f"{file} does not look like a database: {MEND}, or if it was one put a whole copy in its "
        f"place, and `maskgit sync` sends what is kept"
    )


def way_out(reason: str) -> str:
    """What to do where MLflow does not answer, or refuses for that reason."""
    if DELETED in reason:
        return "restore it, or choose another mlflow.experiment in params.yaml, and run this again"
    uri, file = tracking_uri(), sqlite_file(tracking_uri())
    if file and ruined(reason):
        return mend_file(file)
    if fault := fault_of(uri):
        return f"{fault[1]}; then run this again"
    if not is_local(uri):
        if uri.startswith(HOSTED):
            return f"give it the credentials that `databricks configure` asks for, or {MEND}"
        if status(reason) in (401, 403):
            return (
                "give it MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
                "MLFLOW_TRACKING_TOKEN, and run this again"
            )
        if reason.startswith(NO_MLFLOW):
            return "let MLFLOW_TRACKING_URI name an MLflow server, and run this again"
        return "start the server and run this again"
    if OUTDATED in reason:
        return (
            f"make a copy of it, and `mlflow db upgrade {redacted(uri)}` brings it to this MLflow; "
            f"if a newer MLflow wrote it, install that"
        )
    if any(said in reason for said in DENIED):
        return "change its permissions, or those of its disk, and run this again"
    if any(said in reason for said in FULL):
        return "make room on its disk and run this again"
    return "run this again"
