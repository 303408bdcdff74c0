"""The log of a run on disk after kills, full disks, and writes by several processes."""

import json
import multiprocessing
import pickle
import resource
import time
from pathlib import Path

import pytest
from PIL import Image

from pipeline.runtime.errors import UserError
from pipeline.runtime.run_log import RunLog, read_rows


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunLog:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("a: 1\n")
    folder = tmp_path / "runs/train/k/log"
    run = RunLog(folder, "k", "train", "exp", {"a.b": 1}, {"tag": "t"}).begin()
    run.log_artifact("params.yaml")
    return run


def rows(run: RunLog) -> list[tuple[str, int, float]]:
    found = (row for _, row in read_rows(run.folder / "metrics.jsonl"))
    return [(name, row["step"], v) for row in found for name, v in row["metrics"].items()]


def described(run: RunLog) -> dict:
    return json.loads((run.folder / "run.json").read_bytes())


def test_finite_numbers_are_logged_in_groups(run):
    run.log_metrics({"loss": 0.5, "note": "text", "broken": float("nan"), "far": float("inf")}, 3)
    run.log_training({"step": 50.0, "loss": 2.0})
    run.log_group("network", {"val_nll": 3.0, "note": "text"})
    assert rows(run) == [("loss", 3, 0.5), ("train/loss", 50, 2.0), ("network/val_nll", 0, 3.0)]


def _log_many(run: RunLog, process: int) -> None:
    for step in range(50):
        run.log_metrics({f"loss{process}": step / 7, "shared": step}, step)


def test_processes_that_log_at_once_lose_nothing(run):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_log_many, args=(run, number)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    expected = {(f"loss{n}", s, s / 7) for n in range(2) for s in range(50)}
    assert len(rows(run)) == 150 and expected < set(rows(run))


@pytest.mark.parametrize("room", [0, 5])
def test_a_full_disk_is_one_error_and_costs_no_row(run, room):
    """If only five bytes fit, the log ends in an unfinished line, as after a kill."""
    run.log_metrics({"loss": 0.5}, 0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (run.folder / "metrics.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, before[1]))
    try:
        with pytest.raises(UserError, match=rf"{run.folder}.*(No space left|too large)"):
            run.log_metrics({"loss": 0.25}, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert rows(run) == [("loss", 0, 0.5)]
    run.log_metrics({"loss": 0.25}, 1)
    assert rows(run) == [("loss", 0, 0.5), ("loss", 1, 0.25)]


def test_a_run_that_is_resumed_keeps_its_start_and_the_first_value_of_a_param(run, tmp_path):
    start = described(run)["start"]
    run.log_tags({"best": 3})
    run.finish(ok=False)
    assert described(run)["status"] == "FAILED" and described(run)["end"] >= start
    time.sleep(0.002)
    params = {"a.b": 2, "c": 3}
    RunLog(run.folder, "k", "train", "other", params, {"tag": "u"}, "above").begin()
    found = described(run)
    assert (found["start"], found["status"], found["end"]) == (start, "RUNNING", None)
    assert found["params"] == {"a.b": "1", "c": "3"}
    assert found["tags"]["tag"] == "u" and found["tags"]["best"] == "3"
    assert (found["experiment"], found["parent"]) == ("other", "above")


def test_an_artifact_is_a_copy_of_the_file_as_it_was(run, tmp_path):
    for text in ("first", "second"):
        (tmp_path / "report.html").write_text(text)
        run.log_artifact(tmp_path / "report.html")
    (tmp_path / "report.html").write_text("third")
    assert (run.folder / "artifacts/report.html").read_text() == "second"
    assert (run.folder / "artifacts/params.yaml").read_text() == "a: 1\n"
    (run.folder / "artifacts/.report.html.01234567.tmp").write_text("of a killed process")
    run.begin()
    assert not list(run.folder.rglob("*.tmp"))


def test_a_picture_has_a_preview_beside_it(run, tmp_path):
    Image.new("L", (310, 4)).save(tmp_path / "samples.png")
    run.log_image(tmp_path / "samples.png", "samples", 10)
    found = sorted((run.folder / "artifacts/images").iterdir())
    assert [Image.open(file).size for file in found] == [(256, 3), (310, 4)]
    found[1].unlink()  # as after a kill between the two writes
    run.log_image(tmp_path / "samples.png", "samples", 10)
    assert sorted((run.folder / "artifacts/images").iterdir()) == found


def test_rows_that_differ_in_their_seed_are_one_point_of_a_curve(run):
    table = [
        {"kept": 0.29, "seed": 0, "fid": 1.0, "kid": None, "near": 1.0},  # row 2 lacks `near`
        {"kept": 0.29, "seed": 1, "fid": 2.0, "kid": 1.0},
        {"kept": 1.0, "seed": 0, "fid": 4.0, "kid": 3.0},
    ]
    run.log_means(table, lambda row: "best", ("kept", "seed"), lambda row: 100 * row["kept"])
    assert set(rows(run)) == {("best/fid", 29, 1.5), ("best/fid", 100, 4.0), ("best/kid", 100, 3.0)}


def test_a_child_begins_where_it_is_worked_on(run):
    child = run.child("k/cosine/seed0", "cosine/seed0", {"seed": 3}, "What it is.")
    child.finish(ok=False)  # the stage failed before the child began
    assert not child.folder.exists()
    pickle.loads(pickle.dumps(child)).begin()
    assert described(child)["parent"] == "k" and described(child)["tags"]["tag"] == "t"
