"""A database that MLflow was ended in as it set it up: as where one is deleted at the moment at
which it is opened, and the process ends."""

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from pipeline.runtime.server import Server, Unsent
from pipeline.runtime.server_errors import way_out

from pipeline.runtime import server


def left(file: Path, *commands: str) -> Server:
    """The server of a file that has one of MLflow's last tables alone."""
    said = ("CREATE TABLE secrets (left REAL)", *commands)
    with closing(sqlite3.connect(file)) as database, database:
        for command in said:
            database.execute(command)
    return Server(f"sqlite:///{file}")


def tables(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as database:
        return {name for (name,) in database.execute(server.TABLES)}


def rows_of(file: Path, table: str) -> int:
    with closing(sqlite3.connect(file)) as database:
        return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_it_is_named_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    left(Path("runs.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    said = way_out("table _alembic_tmp_experiments already exists")
    assert said.startswith(
        f"{tmp_path}/runs.db is damaged: put a whole copy in its place; or delete it"
    )


def test_it_is_made_anew_where_it_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "SETTING_UP", 0.1)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mlflow.db").symlink_to("elsewhere/runs.db")
    assert left(tmp_path / "mlflow.db").experiment("maskgit").name == "maskgit"
    assert (tmp_path / "mlflow.db").is_symlink()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["runs.db"]


@pytest.mark.parametrize("used", [False, True])
def test_one_that_was_left_between_two_steps_is_made_anew_unless_it_holds_something(
    tmp_path, monkeypatch, used
):
    """MLflow takes it for an older version's."""
    monkeypatch.setattr(server, "SETTING_UP", 0.1)
    file = tmp_path / "mlflow.db"
    server._make_database(file)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '75868b020152'")
        if used:
            database.execute("UPDATE experiments SET name = 'mine'")
    found = Server(f"sqlite:///{file}")
    if used:
        with pytest.raises(Unsent, match="out-of-date database schema"):
            found.experiment("maskgit")
        assert rows_of(file, "experiments") == 1
    else:
        assert found.experiment("maskgit").name == "maskgit"


@pytest.mark.parametrize(
    "command",
    [
        "INSERT INTO secrets VALUES (0.5)",
        "CREATE TABLE experiments AS SELECT 0 AS experiment_id, 'mine' AS name",
        "CREATE TABLE theirs AS SELECT 1 AS row",
    ],
)
def test_what_somebody_put_there_stays(tmp_path, monkeypatch, command):
    monkeypatch.setattr(server, "SETTING_UP", 0.1)
    file = tmp_path / "mlflow.db"
    found = left(file, command)
    with pytest.raises(Unsent):
        found.experiment("maskgit")
    assert rows_of(file, command.split()[2]) == 1


def test_one_that_another_process_sets_up_stays(tmp_path, monkeypatch):
    file = tmp_path / "mlflow.db"
    found = left(file)

    def another_step(seconds: float) -> None:
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("CREATE TABLE one_more (x)")

    # Other threads of this process sleep too, so the module alone gets this clock.
    clock = SimpleNamespace(sleep=another_step, monotonic=time.monotonic)
    monkeypatch.setattr(server, "time", clock)
    with pytest.raises(Unsent, match="table secrets already exists"):
        found.experiment("maskgit")
    assert "one_more" in tables(file)


def test_one_that_is_filled_while_a_fresh_one_is_made_stays(tmp_path):
    file = tmp_path / "mlflow.db"
    left(file, "INSERT INTO secrets VALUES (0.5)")
    server._make_database(file)
    assert tables(file) == {"secrets"} and len(list(tmp_path.iterdir())) == 1


def test_what_a_process_was_killed_in_the_middle_of_is_taken_back(tmp_path):
    """Its journal lies beside the database: whoever opens it next has to write."""
    whole, killed, deleted = (tmp_path / f"{name}.db" for name in ("whole", "killed", "deleted"))
    Server(f"sqlite:///{whole}").experiment("maskgit")
    with closing(sqlite3.connect(whole, isolation_level=None)) as database:
        database.execute("PRAGMA cache_size = 1")
        database.execute("BEGIN")
        for number in range(2000):
            database.execute("INSERT INTO tags VALUES (?, ?, 'run')", (f"{number}", 500 * "x"))
        for end in ("", "-journal"):
            shutil.copyfile(f"{whole}{end}", f"{killed}{end}")
        shutil.copyfile(f"{whole}-journal", f"{deleted}-journal")
        database.execute("ROLLBACK")
    with (
        pytest.raises(sqlite3.OperationalError, match="readonly"),
        closing(sqlite3.connect(f"file:{killed}?mode=ro", uri=True)) as database,
    ):
        database.execute("PRAGMA schema_version")
    found = Server(f"sqlite:///{killed}")
    assert found.ask(lambda client: client.get_experiment_by_name("maskgit"))
    assert rows_of(killed, "tags") == 0
    # Where the database itself is deleted, SQLite would write that journal into the next.
    server._make_database(deleted)
    assert deleted.exists() and not Path(f"{deleted}-journal").exists()
