"""The job that `maskgit submit` starts: what the job pulls, runs, pushes and leaves behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from dvc.config import Config
from dvc.repo import Repo

from pipeline.config.presets import apply_preset
from pipeline.runtime.node_checkout import Remote, cache_folder, default_remote
from pipeline.runtime.process import THREADS
from pipeline.tools.job import KEY, ORDER, Order, main, push
from tests.errors import refused
from tests.project import ROOT

DAG = """
stages:
  one: {cmd: cp in one && echo run >> runs.log, deps: [in], outs: [one]}
  picture: {cmd: cp one picture, deps: [one], plots: [picture: {cache: false}]}
  two: {cmd: cp one two && echo run >> runs.log, deps: [one], outs: [two]}
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A small DVC project in a git repository, with a default remote."""
    home = tmp_path / "home"
    subprocess.run(("git", "init", "-q", home), check=True)
    monkeypatch.chdir(home)
    Path("in").write_text("content")
    Path("dvc.yaml").write_text(DAG)
    apply_preset("smoke", Path("params.yaml"))
    Path("store").mkdir()
    Repo.init().close()
    with Config(".dvc").edit("repo") as config:
        remotes = {"store": {"url": str(home / "store")}}
        config.update({"core": {"remote": "store", "analytics": False}, "remote": remotes})
    return home


def run_job(order: Order, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    key, sealed = order.sealed()
    (folder / ORDER).write_bytes(sealed)
    return subprocess.run(
        (sys.executable, "-m", "pipeline.tools.job", str(folder)),
        cwd=folder if order.remote else None,
        env=os.environ | {KEY: key, "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_job_that_fails_keeps_what_was_finished_and_leaves_no_keys(
    project, tmp_path, monkeypatch
):
    Path("dvc.yaml").write_text(
        DAG.replace("cp one two", "stat -c %a .dvc/config.local > runs/step; exit 3")
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "away"))
    remote, package = default_remote(), tmp_path / "package"
    assert (remote.name, remote.url) == ("store", str(project / "store"))
    shutil.copytree(project, package, ignore=shutil.ignore_patterns(".git", "store"))
    ended = run_job(Order(None, {}, remote), package)
    assert ended.returncode and "failed to reproduce 'two'" in ended.stdout + ended.stderr
    kept = cache_folder(remote)
    assert kept.stat().st_mode & 0o777 == 0o700 and (kept / "runs/step").read_text() == "600\n"
    assert not (package / ".dvc/config.local").exists() and not (package / ORDER).exists()
    Path("runs").mkdir()
    shown = subprocess.run(("dvc", "repro", "--pull"), capture_output=True, text=True, check=False)
    # Even outputs with `cache: false`, which `dvc push` leaves out.
    for name in ("one", "picture"):
        assert f"Stage '{name}' is cached" in shown.stdout
        assert Path(name).read_text() == "content"


@pytest.mark.slow
@pytest.mark.parametrize(("told", "wanted"), [("", "all"), ("1", "1")])
def test_a_job_has_the_threads_of_home(project, tmp_path, told, wanted):
    """Ray starts a job with one thread, whose results differ by rounding from two threads'."""
    Path("dvc.yaml").write_text(
        f"stages: {{one: {{cmd: printenv {THREADS} > one || echo all > one}}}}"
    )
    order = Order(None, {THREADS: told} if told else {}, None)
    assert run_job(order, tmp_path, **{THREADS: "1"}).returncode == 0
    assert Path("one").read_text() == f"{wanted}\n"


@pytest.mark.slow
def test_a_remote_that_takes_nothing_is_a_line_without_its_password(project, monkeypatch):
    url = "webdav://me:s3/cr3t@host/store"

    refuses = Mock(side_effect=ConnectionError(f"cannot reach {url}"))
    monkeypatch.setattr(Repo, "push", refuses)
    with refused("webdav://me:***@host/store") as raised:
        push(Remote("store", {"url": url}))
    assert "s3/cr3t" not in str(raised.value)


def test_a_local_remote_that_the_cluster_does_not_see_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key, sealed = Order(None, {}, Remote("store", {"url": "/nowhere/store"})).sealed()
    (tmp_path / ORDER).write_bytes(sealed)
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setenv(KEY, key)
    with refused("the DVC remote 'store'"):
        main(tmp_path)
