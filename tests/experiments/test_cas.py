"""CAS: what its classifiers are trained on, and that the same seed trains the same ones."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, SAMPLES
from pipeline.config.replicates import NETWORKS
from pipeline.data.images.shards import ImageShards
from pipeline.data.ranks import ALONE, Ranks
from pipeline.experiments import cas
from pipeline.runtime.files import read_json
from pipeline.training.classifier import accuracy
from pipeline.training.loop.training import Workers
from stages.cas import trainings
from tests.tiny_project import SIDE, validation, with_params

pytestmark = pytest.mark.usefixtures("in_tiny_project")


def cas_training(
    params: Params, images: str, augmentation: str, folder: Path, samples: Path | None = None
) -> cas.CasTraining:
    return cas.CasTraining(
        name=images,
        params=params,
        seed=1,
        folder=folder,
        workers=Workers.of(params.ray, params.cas.workers_per_classifier),
        images=images,
        augmentation=augmentation,
        samples=samples or SAMPLES / "transformer/seed1",
    )


@pytest.mark.parametrize(
    ("images", "augmentation"), [(cas.REAL, "randaugment"), ("transformer", "none")]
)
def test_batches_are_a_function_of_seed_and_step(tmp_path, images, augmentation):
    """Steps come out of order, as after a restart. Each worker makes its own rows of a batch."""
    params = with_params(classifier={"batch_size": 12})
    training = cas_training(params, images, augmentation, tmp_path)

    def batches(seed: int, ranks: Ranks = ALONE) -> cas.CasBatches:
        return cas.CasBatches(replace(training, seed=seed), ranks)

    straight = list(map(batches(1), range(4)))
    assert straight[0][0].shape == (12, 1, SIDE, SIDE) and straight[0][0].dtype == torch.uint8
    for step in (3, 0):
        again, labels = batches(1)(step)
        assert torch.equal(again, straight[step][0]) and torch.equal(labels, straight[step][1])
    assert not torch.equal(batches(2)(0)[0], straight[0][0])
    of_workers = [batches(1, Ranks(rank, 3))(3) for rank in range(3)]
    for whole, rows in zip(straight[3], zip(*of_workers, strict=True), strict=True):
        assert torch.equal(torch.cat(rows), whole) and len(rows[0]) == 4


@pytest.mark.parametrize(("images", "count"), [(cas.REAL, 60), ("transformer", 90)])
def test_a_classifier_is_the_same_again_and_tested_on_the_validation_images(
    tmp_path, monkeypatch, images, count
):
    tested, rows = [], []

    def noted(model, batches, labels, device):
        tested.append((torch.cat(list(batches)), labels))
        return accuracy(model, tested[-1][0].split(7), labels, device)

    monkeypatch.setattr(cas, "accuracy", noted)
    params = with_params(classifier={"steps": 2, "batch_size": 20, "checkpoint_every": 2})
    for name in ("first", "second"):
        cas.run_cas(training := cas_training(params, images, "randaugment", tmp_path / name))
        rows.append(read_json(training.result))
    assert rows[0] == rows[1] and rows[0]["training_images"] == count
    assert 0 <= rows[0]["top1"] <= rows[0]["top5"] <= 1
    held_out = ImageShards(IMAGES, "val")
    assert torch.equal(tested[-1][0], validation(len(held_out))[0])
    assert tested[-1][1].tolist() == held_out.labels.tolist()


def test_a_classifier_is_trained_for_each_set_augmentation_and_seed():
    named = SimpleNamespace(folder=lambda *_, **own: Path("-".join(map(str, own.values()))))
    jobs = trainings(with_params(cas={"steps": 7}), named)
    keys = {(job.images, job.augmentation, job.seed) for job in jobs}
    assert keys == set(product((cas.REAL, *NETWORKS), cas.AUGMENTATIONS, (0, 1)))
    assert len({job.folder for job in jobs}) == len(jobs)
    assert {job.params.classifier.steps for job in jobs} == {7}
    for job in jobs:
        own = IMAGES if job.images == cas.REAL else SAMPLES / job.images / f"seed{job.seed}"
        assert job.samples == own
