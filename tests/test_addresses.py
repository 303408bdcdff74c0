"""An address of a tracking server that is none, or of what is no database: what `doctor` and other
commands say of it, which is never to delete somebody's file."""

import errno
import logging
import sys
from importlib.metadata import EntryPoint

import pytest
from pipeline.runtime.server_errors import fault_of, ruined, way_out
from pipeline.runtime.uris import DATABASE

from pipeline.runtime import server_errors as module
from pipeline.tools.doctor.services import tracking

SLIPS = [
    *("http://h:99999", "http://[::1", "http:/h", "ftp://h", "foo://x", "x y", "./mlruns"),
    *("file:///a", "oracle://h/db", "databricks-uc", "postgresql:u", "postgresql://h:port/db"),
    *("postgresql+nope://h/db", "sqlite:///:memory:", "sqlite:////dev/null/x/y.db"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def test_a_file_that_may_not_be_written_asks_for_permissions(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    denied = "change its permissions, or those of its disk, and run this again"
    assert way_out("mlflow.db.lock: Permission denied") == denied
    assert way_out("attempt to write a readonly database") == denied
    assert way_out("[Errno 30] Read-only file system: 'mlflow.db.lock'") == denied
    full = "make room on its disk and run this again"
    assert way_out("database or disk is full") == way_out("No space left on device") == full


@pytest.mark.parametrize("uri", SLIPS)
def test_a_slip_is_named_as_one(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = tracking()
    assert (found.state, found.way_out) == ("note", "mend MLFLOW_TRACKING_URI")
    assert way_out("whatever MLflow says") == "mend MLFLOW_TRACKING_URI; then run this again"


@pytest.mark.parametrize(
    ("uri", "module"),
    [
        ("mysql+asyncmy://me:hunter2@h/db", "asyncmy"),
        ("mssql+aioodbc://me:hunter2@h/db", "aioodbc"),
    ],
)
def test_a_database_without_its_driver_says_which(uri, module, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setitem(sys.modules, module, None)  # importing it fails, wherever it is installed
    found = tracking()
    assert found.state == "note" and "has no driver" in found.found and module in found.found
    assert "install one with pip" in found.way_out and "hunter2" not in found.found
    assert way_out("No module named 'x'") == f"{found.way_out}; then run this again"


def test_a_server_that_a_package_adds_to_mlflow_is_one(monkeypatch):
    azure = EntryPoint("azureml", "azureml.mlflow", module.PLUGINS)
    monkeypatch.setattr(module, "entry_points", lambda group: [azure])
    assert fault_of("azureml://h/x") is None and fault_of("azure://h/x") is not None


def test_a_database_that_cannot_be_read_is_left_alone(folder, monkeypatch):
    """It may be whole: of a disk's error, or another user's."""

    def closed(file):
        raise PermissionError(errno.EACCES, "Permission denied")

    (folder / DATABASE).write_bytes(b"SQLite format 3\0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / DATABASE}")
    monkeypatch.setattr(module, "_is_database", closed)
    found, said = tracking(), way_out("unable to open database file")
    assert found.state == "note" and "cannot be read (Permission denied)" in found.found
    assert found.way_out == f"change the permissions of {folder / DATABASE}" in said


def test_databricks_is_asked_for_credentials_in_one_line(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    found = tracking()
    assert found.state == "note" and "databricks configure" in found.way_out
    assert "credentials" in way_out("Reading Databricks credential configuration failed")
    record = logging.LogRecord("x", logging.WARNING, "", 0, "Failed to create", None, None)
    assert not logging.getLogger("mlflow.utils.databricks_utils").filter(record)


@pytest.mark.parametrize("what", ["/etc/passwd", "/dev/null", "/tmp", "own.txt"])
def test_what_never_was_a_database_is_not_to_be_deleted(what, folder, monkeypatch):
    (folder / "own.txt").write_text("mine")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{what}")
    found, said = tracking(), way_out("file is not a database")
    assert found.state == "note" and "is no database that can be read" in found.found
    assert found.way_out == said and ruined("file is not a database")
    assert f"{what} does not look like a database: mend MLFLOW_TRACKING_URI" in said
    assert "delete" not in said


@pytest.mark.parametrize(
    ("name", "content"), [(DATABASE, b"nonsense"), ("runs.db", b"SQLite format 3\0" + b"x" * 99)]
)
def test_a_damaged_database_may_be(name, content, folder, monkeypatch):
    (folder / name).write_bytes(content)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / name}")
    damaged = f"{folder / name} is damaged: put a whole copy in its place"
    assert way_out("file is not a database").startswith(damaged)
    assert tracking().state == "note"


def test_one_that_is_still_to_be_written_is_good(folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/new.db")
    assert tracking().state == "good"
    (folder / "new.db").touch()
    assert tracking().state == "good"
