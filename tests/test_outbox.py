"""What is logged lies on disk at once, whole, and once."""

import json
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from pipeline.runtime.outbox import LOG, Outbox, _lines, read_records

from pipeline.runtime.errors import UserError

OPENED: dict[str, Any] = {
    "uri": "u",
    "experiment": "e",
    "key": "k",
    "name": "n",
    "parent": None,
    "tags": {},
}
ROW = {"time": 1, "metrics": {"loss": 1.0}, "step": 1}
COPY = {"time": 1, "artifact": "files/ab12/a.png", "hash": "0"}


def line(record: object) -> bytes:
    return json.dumps(record).encode() + b"\n"


def opened(**changed: object) -> bytes:
    return line({"time": 1, "open": OPENED | changed})


# A line of a log that no outbox writes, and what is said of it.
DAMAGED = {
    "number": (b"7\n", "none that is logged"),
    "list": (b"[1,2]\n", "none that is logged"),
    "list of a kind": (b'["open"]\n', "none that is logged"),
    "empty": (b"{}\n", "none that is logged"),
    "two kinds": (line(ROW | {"params": {}}), "none that is logged"),
    "deep": (b"[" * 200_000 + b"\n", "no JSON"),
    "not UTF-8": (b'{"time":1,"tags":{"a":"\xff\xfe"}}\n', "no JSON"),
    "half a letter": (b'{"time":1,"tags":{"a":"\\ud800"}}\n', "no JSON"),
    "many digits": (b'{"time":1,"metrics":{"a":' + b"9" * 5000 + b'},"step":1}\n', "no JSON"),
    "no step": (b'{"time":1,"metrics":{"loss":1}}\n', "metrics are no numbers of a step"),
    "huge metric": (line(ROW | {"metrics": {"a": 10**400}}), "metrics are no numbers"),
    "huge step": (line(ROW | {"step": 10**400}), "metrics are no numbers of a step"),
    "metric that is a text": (line(ROW | {"metrics": {"a": "b"}}), "metrics are no numbers"),
    "metrics that are a list": (line(ROW | {"metrics": [1]}), "metrics are no numbers"),
    "no time": (b'{"tags":{}}\n', "time is no number"),
    "time that is a text": (line(ROW | {"time": "now"}), "time is no number"),
    "huge time": (line(ROW | {"time": 10**400}), "time is no number"),
    "params that are a list": (line({"time": 1, "params": ["a"]}), "params are no texts"),
    "param that is a number": (line({"time": 1, "params": {"a": 1}}), "params are no texts"),
    "tags that are a list": (line({"time": 1, "tags": ["a"]}), "tags are no texts"),
    "tags that are null": (line({"time": 1, "tags": None}), "tags are no texts"),
    "tag that is a number": (line({"time": 1, "tags": {"a": 1}}), "tags are no texts"),
    "dataset that is a list": (line({"time": 1, "dataset": [1]}), "dataset has no name"),
    "dataset without a name": (line({"time": 1, "dataset": {"digest": "a"}}), "dataset has no"),
    "end that is none": (line({"time": 1, "end": ["FINISHED"]}), "end is no run's end"),
    "artifact that is a number": (line(COPY | {"artifact": 1}), "artifact is no file of"),
    "artifact without a hash": (line({"time": 1, "artifact": "files/ab12/a"}), "is no file of"),
    "artifact with a long name": (line(COPY | {"artifact": f"files/a/{'a' * 300}"}), "is no file"),
    "picture with a path": (line(COPY | {"image": "../a", "step": 1}), "artifact is no file of"),
    "picture without a step": (line(COPY | {"image": "a"}), "artifact is no file of"),
    "open that is a number": (b'{"time":1,"open":5}\n', "open does not say"),
    "open that is null": (b'{"time":1,"open":null}\n', "open does not say"),
    "no uri": (b'{"time":1,"open":{"experiment":"e"}}\n', "open does not say"),
    "uri that is a number": (opened(uri=5), "open does not say"),
    "experiment that is null": (opened(experiment=None), "open does not say"),
    "parent that is a number": (opened(parent=5), "open does not say"),
    "parent elsewhere": (opened(parent="../x"), "open does not say"),
    "tags of a run that are a list": (opened(tags=[1]), "open does not say"),
    "key that closes a query": (opened(key="' OR"), "open does not say"),
}


@pytest.fixture
def outbox(tmp_path) -> Outbox:
    return Outbox(tmp_path / "outbox")


def records(outbox: Outbox) -> list[dict]:
    found = [record for _, record in read_records(outbox.folder / LOG, 0)]
    assert all(record.pop("time") > 1.7e12 for record in found)  # milliseconds
    return found


def test_a_row_is_on_disk_when_it_is_logged(outbox):
    outbox.append_metrics({"loss": 0.5, "note": "text", "broken": float("nan")}, 3)
    assert records(outbox) == [{"metrics": {"loss": 0.5}, "step": 3}]


def test_a_row_is_logged_once_also_by_a_process_that_begins_anew(outbox):
    outbox.append_metrics({"loss": 0.5, "nll": 1.0}, 3)
    again = pickle.loads(pickle.dumps(outbox))  # as it travels to a worker
    again.append_metrics({"loss": 0.5, "nll": 1.0}, 3)
    again.append_metrics({"loss": 0.5, "nll": 2.0}, 3)
    again.append_metrics({"loss": 0.5}, 4)
    outbox.append_metrics({"nll": 1.0}, 3)  # it has changed in the other process
    logged = [record["metrics"] for record in records(outbox)]
    assert logged == [{"loss": 0.5, "nll": 1.0}, {"nll": 2.0}, {"loss": 0.5}, {"nll": 1.0}]


def test_a_param_keeps_its_first_value(outbox):
    outbox.append_params({"lr": 1e-4, "steps": 3})
    outbox.append_params({"lr": 2e-4, "seed": 0})
    assert records(outbox) == [
        {"params": {"lr": "0.0001", "steps": "3"}},
        {"params": {"seed": "0"}},
    ]


def test_an_artifact_is_kept_as_it_was(outbox, tmp_path):
    file = tmp_path / "rows.csv"
    for text in ("a", "a", "b", "a"):
        file.write_text(text)
        outbox.append_artifact(file)
    copies = [outbox.folder / record["artifact"] for record in records(outbox)]
    assert [copy.name for copy in copies] == ["rows.csv"] * 3
    assert [copy.read_text() for copy in copies] == ["a", "b", "a"]


def test_what_a_killed_writer_left_of_an_artifact_is_removed(outbox, tmp_path):
    half = outbox.folder / "files/0123456789ab/report.html"
    half.parent.mkdir(parents=True)
    half.write_text("<ht")
    whole = tmp_path / "rows.csv"
    whole.write_text("a\n1\n")
    outbox.append_artifact(whole)
    outbox.append_open({"name": "run"})
    assert [path.name for path in outbox.folder.glob("files/*/*")] == ["rows.csv"]


def test_what_a_killed_writer_left_of_a_line_is_cut_off(outbox):
    outbox.append_metrics({"loss": 0.5}, 0)
    with open(outbox.folder / LOG, "a") as log:
        log.write('{"time": 1, "metrics": {"lo')
    assert len(records(outbox)) == 1
    Outbox(outbox.folder).append_metrics({"loss": 0.25}, 1)
    assert [record["step"] for record in records(outbox)] == [0, 1]


def test_a_damaged_line_costs_no_other(outbox):
    for step in range(3):
        outbox.append_metrics({"loss": 0.5}, step)
    lines = (outbox.folder / LOG).read_bytes().splitlines(keepends=True)
    lines[1] = b"\0" * (len(lines[1]) - 1) + b"\n"
    (outbox.folder / LOG).write_bytes(b"".join(lines))
    Outbox(outbox.folder).append_metrics({"loss": 0.5}, 3)
    steps = [record.get("step") for _, record in read_records(outbox.folder / LOG, 0)]
    assert steps == [0, None, 2, 3]


@pytest.mark.parametrize(("damage", "why"), DAMAGED.values(), ids=list(DAMAGED))
def test_a_line_that_no_outbox_writes_is_told_from_records_and_costs_none(outbox, damage, why):
    outbox.append_metrics({"loss": 0.5}, 0)
    with open(outbox.log, "ab") as log:
        log.write(damage)
    outbox.append_metrics({"loss": 0.5}, 1)
    Outbox(outbox.folder).append_metrics({"loss": 0.5}, 1)  # which it has
    Outbox(outbox.folder).append_open(OPENED)
    found = [record for _, record in read_records(outbox.log, 0)]
    assert [record.get("step") for record in found] == [0, None, 1, None]
    assert list(found[1]) == ["damaged"] and why in found[1]["damaged"]
    assert found[3]["open"] == OPENED


def test_a_run_that_goes_on_removes_nothing_behind_a_link(outbox, tmp_path):
    precious = tmp_path / "victim/ab/precious.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    outbox.append_open(OPENED)
    (outbox.folder / "files").symlink_to(tmp_path / "victim")
    outbox.append_open(OPENED)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("room", [0, 10])
def test_a_full_disk_is_one_line_and_leaves_whole_records(outbox, monkeypatch, room):
    outbox.append_metrics({"loss": 0.5}, 0)
    before = (outbox.folder / LOG).read_bytes()

    def fsync(descriptor: int) -> None:
        os.ftruncate(descriptor, len(before) + room)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(UserError, match="outbox: No space left on device; make room"):
            outbox.append_metrics({"loss": 0.25}, 1)
    assert (outbox.folder / LOG).read_bytes() == before
    outbox.append_metrics({"loss": 0.25}, 1)
    assert [record["step"] for record in records(outbox)] == [0, 1]


def _log(folder: Path, process: int) -> None:
    outbox = Outbox(folder)
    for step in range(25):
        outbox.append_metrics({f"loss{process}": step / 7}, step)


def test_processes_that_log_at_once_lose_nothing(outbox):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_log, args=(outbox.folder, n)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    names = [json.dumps(record, sort_keys=True) for record in records(outbox)]
    expected = [
        json.dumps({"metrics": {f"loss{n}": step / 7}, "step": step}, sort_keys=True)
        for n in range(3)
        for step in range(25)
    ]
    assert sorted(names) == sorted(expected)


@pytest.mark.parametrize("logged", [True, False])
def test_records_that_someone_deletes_cost_none_that_come_after(outbox, logged):
    outbox.append_open(OPENED)
    outbox.append_metrics({"loss": 1.0}, 1)
    other = pickle.loads(pickle.dumps(outbox))  # of another process
    if logged:
        other.append_metrics({"loss": 2.0}, 2)
    shutil.rmtree(outbox.folder)
    if not logged:
        other.append_metrics({"loss": 1.0}, 1)
    outbox.append_metrics({"loss": 1.0}, 1)
    other.append_metrics({"loss": 3.0}, 3)
    outbox.append_metrics({"loss": 4.0}, 4)
    records = [record for _, record in read_records(outbox.log, 0)]
    assert [record.get("open") for record in records] == [OPENED, None, None, None]
    assert [record.get("metrics") for record in records[1:]] == [
        {"loss": 1.0},
        {"loss": 3.0},
        {"loss": 4.0},
    ]
    outbox.log.write_bytes(line(ROW))
    with pytest.raises(UserError, match=r"log\.jsonl opens no run; delete the folder"):
        outbox.seconds()


def test_a_log_that_is_another_and_longer_is_read_from_its_beginning(outbox):
    outbox.append_open(OPENED)
    outbox.log.rename(outbox.log.with_name("before"))
    longer = opened() + line(ROW) * 3
    outbox.log.write_bytes(longer)
    outbox.append_metrics({"loss": 1.0}, 1)  # as ROW has it
    assert outbox.log.read_bytes() == longer


def test_a_record_that_is_being_written_is_read_when_it_is_whole(tmp_path):
    log, whole = tmp_path / LOG, line(ROW)
    log.write_bytes(whole + whole[:20])
    ((end, record),) = read_records(log, 0)
    log.write_bytes(2 * whole)
    ((_, other),) = read_records(log, end)
    assert record == other == ROW


def test_the_parts_of_a_record_are_no_damage():
    class Growing:
        """A file that ends in the middle of a line, when it is looked at first."""

        def __init__(self):
            self.parts = [b'{"step"', b": 1}\n", b""]

        def readline(self, most):
            return self.parts.pop(0)

    assert list(_lines(Growing())) == []
