"""Real work on a node that does not see the project: the same bytes come home."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.experiments.cas import run_cas
from pipeline.experiments.temperature import temperature_rows
from pipeline.runtime import workers as module
from pipeline.runtime.batches import workers_of
from pipeline.runtime.parcels import call, pack
from pipeline.training.loop import load_checkpoint
from tests.fake_ray import FakeRay, ray_params
from tests.test_cas import cas_job
from tests.tiny_project import ALONE, folders_of, with_params
from tests.two_nodes import Cluster


class RayApart(FakeRay, Cluster):
    """Whose workers are all on the other node."""

    def __init__(self, *of_cluster: Any):
        FakeRay.__init__(self)
        Cluster.__init__(self, *of_cluster)

    def get(self, answer: Any) -> Any:
        if not callable(answer):
            return answer
        here = os.getcwd()
        self.at("away")
        try:
            return answer()
        finally:
            os.chdir(here)
            self.at("home")


@pytest.fixture
def cluster(tiny_project, tmp_path, monkeypatch) -> RayApart:
    """A copy of the tiny project, at home."""
    home = tmp_path / "home"
    shutil.copytree(tiny_project, home)
    monkeypatch.chdir(home)
    (home / "runs").mkdir(exist_ok=True)
    monkeypatch.setattr(module, "join_ray", lambda: None)
    monkeypatch.setattr(module, "require_resources", lambda *needs: None)
    needed = ["data/images", "models/tokenizer", "models/transformer", "models/classifier"]
    return RayApart(home, home / "runs", needed, monkeypatch)


def test_samples_of_an_experiment_are_drawn_elsewhere(cluster):
    params, runs = with_params(), Path("runs").absolute()
    alone = temperature_rows(params, folders_of(runs / "alone", params), ALONE)
    several = temperature_rows(
        params, folders_of(runs / "several", params), workers_of(ray_params(2))
    )
    assert alone == several and len(cluster.made) >= 12
    files = {path.relative_to(runs / "alone"): path for path in (runs / "alone").rglob("*.npy")}
    for name, path in files.items():
        assert (runs / "several" / name).read_bytes() == path.read_bytes()


def test_a_classifier_of_cas_trains_elsewhere(cluster):
    params = with_params(classifier={"steps": 4, "checkpoint_every": 2, "batch_size": 8})
    found = []
    for name in ("alone", "elsewhere"):
        job = cas_job(params, "transformer", "none", Path("runs/cas", name))
        parcel = pack(job)
        if name == "elsewhere":
            cluster.at("away")
        call(run_cas, parcel)
        os.chdir(Path(job.folder).parents[2])
        cluster.at("home")
        assert job.finished
        weights = load_checkpoint(Path(job.folder, "checkpoint.pt"))["task"]["model"]
        found.append((job.result.read_bytes(), weights))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=0)
