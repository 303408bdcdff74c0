"""A real run of the whole DAG at smoke size: its outputs, what runs again, and kills."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from pipeline.config.params import load_params
from pipeline.config.paths import IMAGES, TOKENS
from pipeline.data.images.pixels import as_float
from pipeline.data.images.shards import ImageShards, View
from pipeline.data.tokens import TokenCache
from pipeline.runtime.files import read_yaml
from pipeline.weights.published import load_model
from tests.project import ROOT, trained

STAGES = read_yaml(ROOT / "dvc.yaml")["stages"].keys()


@pytest.mark.slow
def test_every_stage_ran_and_left_its_results(finished):
    ran = re.findall(r"Running stage '(\w+)'", finished.log)
    assert set(ran) == STAGES and len(ran) == len(STAGES)
    for path in (
        "results/prepare/contact_sheet.png",
        "results/tokenizer/reconstructions.png",
        "results/evaluation/samples.png",
        "analysis/tables/table3.tex",
        "analysis/figures/figure8.png",
        "analysis/report.html",
    ):
        assert (finished.folder / path).stat().st_size > 0, path
    noise = [x for x in finished.log.splitlines() if re.search("(?i)warning|traceback|refused", x)]
    assert noise == []
    summary = finished.run("python", "-m", "pipeline", "summary")
    assert "FID (classifier)" in summary and "barely trained" in summary
    assert "analysis/report.html" in summary


@pytest.mark.slow
def test_workers_say_how_far_they_are_and_nothing_else(finished):
    """A worker's line begins with the name of its training, not with `(trainable pid=123)`."""
    assert "pid=" not in finished.log
    sweep = finished.log.partition("Running stage 'sweep':")[2].partition("Running stage")[0]
    said = [line for line in sweep.splitlines() if line and not line.startswith((">", "Updating"))]
    counted = [x for x in said if re.fullmatch(r"sweep: \S+ done, [123] of 3(, about .*)?", x)]
    steps = [line for line in said if re.fullmatch(r"(\w+/seed0) \d+/\d+  loss .*", line)]
    assert len(counted) == 3 and counted[-1].endswith("3 of 3") and len(steps) >= 3
    cell = r"sweep: \S+ iterations=\d+( (schedule|sampler)=\w+)?(:.* recognised.*| \d+/\d+ *)"
    cells = [line for line in said if re.fullmatch(cell, line)]
    others = [line for line in said if line not in counted + steps + cells]
    assert [line.partition(":")[0] for line in others] == ["sweep"] * 3  # first, precision, last


@pytest.mark.slow
def test_the_tokenizer_is_averaged_and_validation_images_are_cached_as_centre_crops(
    finished, monkeypatch
):
    monkeypatch.chdir(finished.folder)
    (checkpoint,) = Path("runs/train_tokenizer").glob("*/checkpoint.pt")
    task = torch.load(checkpoint, weights_only=True)["task"]
    published = load_file("models/tokenizer/model.safetensors")
    for weight, value in published.items():
        assert torch.equal(value, task["average"][f"module.{weight}"])
    assert any(not torch.equal(value, task["model"][k]) for k, value in published.items())
    tokenizer, params = load_model("models/tokenizer", "tokenizer"), load_params()
    held_out, (tokens, _) = ImageShards(IMAGES, "val"), TokenCache(TOKENS, "val").everything()
    crops = View(held_out, params.data).centers(range(len(held_out)))
    assert torch.equal(tokenizer.encode(as_float(crops)).flatten(1), tokens)


@pytest.mark.slow
def test_mlflow_has_a_child_per_trial_with_fid_at_each_T(finished):
    client = MlflowClient(f"sqlite:///{finished.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("maskgit")
    runs = client.search_runs([experiment.experiment_id])
    assert {r.info.status for r in runs} == {"FINISHED"}
    below: dict[str | None, list] = {}
    for run in runs:
        below.setdefault(run.data.tags.get("mlflow.parentRunId"), []).append(run)
    (whole,) = below[None]
    stages = {run.info.run_name for run in below[whole.info.run_id]}
    assert stages == STAGES - {"analysis"}  # which logs to the whole
    assert whole.data.metrics.keys() >= {"MaskGIT/fid_classifier", "VQGAN/cas", "tokenizer/psnr"}
    assert whole.data.tags["sweep.best"] and len(whole.data.params) > 100
    assert {f.path for f in client.list_artifacts(whole.info.run_id)} >= {"report.html"}
    assert not [name for r in runs for name in r.data.metrics if "/" not in name]
    (sweep,) = [r for r in runs if r.info.run_name == "sweep"]
    assert 20 < len(sweep.data.params) < 90 and "cas.steps" not in sweep.data.params
    assert sweep.data.metrics["best/iterations"] in (2, 4) and sweep.data.tags["best.schedule"]
    children = below[sweep.info.run_id]
    named = {r.info.run_name for r in children}
    assert named == {"cosine/seed0", "linear/seed0", "square_root/seed0"}
    for child in children:
        points = client.get_metric_history(child.info.run_id, "T/fid_classifier")
        assert sorted(p.step for p in points) == [2, 4]
        assert child.data.metrics["T_best/iterations"] in (2, 4)
        assert sweep.info.start_time < child.info.start_time <= child.info.end_time
    training = next(r for r in runs if r.info.run_name == "main/seed0")
    pictures = client.list_artifacts(training.info.run_id, "images")
    assert len([p for p in pictures if p.path.endswith(".png")]) >= 1
    assert sweep.data.tags["git.commit"] and sweep.data.tags["dvc.stage"] == "sweep"


OF_SEEDS = [
    *("train_transformer", "train_autoregressive", "evaluate"),
    *("cas", "temperature", "edit", "reject", "reconstruct", "analysis"),
]
NETWORKS = ("transformer", "autoregressive")
NEW = {f"{network}/{group}/seed1" for network in NETWORKS for group in ("main", "smoothing_0.0")}
NEW |= {
    f"{images}/{augmentation}/seed1"
    for images in ("real", *NETWORKS)
    for augmentation in ("none", "randaugment")
}


@pytest.mark.soak
def test_one_seed_more_runs_alone_and_ends_with_the_same_bytes(smoke, finished):
    """Run one seed, then two, and compare with a fresh run of both in another folder: every image,
    network, token, sample, result and table has the same bytes. (The curves and the sweep stay;
    other tests make them again.)"""
    smoke.set(evaluation__seeds=[0])
    for kept in ("runs", ".dvc/cache/runs"):
        shutil.rmtree(smoke.folder / kept)
    smoke.run("dvc", "repro", "--force", "cache_tokens")  # and all that it stands on

    assert smoke.repro()[0] == OF_SEEDS
    smoke.run("python", "-m", "pipeline", "preset", "smoke")
    ran, log = smoke.repro()

    assert ran == OF_SEEDS and trained(log) == NEW
    assert smoke.outputs() == finished.outputs()
