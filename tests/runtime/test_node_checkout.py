"""Workers find the project in the driver's folder, or in their node's own checkout."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from dvc.repo import Repo

from pipeline.runtime import node_checkout
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import file_hash
from pipeline.runtime.node_checkout import JOB, Checkout, Remote, checkout, default_remote, enter
from pipeline.runtime.storage import open_storage, use_storage
from tests.errors import refused
from tests.project import SECRET

pytestmark = pytest.mark.slow

DAG = """
stages:
  one: {cmd: mkdir made && echo 1 > made/a && echo 2 > made/b, outs: [made]}
  two: {cmd: cp made/a two, deps: [made], outs: [two]}
"""


@pytest.fixture(autouse=True)
def node(monkeypatch):
    """A replacement for Ray, on a node whose id a test may change."""
    here = SimpleNamespace(id="head")
    context = SimpleNamespace(get_node_id=lambda: here.id)
    ray = SimpleNamespace(get_runtime_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray", ray)
    node_checkout.enter.cache_clear()
    monkeypatch.setattr(node_checkout, "_entered", None)
    monkeypatch.setattr(node_checkout, "_running", Checkout(""))  # another test may set it
    yield here
    use_storage(None)


@pytest.fixture
def job(tmp_path, monkeypatch) -> Checkout:
    """The `Checkout` that the driver of stage `two` sends in a job, after `one` was pushed."""
    (home := tmp_path / "home").mkdir()
    monkeypatch.chdir(home)
    for name in ("DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    Path("dvc.yaml").write_text(DAG)
    Path("params.yaml").write_text("{}")
    Repo.init(no_scm=True).close()
    (tmp_path / "store").mkdir()
    remote = ("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    for command in (remote, ("dvc", "repro", "one"), ("dvc", "push")):
        subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv(JOB, "1")
    monkeypatch.setenv("DVC_STAGE", "two")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    open_storage("memory://runs", home / "runs")
    return checkout()


@pytest.fixture
def other(node, job, tmp_path, monkeypatch) -> Path:
    """The working directory that Ray creates on another node, which lacks the driver's folder."""
    shutil.move(job.folder, tmp_path / "elsewhere")
    (unpacked := tmp_path / "unpacked").mkdir()
    monkeypatch.chdir(unpacked)
    Path(".dvc").mkdir()
    Path("dvc.yaml").write_text(DAG)
    node.id = "other"
    return unpacked


def test_a_node_pulls_what_the_stage_needs_once(other, job, tmp_path):
    enter(job)
    assert Path.cwd() == other and Path(job.folder).samefile(other)
    assert (other / "made/b").read_text() == "2\n" and not (other / "two").exists()
    shutil.rmtree(tmp_path / "store")
    node_checkout.enter.cache_clear()  # like another worker on this node
    enter(job)
    assert (other / "made/a").read_text() == "1\n"


def test_no_storage_and_a_remote_that_does_not_answer_are_one_line(other, job):
    with refused("ray.storage_path"):
        enter(replace(job, storage=None))
    remote = Remote("store", {"url": f"s3://me:{SECRET}@nowhere/x", "secret": SECRET})
    with pytest.raises(UserError, match="cannot pull from it") as error:
        enter(replace(job, remote=remote))
    assert SECRET not in f"{error.value} {remote}"


def test_the_drivers_own_node_works_in_its_folder(job, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    enter(job)
    assert str(Path.cwd()) == job.folder
    with refused(tmp_path / "none", way_out="DVC remote"):  # the node lacks this folder
        enter(Checkout(str(tmp_path / "none")))


def test_code_that_changed_since_the_stage_began_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("code.py").write_text("1")
    begun = Checkout(str(tmp_path), "two", (("code.py", file_hash("code.py")),))
    enter(begun)
    node_checkout.enter.cache_clear()
    Path("code.py").write_text("2")
    with pytest.raises(UserError, match=r"code\.py"):
        enter(begun)


def test_the_default_remote_is_dvcs(job, monkeypatch):
    assert default_remote() == job.remote and job.remote.name == "store"
    subprocess.run(("dvc", "config", "--unset", "core.remote"), check=True)
    assert default_remote() is None
