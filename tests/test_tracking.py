"""What runs are, how they hang together and what their metrics are called."""

import json
import pickle
import re
import time
from pathlib import Path

import mlflow
import pytest
from PIL import Image
from pipeline.runtime.reproduction import log_reproduction, open_reproduction
from pipeline.runtime.sync import sync
from pipeline.runtime.tracking import Run, open_run

from pipeline.runtime import tracking
from pipeline.runtime.errors import UserError
from tests.damage import DAMAGE, named
from tests.tracking_server import FakeServer

DVC = """
stages:
  train: {cmd: python train.py, deps: [code.py, data], params: [lr], outs: [model]}
  measure: {cmd: python measure.py, deps: [other.py, model], params: [samples], outs: [rows.csv]}
"""


@pytest.fixture
def server(monkeypatch, tmp_path) -> FakeServer:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    fake = FakeServer()
    monkeypatch.setattr(mlflow, "MlflowClient", fake)
    Path("params.yaml").write_text("{preset: tiny, lr: 0.1, samples: 3}")
    Path("dvc.yaml").write_text(DVC)
    for name in ("code.py", "other.py", "data"):
        Path(name).write_text("1")
    return fake


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "outbox"


@pytest.fixture
def run(server, folder) -> Run:
    return open_run("key", "stage", {}, "experiment", folder)


def metrics(server: FakeServer, folder: Path, name: str = "stage") -> dict[tuple[str, int], float]:
    sync(folder)
    return {(n, step): value for n, value, step, _ in server.run(name).metrics}


def test_rows_that_differ_in_their_seed_are_one_point_of_a_curve(server, folder, run):
    rows = [
        {"kept": 0.29, "seed": 0, "fid": 1.0, "kid": None, "near": 1.0},  # which the next lacks
        {"kept": 0.29, "seed": 1, "fid": 2.0, "kid": 1.0},
        {"kept": 1.0, "seed": 0, "fid": 4.0, "kid": 3.0},
    ]
    run.log_means(rows, lambda row: "net/best", ("kept", "seed"), lambda row: 100 * row["kept"])
    assert metrics(server, folder) == {
        ("net/best/fid", 29): 1.5,
        ("net/best/fid", 100): 4.0,
        ("net/best/kid", 100): 3.0,
    }


def test_a_training_is_a_group_of_curves_without_its_step(server, folder, run):
    run.log_training({"step": 50.0, "loss": 2.0, "val_nll": 3.0})
    run.log_group("network", {"val_nll": 3.0, "note": "text"})
    assert metrics(server, folder) == {
        ("train/loss", 50): 2.0,
        ("train/val_nll", 50): 3.0,
        ("network/val_nll", 0): 3.0,
    }


def test_the_machines_load_is_a_group_by_the_seconds_since_the_run_began(
    server, folder, run, monkeypatch
):
    monkeypatch.setattr(tracking, "SAMPLED", 0.05)
    monitor = tracking.MachineMonitor(run)
    before = time.monotonic()
    while not any(name.startswith("system/") for name, _ in metrics(server, folder)):
        assert time.monotonic() - before < 30
        time.sleep(0.05)
    monitor.finish()
    run.finish(ok=True)
    load = {name: value for (name, _), value in metrics(server, folder).items()}
    assert 0 <= load["system/cpu_utilization_percentage"] <= 100
    assert "system/disk_usage_percentage" in load
    assert server.run("stage").status == "FINISHED"


def test_a_load_that_cannot_be_counted_is_left_out(server, folder, run, monkeypatch, capfd):
    """As in a container that hides the network's counters."""
    import psutil

    monkeypatch.setattr(psutil, "net_io_counters", lambda: None)
    monkeypatch.setattr(tracking, "SAMPLED", 0.05)
    monitor = tracking.MachineMonitor(run)
    before = time.monotonic()
    while "system/cpu_utilization_percentage" not in {name for name, _ in metrics(server, folder)}:
        assert time.monotonic() - before < 30
        time.sleep(0.05)
    monitor.finish()
    assert capfd.readouterr().err == ""


def test_a_child_begins_where_and_when_it_is_worked_on(server, folder, run):
    child = run.child("key/trial", "trial", {"seed": 3}, "What it is.")
    never = run.child("key/other", "other", {})
    never.finish(ok=False)  # as where the stage failed before it began
    sync(folder)
    assert [r.name for r in server.runs.values()] == ["stage"]
    time.sleep(0.05)
    pickle.loads(pickle.dumps(child)).begin()  # as it travels to a worker
    sync(folder)
    found = server.run("trial")
    assert found.started >= server.run("stage").started + 50
    assert found.params == {"seed": "3"} and found.tags["mlflow.note.content"] == "What it is."
    assert server.runs[found.tags["mlflow.parentRunId"]].name == "stage"
    assert {r.name for r in server.runs.values()} == {"stage", "trial"}


def test_source_and_user_are_those_that_mlflow_shows(server, folder, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "train")
    open_run("key", "train", {}, "experiment", folder)
    sync(folder)
    tags = server.run("train").tags
    assert tags["mlflow.source.name"] == "dvc.yaml:train" and tags["mlflow.user"]
    assert tags["mlflow.source.git.commit"] == tags["git.commit"]


@pytest.mark.parametrize("failure", ["down", "lost"])
@pytest.mark.parametrize("at", range(8))  # none of the requests, or one of the seven
def test_a_picture_of_each_step_is_logged_once_and_whole(
    server, folder, run, tmp_path, monkeypatch, at, failure
):
    monkeypatch.setattr("pipeline.runtime.outbox.time.time", lambda: 1.7e9)  # both in a millisecond
    sync(folder)
    for step in (10, 20):
        Image.new("L", (300 + step, 4)).save(tmp_path / f"samples_{step}.png")
        run.log_image(tmp_path / f"samples_{step}.png", "samples", step)
    requests = iter([None] * (at - 1) + [failure] * (at > 0))
    server.fails = lambda request: next(requests, None)
    if at:
        with pytest.raises(UserError, match="still to be sent"):
            sync(folder)
    sync(folder)
    found = server.run("stage")
    assert found.tags["mlflow.loggedImages"] == "True"
    pictures = dict[str, dict[str, tuple[int, int]]]()  # by what MLflow pairs the files by
    for name, size in sorted(found.images.items()):
        stem, kind = re.fullmatch(r"(.+?)((?:\+compressed)?\.\w+)", name).groups()
        pictures.setdefault(stem, {})[kind] = size
    assert [stem.rpartition("+")[0] for stem in pictures] == [
        f"samples+step+{step}+timestamp+1700000000000" for step in (10, 20)
    ]
    assert list(pictures.values()) == [
        {".png": (310, 4), "+compressed.webp": (256, 3)},
        {".png": (320, 4), "+compressed.webp": (256, 3)},
    ]


@pytest.mark.parametrize("logged_so", [False, True], ids=["damaged_later", "damaged_before"])
@pytest.mark.parametrize("damage", DAMAGE, **named)
def test_a_damaged_picture_is_named_and_stops_no_other_record(
    server, folder, run, tmp_path, damage, logged_so
):
    for step in (10, 20):
        picture = tmp_path / f"samples_{step}.png"
        Image.effect_noise((40, 40), 50).save(picture)
        if logged_so and step == 10:
            damage(picture)
        run.log_image(picture, "samples", step)
    if not logged_so:
        damage(next(folder.rglob("samples_10.png")))
    run.log_metrics({"loss": 0.5}, 20)
    run.finish(ok=True)
    said = sync(folder)
    assert "refused for good" in said and "samples_10.png is damaged" in said
    assert {name.partition("+timestamp+")[0] for name in server.run("stage").images} == {
        "samples+step+20"
    }
    assert server.run("stage").metrics and server.run("stage").status == "FINISHED"
    assert "0 records sent" in sync(folder)


def whole(folder: Path) -> str:
    run = open_reproduction("experiment", folder)
    return run.outbox.folder.name


def test_all_stages_of_one_state_of_the_project_have_one_parent(server, folder, monkeypatch):
    first = whole(folder)
    assert whole(folder) == first  # a second stage; or one that is taken up
    for made in ("model", "rows.csv"):
        Path(made).write_text("what stages make is no part of it")
    assert whole(folder) == first
    Path("params.yaml").write_text("{preset: tiny, lr: 0.2, samples: 3}")
    changed = whole(folder)
    Path("other.py").write_text("2")
    assert len({first, changed, whole(folder)}) == 3
    monkeypatch.setenv("DVC_EXP_NAME", "puffy-cats")
    Path("data").write_text("2")
    whole(folder)
    sync(folder)
    names = [run.name for run in server.runs.values()]
    assert all(name.startswith("tiny-") for name in names[:3]) and names[3:] == ["puffy-cats"]
    assert next(iter(server.runs.values())).params == {
        "preset": "tiny",
        "lr": "0.1",
        "samples": "3",
    }


def test_a_stage_that_is_taken_up_under_another_parent_moves_there(server, folder):
    """As where a param that it does not depend on was changed: its parent is younger than it."""
    for samples in (3, 4):
        Path("params.yaml").write_text(json.dumps({"preset": "tiny", "lr": 1, "samples": samples}))
        parent = open_reproduction("experiment", folder)
        open_run("key", "train", {"lr": 1}, "experiment", folder, parent=parent)
        if samples == 3:
            sync(folder)
    assert "records sent" in sync(folder)
    assert len(server.runs) == 3
    assert server.run("train").tags["mlflow.parentRunId"] == parent.run_id


def test_the_last_stage_logs_what_all_came_to(server, folder, tmp_path):
    report = tmp_path / "report.html"
    report.write_text("report")
    values = {"MaskGIT": {"fid": 1.5}, "sweep": {"best": "cosine T=8", "fid": 2.0}}
    assert log_reproduction("experiment", str(tmp_path), values, [report]) is None
    (run,) = server.runs.values()
    assert [(n, v) for n, v, *_ in run.metrics] == [("MaskGIT/fid", 1.5), ("sweep/fid", 2.0)]
    assert run.tags["sweep.best"] == "cosine T=8" and run.status == "FINISHED"
    assert run.files["report.html"] == "report"


def test_runs_of_an_experiment_in_a_copy_are_kept_in_the_project(server, tmp_path, monkeypatch):
    from pipeline.runtime.delivery import outbox_folder
    from pipeline.runtime.uris import tracking_uri

    from pipeline.runtime.runs import run_dir

    project = tmp_path / "project"
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking_uri() == f"sqlite:///{project}/mlflow.db"
    assert outbox_folder("runs") == project / "runs/outbox"
    assert run_dir("train", {"lr": 1}).parent == project / "runs/train"
    assert outbox_folder("/shared/runs") == Path("/shared/runs/outbox")


def test_rows_whose_steps_are_close_stay_apart(server, folder, run):
    rows = [{"kept": kept, "fid": fid} for kept, fid in ((0.05, 2.0), (0.052, 4.0), (1.0, 6.0))]
    run.log_means(rows, lambda row: "net", ("kept",), lambda row: 100 * row["kept"])
    assert metrics(server, folder) == {
        ("net/fid", 50): 2.0,
        ("net/fid", 52): 4.0,
        ("net/fid", 1000): 6.0,
    }
