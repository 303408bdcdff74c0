"""What travels to a cluster: the code as git lists it, and data through the default DVC remote."""

import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.config.presets import apply_preset
from pipeline.runtime.dag import stages_up_to
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_yaml
from pipeline.runtime.node_checkout import Remote, cache_folder, default_remote
from pipeline.runtime.process import THREADS
from pipeline.runtime.runs import provenance
from pipeline.tools.submit import package
from pipeline.tools.submit.job import main as job
from pipeline.tools.submit.order import FILE, KEY, Order
from pipeline.tools.submit.package import tracked_files, write_package
from pipeline.tools.submit.remote import push, use_remote
from tests.project import ROOT


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A repository of git as the working directory."""
    subprocess.run(("git", "init", "-q", tmp_path / "home"), check=True)
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def test_the_package_holds_what_git_lists_and_no_history(folder):
    Path(".gitignore").write_text("data/\n")
    for name in ("code.py", "data/x", "gone.py", "a b/ü.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    subprocess.run(("git", "add", "gone.py"), check=True)
    (folder / "gone.py").unlink()
    write_package(folder / "../p.zip", tracked_files(), b"sealed")
    names = zipfile.ZipFile(folder / "../p.zip").namelist()
    assert sorted(names) == [".gitignore", "a b/ü.py", "code.py", FILE]


def test_more_than_ray_takes_is_one_line_that_names_the_largest(folder, monkeypatch):
    monkeypatch.setattr(package, "MOST", 2**20)
    Path("small.py").write_text("x")
    Path("large.bin").write_bytes(random.Random(0).randbytes(2 * 2**20))
    with pytest.raises(UserError, match="is 2 MiB packed, 2 of them large"):
        write_package(folder / "../p.zip", tracked_files(), b"")


def test_without_git_a_job_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="git does not know this folder"):
        tracked_files()


def test_without_git_commit_and_flag_are_unknown_unless_they_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (None, str(tmp_path)):  # no repository; no git at all
        if path:
            monkeypatch.setenv("PATH", path)
        origin = provenance()
        assert (origin["git.commit"], origin["git.dirty"]) == ("unknown", "unknown")
    monkeypatch.setenv("MASKGIT_COMMIT", "abc")
    monkeypatch.setenv("MASKGIT_DIRTY", "false")
    origin = provenance()
    assert (origin["git.commit"], origin["git.dirty"]) == ("abc", "false")


def test_a_stage_comes_after_all_that_it_needs(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert stages_up_to(None) == list(read_yaml("dvc.yaml")["stages"]) == stages_up_to("analysis")
    assert stages_up_to("schedules") == ["schedules"]
    needed = ["schedules", "prepare", "train_classifier", "features", "train_tokenizer"]
    needed.append("cache_tokens")
    assert stages_up_to("sweep") == [*needed, "sweep"]


DAG = """
stages:
  one:
    cmd: cp in one && cp in picture && echo run >> runs.log
    deps: [in]
    outs: [one]
    plots: [picture: {cache: false}]
  two: {cmd: cp one two && echo run >> runs.log, deps: [one], outs: [two]}
"""


@pytest.fixture
def project(folder) -> Path:
    """A small DAG of DVC's, with a default remote."""
    Path("in").write_text("content")
    Path("dvc.yaml").write_text(DAG)
    apply_preset("smoke", Path("params.yaml"))
    Path("store").mkdir()
    Repo.init().close()
    for words in ("remote add --default store store", "config core.analytics false"):
        subprocess.run(("dvc", *words.split()), check=True, capture_output=True)
    return folder


def test_what_was_pushed_is_computed_nowhere_else(project, tmp_path, monkeypatch):
    """Also what git holds in place of DVC, which `dvc push` leaves out."""
    subprocess.run(("dvc", "repro"), check=True, capture_output=True)
    remote = default_remote()
    assert (remote.name, remote.url) == ("store", str(project / "store"))
    assert push(remote) > 0
    other = tmp_path / "other"
    (other / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(other)
    for name in ("in", "dvc.yaml"):
        Path(name).write_bytes((project / name).read_bytes())
    use_remote(remote, tmp_path / "cache")
    assert Path(".dvc/config.local").stat().st_mode & 0o777 == 0o600
    subprocess.run(("dvc", "repro", "--pull"), check=True, capture_output=True)
    assert not Path("runs.log").exists() and Path("picture").read_text() == "content"
    assert Path("dvc.lock").read_bytes() == (project / "dvc.lock").read_bytes()


def run_job(package: Path) -> subprocess.CompletedProcess:
    """Send the project in the working directory to a job that unpacks it there."""
    key, sealed = Order(None, {}, default_remote()).sealed()
    Path(".gitignore").write_text("store\n")
    write_package(package.with_suffix(".zip"), tracked_files(), sealed)
    zipfile.ZipFile(package.with_suffix(".zip")).extractall(package)
    return subprocess.run(
        (sys.executable, "-m", "pipeline.tools.submit.job", "."),
        cwd=package,
        env=os.environ | {KEY: key, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_a_job_that_fails_keeps_what_was_finished_and_leaves_no_keys(
    project, tmp_path, monkeypatch
):
    Path("dvc.yaml").write_text(DAG.replace("cp one two", "echo 7 > runs/step && exit 3"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "away"))
    kept = cache_folder(default_remote())
    ended = run_job(tmp_path / "package")
    assert ended.returncode and "failed to reproduce 'two'" in ended.stdout + ended.stderr
    assert kept.stat().st_mode & 0o777 == 0o700 and (kept / "runs/step").read_text() == "7\n"
    assert not (tmp_path / "package/.dvc/config.local").exists()
    Path("runs").mkdir()
    shown = subprocess.run(("dvc", "repro", "--pull"), capture_output=True, text=True, check=False)
    assert "Stage 'one' is cached" in shown.stdout and Path("one").read_text() == "content"


@pytest.mark.parametrize(
    ("away", "told", "wanted"), [("1", None, "all"), ("1", "1", "1"), ("4", None, "4")]
)
def test_a_job_has_the_threads_of_home(folder, tmp_path, away, told, wanted):
    """Ray starts a job with one, and what one thread computes is rounded otherwise than by two."""
    Path("dvc.yaml").write_text(
        f"stages: {{one: {{cmd: printenv {THREADS} > one || echo all > one}}}}"
    )
    Repo.init().close()
    key, sealed = Order(None, {THREADS: told} if told else {}, None).sealed()
    (tmp_path / FILE).write_bytes(sealed)
    subprocess.run(
        (sys.executable, "-m", "pipeline.tools.submit.job", str(tmp_path)),
        env=os.environ | {KEY: key, THREADS: away, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    assert Path("one").read_text() == f"{wanted}\n"


def test_a_remote_that_takes_nothing_is_one_line(project):
    Path("store").rmdir()
    Path("store").write_text("a file")
    subprocess.run(("dvc", "repro"), check=True, capture_output=True)
    with pytest.raises(UserError, match=f"cannot push to {project}/store: "):
        push(Remote("store", {"url": str(project / "store")}))


def test_a_password_of_a_remote_is_in_no_error(project, monkeypatch):
    url = "webdav://me:s3/cr3t@host/store"

    def refuses(*arguments, **named):
        raise ConnectionError(f"cannot reach {url}")

    monkeypatch.setattr(Repo, "push", refuses)
    with pytest.raises(UserError) as raised:
        push(Remote("store", {"url": url}))
    shown = "webdav://me:***@host/store"
    assert str(raised.value) == f"cannot push to {shown}: ConnectionError: cannot reach {shown}"


def test_a_local_remote_that_the_cluster_does_not_see_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key, sealed = Order(None, {}, Remote("store", {"url": "/nowhere/store"})).sealed()
    (tmp_path / FILE).write_bytes(sealed)
    for name, value in {KEY: key, "PYTHONPATH": "", "PATH": "/bin"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="no folder /nowhere/store"):
        job(tmp_path)


def test_jobs_with_one_remote_share_a_folder_and_others_do_not(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, other = (cache_folder(Remote("store", {"url": url})) for url in ("s3://a", "s3://b"))
    assert first.parent == other.parent == tmp_path / "maskgit" and first != other
    assert first == cache_folder(Remote("elsewhere", {"url": "s3://a"}))
