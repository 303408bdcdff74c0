"""What travels to nodes that do not see the project, and comes home, with a stand-in for Ray."""

import shutil
import sys
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.runtime import home
from pipeline.runtime import site as module
from pipeline.runtime.errors import UserError
from pipeline.runtime.home import Home, Project, listed
from pipeline.runtime.parcels import Parcel, call, pack
from pipeline.runtime.site import Site, send_home
from tests.two_nodes import Cluster


@dataclass(frozen=True)
class Job:
    """As stages have them: plain values, nested."""

    folder: str
    inside: dict[str, Path]
    steps: int = 3

    def log(self, row: str) -> None:
        Path(self.folder, "log.txt").write_text(row)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A project whose run directories lie elsewhere, as a job's do."""
    for name in ("project/data", "kept/runs/train/a", "project/other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "project/runs").symlink_to(tmp_path / "kept/runs")
    (tmp_path / "project/data/images.bin").write_bytes(b"pixels")
    (tmp_path / "project/other/large.bin").write_bytes(b"not needed")
    (tmp_path / "kept/runs/train/a/checkpoint.pt").write_bytes(b"step 1")
    return tmp_path / "project"


@pytest.fixture
def cluster(folder, monkeypatch) -> Cluster:
    monkeypatch.chdir(folder)
    return Cluster(folder, folder.parent / "kept/runs", ["data"], monkeypatch)


def job_of(folder: Path) -> Job:
    run = str(folder.parent / "kept/runs/train/a")
    return Job(run, {"data": folder / "data", "relative": Path("data")})


def train(job: Job) -> str:
    """What a worker does; it sees no path of home's."""
    run = Path(job.folder)
    assert "away" in job.folder and "away" in str(Path.cwd())
    assert (run / "checkpoint.pt").read_bytes() == b"step 1"
    content = (job.inside["relative"] / "images.bin").read_bytes()
    assert (job.inside["data"] / "images.bin").read_bytes() == content == b"pixels"
    (run / "checkpoint.pt").write_bytes(b"step 2")
    (run / "model").mkdir(exist_ok=True)
    (run / "model/weights").write_bytes(b"w" * 100)
    (run / ".lock").touch()
    return f"{job.steps} steps"


def test_a_worker_elsewhere_has_what_its_job_names_and_its_work_comes_home(cluster, folder):
    parcel = pack(job_of(folder))
    cluster.at("away")
    assert call(train, parcel) == "3 steps"
    run = folder.parent / "kept/runs/train/a"
    assert listed(run).keys() == {"checkpoint.pt", "model/weights"}
    assert (run / "checkpoint.pt").read_bytes() == b"step 2"
    assert not list((folder.parent / "away").rglob("large.bin"))
    link = next((folder.parent / "away").rglob("project")) / "runs/train/a/checkpoint.pt"
    assert link.read_bytes() == b"step 2"


def test_what_a_worker_made_is_at_home_though_it_fails(cluster, folder):
    def fail(job: Job) -> None:
        job.log("it diverged")
        raise UserError("stop")

    parcel = pack(job_of(folder))
    cluster.at("away")
    with pytest.raises(UserError, match="stop"):
        call(fail, parcel)
    assert (folder.parent / "kept/runs/train/a/log.txt").read_text() == "it diverged"


def test_what_is_there_already_does_not_travel_again(cluster, folder):
    parcel = pack(job_of(folder))
    cluster.at("away")
    for _ in range(2):
        with parcel.opened():
            pass
    assert cluster.calls.count("read") == 2  # the input and the checkpoint, once each
    assert "write" not in cluster.calls


def test_home_decides_what_a_worker_goes_on_from(cluster, folder):
    """One that was lost had written more than it sent: others would not know of it."""
    parcel = pack(job_of(folder))
    cluster.at("away")
    with pytest.raises(KeyboardInterrupt), parcel.opened() as (job,):
        Path(job.folder, "checkpoint.pt").write_bytes(b"step 9")
        Path(job.folder, "later.pt").touch()
        cluster.calls.clear()
        cluster._actor = Home(str(folder), str(folder.parent / "nowhere"))  # cut off
        raise KeyboardInterrupt
    cluster._actor = Home(str(folder), str(folder.parent / "kept/runs"))
    with parcel.opened() as (job,):
        assert listed(Path(job.folder)).keys() == {"checkpoint.pt"}
        assert Path(job.folder, "checkpoint.pt").read_bytes() == b"step 1"


def test_a_batch_that_another_worker_has_not_sent_yet_stays(cluster, folder):
    """Of two on one node, the second of which opens the run directory meanwhile."""
    parcel, run = pack(job_of(folder)), folder.parent / "kept/runs/train/a"
    cluster.at("away")
    with parcel.opened() as (job,):
        part = Path(job.folder, "set.npy.parts/000003.npy")
        part.parent.mkdir()
        part.write_bytes(b"images")
        with parcel.opened():
            assert part.read_bytes() == b"images"
    assert (run / "set.npy.parts/000003.npy").read_bytes() == b"images"


def test_parts_of_what_is_whole_at_home_are_gone_elsewhere(cluster, folder):
    parcel, run = pack(job_of(folder)), folder.parent / "kept/runs/train/a"
    cluster.at("away")
    with parcel.opened() as (job,):
        part = Path(job.folder, "set.npy.parts/000000.npy")
        part.parent.mkdir()
        part.write_bytes(b"images")
    shutil.rmtree(run / "set.npy.parts")
    (run / "set.npy").write_bytes(b"images")
    with parcel.opened():
        assert not part.exists()
    assert listed(run).keys() == {"checkpoint.pt", "set.npy"}


def test_a_checkpoint_is_sent_while_its_training_goes_on(cluster, folder):
    parcel = pack(job_of(folder))
    cluster.at("away")
    with parcel.opened() as (job,):
        path = Path(job.folder, "checkpoint.pt")
        path.write_bytes(b"step 5")
        send_home(path)
        assert (folder.parent / "kept/runs/train/a/checkpoint.pt").read_bytes() == b"step 5"


def test_what_others_have_sent_meanwhile_stays(cluster, folder):
    """Of the workers of a training the first one writes, perhaps on another node."""
    parcel, run = pack(job_of(folder)), folder.parent / "kept/runs/train/a"
    cluster.at("away")
    with parcel.opened() as (job,):
        (run / "checkpoint.pt").write_bytes(b"step 20")
        (run / "new").touch()
    assert (run / "checkpoint.pt").read_bytes() == b"step 20" and (run / "new").exists()
    assert Path(job.folder, "checkpoint.pt").read_bytes() == b"step 1"


def test_what_a_worker_removes_is_gone_at_home(cluster, folder):
    """An error of an earlier attempt, which would end the next one."""
    parcel, run = pack(job_of(folder)), folder.parent / "kept/runs/train/a"
    (run / "error.txt").touch()
    cluster.at("away")
    with parcel.opened() as (job,):
        Path(job.folder, "error.txt").unlink()
        pack(job)
        assert not (run / "error.txt").exists() and (run / "checkpoint.pt").exists()


def test_files_larger_than_a_message_arrive_whole_and_ask_for_three_parts_at_once(
    cluster, folder, monkeypatch
):
    for part in (home, module):
        monkeypatch.setattr(part, "CHUNK", 7)
    content = bytes(range(50))
    (folder / "data/images.bin").write_bytes(content)
    parcel = pack(job_of(folder))
    monkeypatch.setattr(cluster, "get", lambda answer: cluster.calls.append("got") or answer)
    cluster.at("away")
    with parcel.opened() as (job,):
        assert (job.inside["data"] / "images.bin").read_bytes() == content
        for size in (0, 6, 7, 8, 49):
            Path(job.folder, f"{size}.bin").write_bytes(content[:size])
    run = folder.parent / "kept/runs/train/a"
    for size in (0, 6, 7, 8, 49):
        assert (run / f"{size}.bin").read_bytes() == content[:size]
    assert not list(run.glob(".*"))
    assert max(accumulate(-1 if call == "got" else 1 for call in cluster.calls)) == 3


def test_a_worker_elsewhere_may_give_work_to_others(cluster, folder):
    """A trial of several workers: what it has made goes home first, and the answer comes back."""
    parcel = pack(job_of(folder))
    cluster.at("away")
    with parcel.opened() as (job,):
        Path(job.folder, "drawn.npy").write_bytes(b"images")
        inner = pack(Path(job.folder, "drawn.npy"), Path(job.folder, "features.st"))
        away = module.here()
    assert (folder.parent / "kept/runs/train/a/drawn.npy").read_bytes() == b"images"
    cluster.at("home")
    with inner.opened() as (drawn, features):
        assert drawn == folder.parent / "kept/runs/train/a/drawn.npy"
        features.write_bytes(drawn.read_bytes()[::-1])
    cluster.at("away", away)
    inner.take_back()
    assert Path(job.folder, "features.st").read_bytes() == b"segami"


def test_what_a_worker_took_from_others_and_removes_is_gone_at_home_too(cluster, folder):
    """The batches of a set, once they are joined."""
    parcel, run = pack(job_of(folder)), folder.parent / "kept/runs/train/a"
    cluster.at("away")
    with parcel.opened() as (job,):
        inner = pack(Path(job.folder, "set.npy.parts/000000.npy"))
        away = module.here()
        cluster.at("home")
        with inner.opened() as (part,):
            part.parent.mkdir()
            part.write_bytes(b"images")
        cluster.at("away", away)
        inner.take_back()
        mine = Path(job.folder, "set.npy.parts/000000.npy")
        Path(job.folder, "set.npy").write_bytes(mine.read_bytes())
        mine.unlink()
    assert listed(run).keys() == {"checkpoint.pt", "set.npy"}


def test_where_all_see_the_folder_nothing_is_sent(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it would fail
    module.forget_home()
    job = job_of(folder)
    parcel: Parcel = pack(job, job.log)
    with parcel.opened() as (there, log):
        assert there == job
        log("a row")
    assert Path(job.folder, "log.txt").read_text() == "a row"


def test_a_node_sees_the_folder_while_its_home_is_there(tmp_path, monkeypatch):
    """Only one that does not works in a copy, whatever the others see."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get_actor=lambda name: None))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    mark, storage = tmp_path / ".seen-home-1", tmp_path / "runs"
    beside = tmp_path / ".seen-home-2"
    project = Project(str(tmp_path), str(storage), "runs", (str(mark), str(beside)), "actor")
    for file in (mark, beside):
        file.touch()
    seeing = Site(project)
    assert not seeing.away and seeing.bases == (tmp_path, storage) and seeing.apart
    beside.unlink()  # of the run directories, where they lie elsewhere
    assert Site(project).away and not storage.exists()


def test_run_directories_outside_of_the_project_have_a_mark_of_their_own(tmp_path, monkeypatch):
    ends: list = []
    monkeypatch.setattr("atexit.register", lambda *call, **options: ends.append((call, options)))
    mark = tmp_path / "project/.seen-home-1"
    assert home.mark_beside(tmp_path / "project/runs", mark) == mark and ends == []
    beside = home.mark_beside(tmp_path / "fast/runs", mark)
    assert beside.exists() and beside.parent == tmp_path / "fast/runs"
    ((unlink,), options) = ends[0]
    unlink(**options)
    assert not beside.exists()


def test_run_directories_outside_of_the_project_are_in_the_copy_too(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get_actor=lambda name: None))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    storage = tmp_path / "fast/runs"
    site = Site(Project(str(tmp_path), str(storage), str(storage), ("no mark",), "actor"))
    assert not storage.exists() and site.path(site.place(str(site.bases[1] / "x"))).parent.is_dir()


def test_a_node_that_takes_no_copy_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get_actor=lambda name: None))
    (tmp_path / "caches").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    with pytest.raises(UserError, match=r"cannot write .*caches/maskgit/copies"):
        Site(Project("/on the head", "/on the head/runs", "runs", ("no mark",), "actor"))


def test_a_node_without_the_folder_is_one_line():
    site = Site(Project("/on the head alone", "/on the head alone/runs"))
    with pytest.raises(UserError, match=r"/on the head alone cannot be used on .* same path"):
        site.enter()
