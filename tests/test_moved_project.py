"""A project that is moved or copied, with what was logged in it, goes on with its own database."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from pipeline.runtime.sync import sync
from pipeline.runtime.tracking import open_run
from pipeline.runtime.uris import DATABASE

from pipeline.runtime.errors import UserError
from tests.project import ROOT


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """A database that holds no run yet."""
    file = tmp_path_factory.mktemp("empty") / DATABASE
    MlflowClient(f"sqlite:///{file}").search_experiments(max_results=1)
    return file


@pytest.fixture(autouse=True)
def project(empty, tmp_path, monkeypatch) -> Path:
    """Whose folder is the working directory."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "old").mkdir()
    monkeypatch.chdir(tmp_path / "old")
    shutil.copy(empty, DATABASE)
    Path("params.yaml").write_text("a: 1\n")
    return tmp_path / "old"


def log(row: int) -> str:
    """What a stage logs that runs as far as a row, and is sent then."""
    folder = Path("runs/outbox").absolute()
    run = open_run("key", "stage", {"a": 1}, "experiment", folder)
    for step in range(row + 1):
        run.log_metrics({"loss": step / 2}, step)
        Path(f"curve{step}.txt").write_text(str(step))
        run.log_artifact(f"curve{step}.txt")
    run.finish(ok=True)
    return sync(folder)


def log_elsewhere(row: int) -> str:
    """As `log`, in a process of its own: MLflow's client notes places of artifacts."""
    code = f"from tests.test_moved_project import log; print(log({row}))"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.check_output((sys.executable, "-c", code), env=env, text=True)


def points() -> Counter:
    with closing(sqlite3.connect(DATABASE)) as db:
        return Counter(db.execute("SELECT run_uuid, key, step FROM metrics"))


def artifacts(folder: Path) -> set[str]:
    return {path.name for path in (folder / "mlruns").rglob("*.*") if path.is_file()}


@pytest.mark.parametrize("copied", [False, True])
def test_runs_go_on_in_the_project_that_was_moved_or_copied(project, monkeypatch, copied):
    log(row=1)
    before, new = artifacts(project), project.with_name("new ü")
    assert before == {"params.yaml", "curve0.txt", "curve1.txt"}
    shutil.copytree(project, new) if copied else project.rename(new)
    monkeypatch.chdir(new)
    assert "records sent" in log_elsewhere(row=2)
    assert len({run for run, _, _ in points()}) == 1
    assert sorted(step for _, _, step in points().elements()) == [0, 1, 2]
    assert artifacts(new) == before | {"curve2.txt"}
    assert artifacts(project) == before if copied else not project.exists()
    with closing(sqlite3.connect(DATABASE)) as db:
        places = db.execute("SELECT artifact_uri FROM runs").fetchall()
        places += db.execute("SELECT artifact_location FROM experiments WHERE name != 'Default'")
    assert all(place.startswith((new / "mlruns").as_uri()) for (place,) in places)


def test_what_waited_is_sent_to_the_project_s_own_database(project, monkeypatch):
    folder = Path("runs/outbox").absolute()
    open_run("key", "stage", {"a": 1}, "experiment", folder)
    new = project.rename(project.with_name("new"))
    monkeypatch.chdir(new)
    assert "3 records sent to sqlite:" in sync(Path("runs/outbox").absolute())
    assert Path(DATABASE).exists() and not project.exists()


def without_tags() -> None:
    """Older versions gave experiments no tag."""
    with closing(sqlite3.connect(DATABASE)) as db, db:
        db.execute("DELETE FROM experiment_tags")


def test_records_of_before_name_the_folder_that_they_were_in(project, monkeypatch):
    open_run("key", "stage", {"a": 1}, "experiment", Path("runs/outbox").absolute())
    for log in project.glob("runs/outbox/*/log.jsonl"):
        uri = f"sqlite:///{project / DATABASE}"
        log.write_text(log.read_text().replace('"uri": "own"', f'"uri": "{uri}"'))
    new = project.with_name("new")
    shutil.copytree(project, new)
    monkeypatch.chdir(new)
    assert "wait for sqlite:" in sync(Path("runs/outbox").absolute())  # the first is still there
    shutil.rmtree(project)
    assert "3 records sent to sqlite:" in sync(Path("runs/outbox").absolute())


def test_artifacts_of_before_follow_where_they_are_gone(project, monkeypatch):
    log(row=0)
    without_tags()
    new = project.rename(project.with_name("new"))
    monkeypatch.chdir(new)
    log_elsewhere(row=1)
    assert "curve1.txt" in artifacts(new) and not project.exists()


def test_artifacts_of_before_follow_once_a_stage_has_run(project, monkeypatch):
    log(row=0)
    without_tags()
    log_elsewhere(row=1)
    new = project.with_name("new")
    shutil.copytree(project, new)
    monkeypatch.chdir(new)
    log_elsewhere(row=2)
    assert "curve2.txt" in artifacts(new) - artifacts(project)


@pytest.mark.parametrize("shared", ["../runs", "linked"])
def test_projects_that_share_a_folder_of_runs_send_their_own(project, monkeypatch, shared):
    (project.parent / "runs").mkdir()
    other = project.with_name("other")
    shutil.copytree(project, other)
    for folder in (project, other):
        (folder / "linked").symlink_to("../runs")
    for folder in (project, other, project, other):
        monkeypatch.chdir(folder)
        outbox = Path(shared, "outbox").absolute()
        open_run("key", "stage", {"a": 1}, "experiment", outbox)
        sync(outbox)
    assert len(list((project.parent / "runs/outbox").glob("*"))) == 2
    for folder in (project, other):
        with closing(sqlite3.connect(folder / DATABASE)) as db:
            assert db.execute("SELECT COUNT(*) FROM runs").fetchone() == (1,)


def test_runs_that_are_moved_to_another_disk_and_linked_go_on(project, monkeypatch):
    monkeypatch.chdir(project)
    log(row=0)
    Path("runs").rename(project.parent / "disk")
    Path("runs").symlink_to(project.parent / "disk")
    log(row=1)
    assert sorted(step for _, _, step in points().elements()) == [0, 1]
    assert len(list(Path("runs/outbox").glob("*"))) == 1


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_the_project_s_database_is_one_place_by_whatever_name(
    project, monkeypatch, relative, first
):
    address = f"sqlite:///{DATABASE if relative else project / DATABASE}"
    for given in (first, not first):
        if given:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        else:
            monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        log(row=1)
    assert sorted(step for _, _, step in points().elements()) == [0, 1]
    assert len(list(Path("runs/outbox").glob("*"))) == 1


def test_a_database_that_is_busy_is_tried_again(project, monkeypatch):
    log(row=0)
    new = project.rename(project.with_name("new"))
    monkeypatch.chdir(new)
    folder = Path("runs/outbox").absolute()
    open_run("other", "stage", {}, "experiment", folder)
    with closing(sqlite3.connect(DATABASE, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="locked"):
            sync(folder)
    sync(folder)
    assert not project.exists()


def test_a_place_of_artifacts_that_the_user_chose_stays(project, monkeypatch, tmp_path):
    chosen = (tmp_path / "disk/mlruns").as_uri()
    MlflowClient(f"sqlite:///{project / DATABASE}").create_experiment("experiment", chosen)
    project.rename(project.with_name("new"))
    monkeypatch.chdir(project.with_name("new"))
    log(row=0)
    assert artifacts(tmp_path / "disk") == {"params.yaml", "curve0.txt"}


def test_projects_that_share_a_database_leave_each_other_s_artifacts(
    project, monkeypatch, tmp_path
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / DATABASE}")
    log(row=0)
    shutil.copytree(project, project.with_name("new"))
    monkeypatch.chdir(project.with_name("new"))
    log_elsewhere(row=1)
    assert "curve1.txt" in artifacts(project)


@pytest.mark.parametrize("odd", ["pipe", "folder", "link"])
def test_what_is_no_database_is_named_though_nothing_waits(project, odd):
    log(row=0)
    file = project / DATABASE
    file.unlink()
    {"pipe": os.mkfifo, "folder": os.mkdir, "link": lambda f: f.symlink_to(f)}[odd](file)
    with pytest.raises(UserError, match="put a whole copy in its place; or delete it"):
        sync(Path("runs/outbox").absolute())


def test_a_log_that_is_a_link_to_itself_is_named(project):
    log(row=0)
    (folder,) = Path("runs/outbox").glob("*")
    (folder / "log.jsonl").unlink()
    (folder / "log.jsonl").symlink_to("log.jsonl")
    with pytest.raises(UserError, match=r"log\.jsonl cannot be read"):
        sync(Path("runs/outbox").absolute())


def test_records_that_wait_for_the_own_database_are_named_by_its_address(project, monkeypatch):
    folder = Path("runs/outbox").absolute()
    open_run("key", "stage", {"a": 1}, "experiment", folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.parent / 'elsewhere.db'}")
    own = f"sqlite:///{project / DATABASE}"
    assert f"3 wait for {own}, which MLFLOW_TRACKING_URI has to name" in sync(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own)
    assert "3 records sent" in sync(folder)
