"""What a disk, or somebody's hand, damaged in the outboxes costs no other record and no other file,
and is said in a line."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pipeline.runtime.delivery import Delivery
from pipeline.runtime.outbox import LOG, Outbox
from pipeline.runtime.sync import sync
from pipeline.runtime.tracking import Run, open_run

from pipeline.runtime.errors import UserError
from tests.damage import within
from tests.test_outbox import COPY, DAMAGED, OPENED, line
from tests.tracking_server import FakeServer

SENT = "sent.json"
every_damage = pytest.mark.parametrize(("damage", "why"), DAMAGED.values(), ids=list(DAMAGED))


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    with within(30):
        yield


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "runs/outbox"


def begin(folder: Path, name: str = "stage") -> Run:
    run = open_run(name, name, {"a": 1}, "experiment", folder)
    run.log_metrics({"loss": 0.5}, 1)
    return run


def end(run: Run) -> Path:
    run.log_metrics({"loss": 0.25}, 2)
    run.finish(ok=True)
    return run.outbox.folder


def damage_log(outbox: Path, damage: bytes) -> None:
    with open(outbox / LOG, "ab") as log:
        log.write(damage)


def damage_first(outbox: Path, damage: bytes) -> None:
    _, *others = (outbox / LOG).read_bytes().splitlines(keepends=True)
    (outbox / LOG).write_bytes(b"".join([damage, *others]))


def check(server: FakeServer, *names: str) -> None:
    """Each run is there once, with all that was logged, in order."""
    assert sorted(run.name for run in server.runs.values()) == sorted(names)
    for name in names:
        run = server.run(name)
        assert [(v, step) for _, v, step, _ in run.metrics] == [(0.5, 1), (0.25, 2)]
        assert (run.params, run.files) == ({"a": "1"}, {"params.yaml": "a: 1\n"})
        assert run.status == "FINISHED"


def not_all_sent(folder: Path) -> str:
    """What `sync` says, and ends with 1, where nothing of a run can be sent."""
    with pytest.raises(UserError) as error:
        sync(folder)
    return str(error.value)


@every_damage
def test_a_damaged_record_is_left_out_and_named_and_nothing_else(server, folder, damage, why):
    run = begin(folder)
    damage_log(run.outbox.folder, damage)
    outbox = end(run)
    end(begin(folder, "younger"))
    said = sync(folder)
    assert re.search(rf"{outbox / LOG}: 1 damaged record is left out \(line 5: [^;]*{why}", said)
    assert "12 records sent" in said and "\n" not in said and "refused" not in said
    check(server, "stage", "younger")
    assert sync(folder) == "0 records sent to http://127.0.0.1:5000"


def test_damaged_records_are_counted_also_where_the_server_goes_away(server, folder):
    run = begin(folder)
    damage_log(run.outbox.folder, b"7\n" * 3000)
    end(run)
    server.fails = lambda request: "down" if request == "set_terminated" else None
    with pytest.raises(UserError) as error:
        sync(folder)
    assert f"{run.outbox.log}: 3000 damaged records are left out (line 5: " in str(error.value)
    assert "1 of 6 records are still to be sent" in str(error.value)
    server.fails = lambda request: None
    assert "1 records sent" in sync(folder)
    check(server, "stage")


@every_damage
def test_a_run_whose_first_record_is_damaged_is_named_and_the_others_are_sent(
    server, folder, damage, why
):
    broken = end(begin(folder))
    damage_first(broken, damage)
    end(begin(folder, "younger"))
    before = (broken / LOG).read_bytes()
    for _ in range(2):
        said = not_all_sent(folder)
        assert f"{broken / LOG}: nothing of it can be sent, its first record is damaged" in said
        assert why in said and said.endswith(f"delete the folder {broken}")
        check(server, "younger")
    assert (broken / LOG).read_bytes() == before and list(broken.glob("files/*/params.yaml"))
    shutil.rmtree(broken)
    assert sync(folder) == "0 records sent to http://127.0.0.1:5000"


def test_a_log_without_a_whole_record_is_named(server, folder):
    (folder / "half").mkdir(parents=True)
    (folder / "half" / LOG).write_bytes(b'{"time": 1, "open"')
    end(begin(folder))
    assert f"; {folder / 'half' / LOG} holds no whole record; delete the folder" in sync(folder)


def test_a_stage_says_what_is_damaged(server, folder):
    broken = end(begin(folder, "broken"))
    damage_first(broken, b"7\n")
    started = Delivery(folder)
    run = begin(folder)
    damage_log(run.outbox.folder, b"7\n")
    end(run)
    said = started.close()
    assert f"{run.outbox.log}: 1 damaged record is left out" in said
    assert f"delete the folder {broken}" in said and "still to be sent" not in said
    check(server, "stage")


def everything_below(folder: Path) -> dict[str, bytes]:
    own = ("sent.json", "sending.lock", "log.lock")
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in own)
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "artifact",
    [
        "../../victim/ab/precious.txt",
        "/{root}/victim/ab/precious.txt",
        "absent.txt",
        "../absent.txt",
        "a",
        ".",
        "",
        "files/ab/..",
        "files/../log.jsonl",
        "files/ab/../../log.jsonl",
        "files//absent.txt",
        "files/linked/precious.txt",
        "files/abcd/precious.txt",  # the folder is a link
        "files/cd/precious.txt",  # the file is one
        "files/cd/a\0b",
        "files/ab/folder",
    ],
)
def test_only_what_an_outbox_copied_is_read_or_removed(server, folder, tmp_path, artifact):
    victim = tmp_path / "runs/victim/ab"
    victim.mkdir(parents=True)
    (victim / "precious.txt").write_text("precious")
    run = begin(folder)
    sync(folder)
    files = run.outbox.folder / "files"
    (files / "cd").mkdir(parents=True)
    (files / "ab/folder").mkdir(parents=True)
    (files / "ab/folder/a.txt").write_text("a")
    (files / "abcd").symlink_to(victim)
    (files / "cd/precious.txt").symlink_to(victim / "precious.txt")
    named = artifact.replace("/{root}", str(tmp_path))
    digest = "157fc55121ab2c59852c35d78aca98d840047e5d9668c423e4d3b146e1577901"
    damage_log(run.outbox.folder, line({"time": 1, "artifact": named, "hash": digest}))
    end(run)
    before = everything_below(tmp_path)
    assert "1 damaged record is left out (line 5: artifact is no file of" in sync(folder)
    assert everything_below(tmp_path) == before
    check(server, "stage")


def test_a_damaged_record_costs_no_copy_of_another(server, folder):
    """It names a file beside one that is still to be sent."""
    run = open_run("stage", "stage", {"a": 1}, "experiment", folder)
    (copy,) = run.outbox.folder.glob("files/*/params.yaml")
    log = run.outbox.log.read_bytes().splitlines(keepends=True)
    beside = {"artifact": str(copy.relative_to(run.outbox.folder).with_name("b.txt"))}
    run.outbox.log.write_bytes(b"".join([*log[:2], line(COPY | beside), *log[2:]]))
    sync(folder)
    assert server.run("stage").files == {"params.yaml": "a: 1\n"}


def make_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_linked_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to(path.with_name("pipe"))


no_files = pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, make_zero, make_linked_pipe])


@no_files
def test_a_log_that_is_no_file_is_named_and_the_others_are_sent(server, folder, make):
    broken = end(begin(folder))
    (broken / LOG).unlink()
    make(broken / LOG)
    end(begin(folder, "younger"))
    said = not_all_sent(folder)
    assert f"{broken / LOG} is no file, but a folder, pipe or device; delete {broken}" in said
    check(server, "younger")
    with pytest.raises(UserError, match=f"no file.*delete {broken}"):
        Outbox(broken).append_metrics({"loss": 1.0}, 1)
    shutil.rmtree(broken)
    end(begin(folder))
    sync(folder)
    check(server, "stage", "younger")


@no_files
def test_a_note_that_is_no_file_is_named_and_the_others_are_sent(
    server, folder, make: Callable[[Path], None]
):
    end(begin(folder, "older"))
    broken = end(begin(folder))
    make(broken / SENT)
    end(begin(folder, "younger"))
    said = not_all_sent(folder)
    assert f"{broken / SENT} is no file, but a folder, pipe or device; delete it" in said
    assert "make room" not in said and "start the server" not in said
    check(server, "older", "younger")
    (broken / SENT).rmdir() if make is Path.mkdir else (broken / SENT).unlink()
    assert sync(folder) == "6 records sent to http://127.0.0.1:5000"
    check(server, "older", "stage", "younger")


@pytest.mark.parametrize("deleted", [True, False])
def test_the_children_of_a_run_that_cannot_be_sent_are_sent(server, folder, deleted):
    run = begin(folder)
    child = run.child("stage/trial", "trial", {"a": 1}).begin()
    child.log_artifact("params.yaml")
    child.log_metrics({"loss": 0.5}, 1)
    end(child)
    broken = end(run)
    damage_first(broken, b"7\n")
    if deleted:
        shutil.rmtree(broken)
    said = sync(folder) if deleted else not_all_sent(folder)
    assert ("nothing of it can be sent" in said) is not deleted
    check(server, "trial")


@pytest.mark.parametrize("circle", [{"a": "b", "b": "a"}, {"c": "c"}], ids=["two", "itself"])
def test_runs_that_are_each_others_parents_stop_no_other(server, folder, circle):
    end(begin(folder))
    uri = "http://127.0.0.1:5000"
    for name, parent in circle.items():
        Outbox(folder / name).append_open(OPENED | {"uri": uri, "parent": parent, "key": name})
    said = not_all_sent(folder)
    assert said.count("the runs above it are a circle; delete the folder") == len(circle)
    check(server, "stage")


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"garbage" * 100,
        lambda whole: whole[:5000],
        lambda whole: b"x",
        lambda whole: whole.replace(b"run_uuid", b"xun_uuid"),
    ],
    ids=["garbage", "cut", "a byte", "a column"],
)
def test_a_damaged_database_is_named_with_the_way_out(monkeypatch, tmp_path, folder, damage):
    monkeypatch.chdir(tmp_path)
    database = tmp_path / "runs.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    Path("params.yaml").write_text("a: 1\n")
    run = begin(folder)
    assert "4 records sent" in sync(folder)
    database.write_bytes(damage(database.read_bytes()))
    run.log_metrics({"loss": 0.25}, 2)
    said = not_all_sent(folder)
    if database.read_bytes().startswith(b"SQLite"):
        assert f"{database} is damaged: put a whole copy in its place; or delete it" in said
    else:  # it may be any other file
        assert f"{database} does not look like a database: mend MLFLOW_TRACKING_URI" in said
        assert "delete" not in said
    assert "start the server" not in said
    database.unlink()
    assert "5 records sent" in sync(folder)
