"""CAS: what its classifiers are trained on, and that they are the same again."""

from pathlib import Path

import pytest
import torch

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES, SAMPLES
from pipeline.data.images.pixels import as_float
from pipeline.data.images.shards import ImageShards
from pipeline.data.ranks import ALONE, Ranks
from pipeline.experiments import cas
from pipeline.training.classifier import accuracy
from tests.images import samples_in
from tests.tiny_project import (
    SIDE,
    validation,
    with_params,
)

pytestmark = pytest.mark.usefixtures("in_tiny_project")


def cas_job(
    params: Params, images: str, augmentation: str, folder: Path, images_dir: Path = IMAGES
) -> cas.CasJob:
    paths = (folder, images_dir, SAMPLES / images / "seed1", CLASSIFIER)
    folders = (str(path.absolute()) for path in paths)
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


@pytest.mark.parametrize("augmentation", cas.AUGMENTATIONS)
def test_workers_share_out_the_batch_of_one(tmp_path, augmentation):
    """Each picture cropped and augmented as by one worker."""
    params = with_params(classifier={"batch_size": 12})
    pictures = cas.training_pictures(cas_job(params, cas.REAL, augmentation, tmp_path), params)

    def batch(ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor]:
        return cas.CasBatches(pictures, params, cas.AUGMENTATIONS[augmentation], 1, ranks)(3)

    shares = [batch(Ranks(rank, 3)) for rank in range(3)]
    for whole, parts in zip(batch(ALONE), zip(*shares, strict=True), strict=True):
        assert torch.equal(torch.cat(parts), whole) and len(parts[0]) == 4


def test_cas_crops_as_the_reference_classifiers_training_does(tmp_path):
    """The whole of each sample where classifiers have crops of the whole, whatever others have."""
    params = with_params(
        data={"crop_scale": [0.3, 0.3], "crop_ratio": [1.0, 1.0]},
        classifier={"batch_size": 30, "crop_scale": [1.0, 1.0]},
    )
    pictures = cas.training_pictures(cas_job(params, "transformer", "none", tmp_path), params)
    shown, _ = cas.CasBatches(pictures, params, rand_augment=False, seed=1)(0)
    samples = {image.tobytes() for image in samples_in(SAMPLES / "transformer/seed1")[0]}
    assert {image.numpy().tobytes() for image in shown} <= samples


@pytest.mark.parametrize(("images", "count"), [(cas.REAL, 60), ("transformer", 90)])
def test_cas_made_anew_is_the_same(tmp_path, images, count):
    params = with_params(classifier={"steps": 4, "batch_size": 20, "checkpoint_every": 2})
    rows = []
    for name in ("first", "second"):
        job = cas_job(params, images, "randaugment", tmp_path / name)
        rows.append(cas.run_cas(job))
    assert rows[0] == rows[1] and rows[0]["training_images"] == count
    assert 0 <= rows[0]["top1"] <= rows[0]["top5"] <= 1


def test_accuracy_is_of_the_validation_images(tmp_path, monkeypatch):
    shown = []

    def noted(model, batches, labels, device):
        images = torch.cat(list(batches))
        with torch.no_grad():
            ranks = model.eval().outputs(as_float(images)).logits.argsort(dim=1, descending=True)
        shown.append((images, labels, (ranks[:, 0] == labels).double().mean().item()))
        return accuracy(model, images.split(7), labels, device)

    monkeypatch.setattr(cas, "accuracy", noted)
    params = with_params(classifier={"steps": 4, "batch_size": 20, "checkpoint_every": 2})
    job = cas_job(params, "transformer", "none", tmp_path)
    row = cas.run_cas(job)
    ((images, labels, top1),) = shown[-1:]
    held_out = ImageShards(IMAGES, "val")
    assert torch.equal(images, validation(len(held_out))[0])
    assert labels.tolist() == held_out.labels.tolist()
    assert row["top1"] == pytest.approx(top1)
