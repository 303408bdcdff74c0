"""The stages of editing, rejection, reconstruction, choice temperature and speed, run as `dvc
repro` would, without MLflow; the scores by temperature, CAS and the gallery."""

import importlib
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES, SAMPLES, TOKENIZER, TRANSFORMER
from pipeline.data.images import shards
from pipeline.data.images.views import View
from pipeline.decoding import DecodingSettings, generate
from pipeline.experiments import cas, temperature
from pipeline.experiments import edit as edits
from pipeline.experiments.evaluate.gallery import write_gallery
from pipeline.prepare import shards as writing
from pipeline.prepare.datasets import open_source
from pipeline.prepare.shards import stratified_split, write_manifest, write_shards
from pipeline.runtime import stage as stage_module
from pipeline.runtime.seeds import mix
from pipeline.sampling import balanced_labels
from pipeline.tokenizer import tokens_to_images
from pipeline.weights.published import load_model
from tests.tiny_project import (
    CHANGES,
    CLASSES,
    CPU,
    SIDE,
    Dies,
    check_resumes,
    check_scores,
    with_params,
)

pytestmark = pytest.mark.usefixtures("in_tiny_project")


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
                    DecodingSettings(3, "cosine", row["choice_temperature"]),
                    seed=mix(mix(row["seed"], "temperature"), "batch", number),
                )[-1].sampled,
            )
            for number, chunk in enumerate(labels.split(10))
        ]
        check_scores(row, torch.cat(images).numpy(), labels)
        assert row["samples"] == 23
    assert len({row["fid_classifier"] for row in rows}) == 4
    assert not list(tmp_path.glob("*.npy*"))


def test_killed_temperatures_go_on(tmp_path):
    def rows_of(folder: Path) -> list[dict]:
        return temperature.temperature_rows(with_params(), folder, CPU)

    straight = check_resumes(rows_of, tmp_path, temperature, "make_images", calls=2)
    more = temperature.temperature_rows(
        with_params(temperature={"values": [0.0, 5.0, 9.0]}), tmp_path / "killed", CPU
    )
    assert [row for row in more if row["choice_temperature"] != 5.0] == straight


def write_shards_of(pictures: Path, folder: Path) -> None:
    """A folder of classes as shards."""
    source = open_source(f"folder:{pictures}", "")
    splits = stratified_split(source, 0.2, seed=0)
    written = {k: write_shards(source, v, k, 50, folder) for k, v in splits.items()}
    write_manifest(folder, source, f"folder:{pictures}", written)


def cas_job(
    params: Params, images: str, augmentation: str, folder: Path, images_dir: Path = IMAGES
) -> cas.CasJob:
    folders = map(str, (folder, images_dir, SAMPLES, CLASSIFIER))
    return cas.CasJob(images, augmentation, 1, params.model_dump(), *folders)


@pytest.mark.parametrize("augmentation", cas.AUGMENTATIONS)
@pytest.mark.parametrize("images", [cas.REAL, "transformer"])
def test_cas_batches_are_a_function_of_seed_and_step(tmp_path, images, augmentation):
    """Out of order, as after a restart, and whatever others draw from torch's generator."""
    params = with_params(classifier={"batch_size": 7})
    pictures = cas.training_pictures(cas_job(params, images, augmentation, tmp_path), params)

    def batches(seed: int) -> cas.CasBatches:
        return cas.CasBatches(pictures, params, cas.AUGMENTATIONS[augmentation], seed)

    in_order, straight = batches(1), []
    for step in range(12):
        torch.rand(step)
        state = torch.get_rng_state()
        straight.append(in_order(step))
        assert torch.equal(torch.get_rng_state(), state)
    assert straight[0][0].shape == (7, 1, SIDE, SIDE) and straight[0][0].dtype == torch.uint8
    for step in (11, 0, 5):
        again, labels = batches(1)(step)
        assert torch.equal(again, straight[step][0]) and torch.equal(labels, straight[step][1])
    assert not torch.equal(batches(2)(0)[0], straight[0][0])


def test_cas_reads_real_images_a_row_group_at_a_time(tmp_path, monkeypatch):
    """An epoch of 16 row groups, of which two are kept: each is read once, and a few ahead."""
    for module in (shards, writing):
        monkeypatch.setattr(module, "ROW_GROUP", 4)
    for module in (shards, cas):
        monkeypatch.setattr(module, "WINDOW", 2)
    write_shards_of(Path("pictures"), tmp_path)
    params = with_params(classifier={"batch_size": 6})
    job = cas_job(params, cas.REAL, "none", tmp_path, images_dir=tmp_path)
    reads = []

    class Counted(shards.ImageShards):
        def _read_group(self, group):
            if group not in self._cache:
                reads.append(group)
            return super()._read_group(group)

    monkeypatch.setattr(cas, "ImageShards", Counted)
    batches = cas.CasBatches(cas.training_pictures(job, params), params, False, seed=0)
    labels = torch.cat([batches(step)[1] for step in range(10)])
    assert labels.bincount().tolist() == [20, 20, 20]
    assert set(reads) == set(range(16)) and len(reads) <= 16 + 4


@pytest.mark.parametrize(("images", "count"), [(cas.REAL, 60), ("transformer", 90)])
def test_cas_made_anew_is_the_same(tmp_path, images, count):
    params = with_params(classifier={"steps": 4, "batch_size": 20, "checkpoint_every": 2})
    rows = []
    for name in ("first", "second"):
        job = cas_job(params, images, "randaugment", tmp_path / name)
        cas.run_cas(job)
        rows.append(job.row())
    assert rows[0] == rows[1] and rows[0]["training_images"] == count
    assert 0 <= rows[0]["top1"] <= rows[0]["top5"] <= 1


def test_gallery_shows_as_many_real_images_as_the_smallest_class_has(
    tiny_project, tmp_path, monkeypatch
):
    shutil.copytree(tiny_project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    shutil.rmtree(IMAGES)
    for path in sorted(Path("pictures/train/class1").iterdir())[4:]:
        path.unlink()
    write_shards_of(Path("pictures"), IMAGES)
    write_gallery(with_params(), Path("gallery"), CPU)
    images = shards.ImageShards(IMAGES, "train")
    view = View(images, with_params().data, seed=0)
    with np.load("gallery/class_grid.npz") as grid:
        assert grid["transformer"].shape == (CLASSES, 10, SIDE, SIDE, 1)
        assert grid["real"].shape == (CLASSES, 4, SIDE, SIDE, 1)
        for label, row in enumerate(grid["real"]):
            chosen = np.flatnonzero(images.labels == label)[:4]
            assert np.array_equal(row, view.centers(chosen).permute(0, 2, 3, 1).numpy())


RESULTS = {
    "edit": ["editing/rows.csv", "editing/pictures.npz"],
    "reject": ["rejection/rows.csv"],
    "reconstruct": ["reconstruction/rows.csv", "reconstruction/pictures.npz"],
    "temperature": ["temperature/rows.csv"],
    "speed": ["speed_timings.csv"],
}


class Run:
    """Stands for MLflow's, and for its monitor of the machine."""

    run_id = "run"

    def __init__(self):
        self.metrics, self.artifacts, self.ended = {}, [], []

    def log_metrics(self, metrics, step=0):
        self.metrics |= {(name, step): value for name, value in metrics.items()}

    def log_artifact(self, path):
        self.artifacts.append(str(path))

    def finish(self, ok=None):
        self.ended.append(ok)


@pytest.fixture
def run_stage_main(in_tiny_project, monkeypatch):
    """Run a stage's main as `dvc repro` would, without MLflow; its summary, and the stand-in."""
    sections = sorted(CHANGES)
    declared = {
        stage: {"params": ["seed", *sections], "deps": ["data/images"]} for stage in RESULTS
    }
    Path("dvc.yaml").write_text(json.dumps({"stages": declared}))

    def start(stage: str, **sections) -> tuple[str, Run]:
        params, run = with_params(**sections), Run()
        Path("params.yaml").write_text(json.dumps(params.model_dump()))
        for opened in ("open_run", "system_metrics"):
            monkeypatch.setattr(stage_module, opened, lambda *_: run)
        return importlib.import_module(f"stages.{stage}").main(params), run

    return start


@pytest.mark.parametrize("stage", RESULTS)
def test_stage_writes_its_results_and_made_anew_the_same_bytes(run_stage_main, stage):
    files = [Path("results", name) for name in RESULTS[stage]]
    summary, run = run_stage_main(stage)
    assert summary.startswith(f"{stage}: ") and "\n" not in summary
    assert str(files[0]) in run.artifacts and run.metrics
    assert all(math.isfinite(value) for value in run.metrics.values())
    assert run.ended == [None, True]  # the monitor, then the run
    assert json.loads(Path(f"results/sources/{stage}.json").read_bytes())["run_id"] == run.run_id
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
