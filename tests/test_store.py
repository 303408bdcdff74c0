"""Run directories are copied to an object store, from which a machine that lacks them has them."""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow.fs import FileSelector, FileSystem, FileType

from pipeline.runtime import courier, runs, store
from pipeline.runtime.courier import Courier
from pipeline.runtime.errors import UserError
from pipeline.runtime.runs import held, run_dir
from tests.job_elsewhere import KEYS, s3_store
from tests.project import ROOT, SECRET

KEY = {"params": {"seed": 0}}


@pytest.fixture(scope="module")
def server() -> str:
    with s3_store() as url:
        yield url


@pytest.fixture
def address(server, tmp_path, monkeypatch) -> str:
    for name, value in zip(KEYS, ("me", SECRET), strict=True):
        monkeypatch.setenv(name, value)
    host = server.removeprefix("http://")
    return f"s3://store/{tmp_path.name}?endpoint_override={host}&scheme=http&region=us-east-1"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(runs, "_held", {})
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


def of_train(address: str) -> Path:
    return run_dir("train", KEY, address)


def started(address: str, project: Path) -> Courier:
    return Courier(address, project / "runs", held)


def lose_machine(folder: Path) -> None:
    """The next process has none of the run directory."""
    runs._held.pop(folder).release()
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    own = store.NOT_COPIED
    return {str(f.relative_to(folder)): f.read_bytes() for f in files if f.name not in own}


def stored(address: str) -> set[str]:
    """The paths in the store, from the run directory on."""
    system, root = FileSystem.from_uri(address)
    everything = FileSelector(f"{root}/train", allow_not_found=True, recursive=True)
    found = system.get_file_info(everything)
    return {
        info.path.removeprefix(f"{root}/train/").partition("/")[2]
        for info in found
        if info.type == FileType.File and info.base_name != store.BY
    }


def wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_directory_that_is_lost_is_brought_back(address, project, capsys):
    folder = of_train(address)
    (folder / "parts/a b").mkdir(parents=True)
    (folder / "parts/a b/é.npy").write_bytes(b"")
    (folder / "checkpoint.pt").write_bytes(os.urandom(2 * store.CHUNK + 1))
    made = contents(folder)
    assert started(address, project).close() is None
    lose_machine(folder)
    assert of_train(address) == folder
    assert contents(folder) == made
    assert "2 files brought from s3://" in capsys.readouterr().out


def test_a_run_directory_that_is_here_stays_as_it_is(address, project, capsys):
    folder = of_train(address)
    (folder / "checkpoint.pt").write_bytes(b"old")
    assert started(address, project).close() is None
    (folder / "checkpoint.pt").write_bytes(b"newer")
    runs._held.pop(folder).release()
    assert (of_train(address) / "checkpoint.pt").read_bytes() == b"newer"
    assert "brought" not in capsys.readouterr().out


def test_bringing_goes_on_after_a_kill(address, project, monkeypatch):
    folder = of_train(address)
    for name in "abc":
        (folder / name).write_text(name)
    made = contents(folder)
    assert started(address, project).close() is None
    lose_machine(folder)
    fetch = store.Store.fetch

    def killed(self, name, path):
        if path.name == "b":
            raise KeyboardInterrupt
        fetch(self, name, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store.Store, "fetch", killed)
        of_train(address)
    runs._held.pop(folder).release()
    of_train(address)
    assert contents(folder) == made


def test_what_changes_and_goes_is_followed_there(address, project, monkeypatch):
    monkeypatch.setattr(courier, "ROUND", 0.05)
    folder = of_train(address)
    (folder / "part.npy").write_bytes(b"1")
    (folder / "kept.pt").write_bytes(b"2")
    copies = started(address, project)
    wait_for(lambda: stored(address) == {"part.npy", "kept.pt"})
    (folder / "part.npy").unlink()
    (folder / "checkpoint.pt").write_bytes(b"3")
    assert copies.close() is None
    assert stored(address) == {"kept.pt", "checkpoint.pt"}


def test_only_whole_files_of_the_run_are_copied(address, project, tmp_path):
    folder = of_train(address)
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    for path in (".checkpoint.pt.0123abcd.tmp", ".part.0123abcd.tmp/x", "tune/state.json"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("half")
    (folder / "whole").write_text("whole")
    assert started(address, project).close() is None
    assert stored(address) == {"whole"}


def test_a_copy_never_mixes_a_later_file_with_earlier_ones(address, project, monkeypatch):
    folder = of_train(address)
    (folder / "history").write_text("of step 1")
    (folder / "checkpoint.pt").write_text("of step 1")
    os.utime(folder / "history", ns=(0, 0))
    put = store.Store.put

    def while_the_run_goes_on(self, source, name):
        if name.endswith(store.BY):
            return
        for file in ("history", "checkpoint.pt"):
            (folder / f"{file}.new").write_text("of step 2")
            (folder / f"{file}.new").rename(folder / file)
        put(self, source, name)

    monkeypatch.setattr(store.Store, "put", while_the_run_goes_on)
    assert "it changed meanwhile" in started(address, project).close()
    assert stored(address) == {"history"}


def test_nothing_leaves_the_run_directory(address, project):
    folder = of_train(address)
    lose_machine(folder)
    system, root = FileSystem.from_uri(address)
    for name in ("../../evil", "a/../../evil", "key.json", ".lock", "good"):
        with system.open_output_stream(f"{root}/train/{folder.name}/{name}") as file:
            file.write(b"planted")
    of_train(address)
    assert set(contents(folder)) == {"good"}
    assert not list(project.rglob("evil"))


def test_a_store_that_is_away_stops_no_work_and_is_named(address, project):
    folder = of_train(address)
    (folder / "checkpoint.pt").write_bytes(b"1")
    host = address.partition("endpoint_override=")[2].partition("&")[0]
    gone = address.replace(host, "127.0.0.1:9")
    left = started(gone, project).close()
    assert left.startswith(f"not all of {project / 'runs'} is copied to s3://store/")
    assert "NETWORK_CONNECTION" in left and SECRET not in left
    assert (folder / "checkpoint.pt").read_bytes() == b"1"


@pytest.mark.parametrize(
    "change", [("store/", "no-such-bucket/"), ("region=", "planet="), ("s3://", "gs://")]
)
def test_a_store_that_cannot_be_used_is_one_line(address, change):
    with pytest.raises(UserError) as error:
        of_train(address.replace(*change))
    said = str(error.value)
    assert said.startswith("ray.storage_path: ") and "or set a folder such as runs" in said


def test_a_store_that_never_answers_is_given_up(address, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE", 0.5)
    monkeypatch.setattr(store.Store, "listed", lambda self, name: time.sleep(60))
    with pytest.raises(UserError, match=r"nothing arrived for 0\.5 s"):
        of_train(address)


def test_a_run_directory_that_cannot_be_seen_is_deleted_nowhere(address, project, monkeypatch):
    monkeypatch.setattr(courier, "ROUND", 0.05)
    folder = of_train(address)
    (folder / "checkpoint.pt").write_bytes(b"1")
    copies = started(address, project)
    wait_for(lambda: stored(address) == {"checkpoint.pt"})
    shutil.rmtree(folder)
    time.sleep(0.5)
    copies.close()
    assert stored(address) == {"checkpoint.pt"}


def test_a_file_that_cannot_be_read_to_its_end_replaces_no_copy(address):
    class Bad(io.BytesIO):
        def read(self, size=-1):
            if self.tell() >= 2 * store.CHUNK:
                raise OSError("bad sector")
            return super().read(size)

    whole = store.Store(address)
    whole.put(io.BytesIO(b"whole"), "train/k/checkpoint.pt")
    with pytest.raises(OSError, match="bad sector"):
        whole.put(Bad(bytes(3 * store.CHUNK)), "train/k/checkpoint.pt")
    system, root = FileSystem.from_uri(address)
    with system.open_input_stream(f"{root}/train/k/checkpoint.pt") as file:
        assert file.read() == b"whole"


def test_a_run_that_another_machine_has_gone_on_with_is_refused(address, project, tmp_path):
    here = of_train(address)
    (here / "checkpoint.pt").write_bytes(b"step 1")
    assert started(address, project).close() is None
    there = tmp_path / "there"
    shutil.copytree(here, there)
    lose_machine(here)
    assert (of_train(address) / "checkpoint.pt").read_bytes() == b"step 1"
    (here / "checkpoint.pt").write_bytes(b"step 2")
    assert started(address, project).close() is None
    lose_machine(here)
    shutil.copytree(there, here)  # the first machine comes back
    with pytest.raises(UserError, match="another machine has gone on with this run"):
        of_train(address)
    lose_machine(here)
    assert (of_train(address) / "checkpoint.pt").read_bytes() == b"step 2"


def test_what_is_taken_up_copies_what_changed_and_removes_what_is_gone(address, project):
    folder = of_train(address)
    for name in ("checkpoint.pt", "part", "kept"):
        (folder / name).write_bytes(b"1")
    assert started(address, project).close() is None
    runs._held.pop(folder).release()
    (folder / "part").unlink()
    (folder / "checkpoint.pt").write_bytes(b"2")
    os.utime(folder / "checkpoint.pt", ns=(0, 0))  # whatever its clock says
    of_train(address)
    assert started(address, project).close() is None
    assert stored(address) == {"checkpoint.pt", "kept"}
    lose_machine(folder)
    assert (of_train(address) / "checkpoint.pt").read_bytes() == b"2"


@pytest.mark.slow
def test_a_process_ends_soon_though_the_store_says_nothing(address, project):
    """The library waits for what is under way as the process ends."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = address.partition("endpoint_override=")[2].partition("&")[0]
        port = silent.getsockname()[1]
        code = f"""
from pathlib import Path
from pipeline.runtime.courier import Courier
folder = Path("runs/train/k").absolute()
folder.mkdir(parents=True)
for name in (".lock", "key.json", "a"):
    (folder / name).touch()
import time, pipeline.runtime.courier as courier
courier.ROUND = 0.1
address = {address.replace(host, f"127.0.0.1:{port}")!r}
copies = Courier(address, Path("runs").absolute(), lambda: [folder])
time.sleep(1)
print(copies.close(interrupted=True))
"""
        command, env = (sys.executable, "-c", code), os.environ | {"PYTHONPATH": str(ROOT)}
        said = subprocess.check_output(command, cwd=project, env=env, text=True, timeout=60)
    assert "there was no time" in said


def test_odd_objects_are_left_where_they_are(address, project):
    folder = of_train(address)
    lose_machine(folder)
    system, root = FileSystem.from_uri(address)
    for name in ("a", "a/b", "d/.", ".lock/x", "key.json/y", "x.tmp/z", "good"):
        with system.open_output_stream(f"{root}/train/{folder.name}/{name}") as file:
            file.write(b"planted")
    of_train(address)
    assert set(contents(folder)) == {"a", "good"}
