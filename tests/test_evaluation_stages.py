"""The stages of editing, rejection, reconstruction, choice temperature and speed, run as `dvc
repro` would, without MLflow; and the scores by temperature."""

import importlib
import json
import math
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest
import torch

from pipeline.evaluation import edits, temperature
from pipeline.layout import TOKENIZER, TRANSFORMER
from pipeline.models import load_model
from pipeline.sampling import balanced_labels, generate, tokens_to_images
from pipeline.seeds import mix
from tests.tiny_project import (
    CHANGES,
    CLASSES,
    CPU,
    Dies,
    check_resumes,
    check_scores,
    make_project,
    with_params,
)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(autouse=True)
def in_project(project, monkeypatch):
    monkeypatch.chdir(project)


def test_every_temperature_and_seed_is_scored(tmp_path):
    params = with_params()
    rows = temperature.temperature_rows(params, tmp_path, CPU)
    keys = [(row["choice_temperature"], row["seed"]) for row in rows]
    assert keys == [(0.0, 0), (0.0, 1), (9.0, 0), (9.0, 1)]
    model, tokenizer = load_model(TRANSFORMER, "transformer"), load_model(TOKENIZER, "tokenizer")
    labels = balanced_labels(23, CLASSES)
    for row in rows:
        images = [
            tokens_to_images(
                tokenizer,
                generate(
                    model,
                    chunk,
                    iterations=3,
                    schedule="cosine",
                    choice_temperature=row["choice_temperature"],
                    bf16=False,
                    seed=mix(mix(row["seed"], "temperature"), "batch", number),
                )[-1].sampled,
            )
            for number, chunk in enumerate(labels.split(10))
        ]
        check_scores(row, torch.cat(images).numpy(), labels)
        assert row["samples"] == 23
    assert len({row["fid_classifier"] for row in rows}) == 4
    assert not (tmp_path / "samples.npy").exists()


def test_killed_temperatures_go_on(tmp_path):
    def rows_of(folder: Path) -> list[dict]:
        return temperature.temperature_rows(with_params(), folder, CPU)

    straight = check_resumes(rows_of, tmp_path, temperature, "write_images", calls=2, kept=2)
    more = temperature.temperature_rows(
        with_params(temperature={"values": [0.0, 5.0, 9.0]}), tmp_path / "killed", CPU
    )
    assert [row for row in more if row["choice_temperature"] != 5.0] == straight


RESULTS = {
    "edit": ["editing/rows.csv", "editing/pictures.npz"],
    "reject": ["rejection/rows.csv"],
    "reconstruct": ["reconstruction/rows.csv", "reconstruction/pictures.npz"],
    "temperature": ["temperature/rows.csv"],
    "speed": ["speed_timings.csv"],
}


class Run:
    """Stands for MLflow's."""

    def __init__(self):
        self.metrics, self.artifacts = {}, []

    def log_metrics(self, metrics, step=0):
        self.metrics |= {(name, step): value for name, value in metrics.items()}

    def log_artifact(self, path):
        self.artifacts.append(str(path))


@pytest.fixture
def run_stage_main(project, monkeypatch):
    """Run a stage's main as `dvc repro` would, without MLflow; its summary, and the stand-in."""
    sections = sorted(CHANGES)
    declared = {
        stage: {"params": ["seed", *sections], "deps": ["data/images"]} for stage in RESULTS
    }
    (project / "dvc.yaml").write_text(json.dumps({"stages": declared}))

    def start(stage: str, **sections) -> tuple[str, Run]:
        params, run = with_params(**sections), Run()
        (project / "params.yaml").write_text(json.dumps(params.model_dump()))
        module = importlib.import_module(f"stages.{stage}")
        monkeypatch.setattr(module, "stage_run", lambda *_: nullcontext(run))
        return module.main(params), run

    return start


@pytest.mark.parametrize("stage", RESULTS)
def test_stage_writes_its_results_and_made_anew_the_same_bytes(run_stage_main, stage):
    files = [Path("results", name) for name in RESULTS[stage]]
    summary, run = run_stage_main(stage)
    assert summary.startswith(f"{stage}: ") and "\n" not in summary
    assert str(files[0]) in run.artifacts and run.metrics
    assert all(math.isfinite(value) for value in run.metrics.values())
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    shutil.rmtree("runs")
    run_stage_main(stage)
    if stage == "speed":  # timings are measured again
        rows = pd.read_csv(files[0])
        assert len(rows) == 2 * 3 * 2 and rows["tokens"].unique().tolist() == [1, 4]
    else:
        assert [file.read_bytes() for file in files] == before


def test_stages_say_what_they_measured(run_stage_main):
    summary, _ = run_stage_main("reject")
    rows = pd.read_csv("results/rejection/rows.csv")
    best = rows[(rows["network"] == "transformer") & (rows["acceptance"] == 0.2)]
    shares = best.set_index("selection")["class_accuracy"]
    wanted = ["20%", f"{shares['rejection']:.1%}", f"{shares['random']:.1%}"]
    assert re.findall(r"[\d.]+%", summary) == wanted


def test_a_larger_grid_runs_only_what_is_new(run_stage_main, monkeypatch):
    run_stage_main("edit")
    monkeypatch.setattr(edits, "edit", Dies(edits.edit, calls=5 * 3 + 8))  # a seed, pictures
    run_stage_main("edit", editing={"seeds": [0, 1, 2]})
    assert edits.edit.left == 0


def test_killed_speed_keeps_its_grids_until_it_is_done(run_stage_main, monkeypatch):
    with monkeypatch.context() as patch:
        module = importlib.import_module("stages.speed")
        patch.setattr(module, "speed_rows", Dies(module.speed_rows, calls=1))
        with pytest.raises(KeyboardInterrupt):
            run_stage_main("speed")
        (kept,) = Path("runs/speed").glob("*/cpu-*-1.json")
        times = [row["seconds_per_image"] for row in json.loads(kept.read_text())]
    run_stage_main("speed")
    rows = pd.read_csv("results/speed_timings.csv")
    first = rows[rows["tokens"] == 1]["seconds_per_image"].tolist()
    assert first == pytest.approx(times, rel=1e-9)
    assert not kept.exists()
