"""Metrics of images, stored or made on the fly, and the reference features and labels."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given as drawing
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.config.paths import FEATURES
from pipeline.config.replicates import main_replicates
from pipeline.evaluation import evaluator as module
from pipeline.evaluation.evaluator import Evaluator, open_measured, proportional_labels
from pipeline.evaluation.features import (
    BATCH,
    Features,
    extract,
    reference_features,
    reference_statistics,
)
from pipeline.evaluation.fid import fid
from pipeline.evaluation.image_sets import ArrayImages
from pipeline.experiments.rows import open_sampler
from pipeline.runtime.batches import Maker, make_tensors, parts_folder
from pipeline.sampling import balanced_labels, sample_batches
from tests.tiny_project import ALONE, CLASSES, CPU, classified, training_images, with_params

pytestmark = pytest.mark.usefixtures("in_tiny_project")

COUNT, SIZE = 90, 40  # images in all, images per batch
LABELS = balanced_labels(COUNT, CLASSES)


def means(device: torch.device) -> Callable[..., dict[str, Tensor]]:
    """Open a measure that returns the mean of each image and the labels."""
    return lambda images, tokens, labels, seed: {
        "means": images.float().mean(dim=(1, 2, 3)),
        "labels": labels,
    }


def given() -> tuple[Maker, list[tuple]]:
    params = with_params()
    replicate = main_replicates(params, "transformer")[1]
    settings = params.decoding_settings()
    return Maker(open_sampler, replicate), sample_batches(settings, LABELS, batch_size=SIZE, seed=5)


def looked(path: Path) -> dict[str, Tensor]:
    evaluator, (sampler, batches) = Evaluator(with_params(), ALONE, second=True), given()
    return make_tensors(path, ALONE, evaluator.on_the_fly(sampler, Maker(means)), batches, "them")


@pytest.fixture
def drawn(in_tiny_project) -> Tensor:
    sampler, batches = given()
    draw = sampler.open(CPU)
    return torch.cat([draw(*batch) for batch in batches])


def test_outputs_on_the_fly_are_those_of_stored_images(tmp_path, monkeypatch, drawn):
    monkeypatch.setattr("pipeline.evaluation.features.PART", SIZE)
    path = tmp_path / "a.safetensors"
    found = looked(path)
    torch.testing.assert_close(found["means"], drawn.float().mean(dim=(1, 2, 3)))
    assert torch.equal(found["labels"], LABELS)
    numbers = sum(tensor[0].numel() for tensor in found.values())
    kept = sum(part.stat().st_size for part in parts_folder(path).iterdir())
    assert kept < COUNT * 8 * numbers  # so no images are stored
    evaluator, images = Evaluator(with_params(), ALONE, second=True), ArrayImages(drawn.numpy())
    stored = evaluator.outputs(images, tmp_path / "stored")
    assert stored.keys() == {"features", "logits", "class_logits", "second"}
    again = evaluator.outputs(ArrayImages(0 * drawn.numpy()), tmp_path / "stored")  # loads files
    for name, theirs in stored.items():
        assert len(theirs) == COUNT and torch.equal(again[name], theirs)
        torch.testing.assert_close(found[name], theirs, rtol=1e-5, atol=1e-5)
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors.parts", "stored"]
    own = fid(stored["second"], reference_features("random"))
    measured, wanted = (evaluator.metrics(each, LABELS) for each in (found, stored))
    assert wanted["fid_random"] == pytest.approx(own, rel=1e-9) != wanted["fid_classifier"]
    assert measured == pytest.approx(wanted, rel=1e-4, abs=1e-6) and measured["samples"] == COUNT


def test_too_few_training_images_for_the_second_extractor_only_leave_out_its_fid(
    tmp_path, monkeypatch, drawn
):
    few = reference_features("random")[:5]
    monkeypatch.setattr(
        module.features,
        "reference_features",
        lambda name: few if name == "random" else reference_features(name),
    )
    evaluator = Evaluator(with_params(), ALONE, second=True)
    outputs = evaluator.outputs(ArrayImages(drawn.numpy()), tmp_path / "stored")
    found = evaluator.metrics(outputs, LABELS)
    assert "fid_random" not in found and found["precision_random"] is not None


def test_copies_of_a_few_training_images_are_precise_and_recall_only_those(tmp_path):
    copies = ArrayImages(training_images()[:5].numpy().repeat(10, axis=0))
    evaluator = Evaluator(with_params(), ALONE, second=True)
    found = evaluator.metrics(evaluator.outputs(copies, tmp_path / "copies"), None)
    for extractor in ("classifier", "random"):
        assert found[f"precision_{extractor}"] == 1
        assert found[f"recall_{extractor}"] <= 5 / len(training_images())


def test_networks_see_batches_of_nearly_one_size_and_each_image_once(drawn):
    """The outputs of a small last batch could depend on the number of threads."""
    images, sizes = torch.cat([drawn] * 3)[: 3 * BATCH + 6], []

    def network(batch: Tensor) -> Features:
        sizes.append(len(batch))
        return Features(batch.float().mean(dim=(2, 3)))

    found = extract(network, CPU, images)
    assert sum(sizes) == 198 and max(sizes) - min(sizes) <= 2 * len(sizes)
    assert max(sizes) <= BATCH and min(sizes) > 11
    torch.testing.assert_close(found.features, images.float().mean(dim=(2, 3)))


def test_images_have_the_strides_of_stored_ones():
    """Convolutions round differently if channels are the last dimension in memory."""
    image = torch.zeros(2, 3, 4, 4, dtype=torch.uint8).to(memory_format=torch.channels_last)

    def strides(images: Tensor) -> dict[str, Tensor]:
        return {"strides": torch.tensor(images.stride())}

    shown = open_measured(Maker(None, here=lambda: image), [Maker(None, here=strides)], CPU)
    assert shown()["strides"].tolist() == [48, 16, 4, 1]


def apportioned(count: int, images: list[int]) -> list[int]:
    """Apply Sainte-Laguë's method: the next label is the class with the largest images / (2k + 1),
    where k counts the class's labels so far. Among equal classes, the first is chosen."""
    taken = [0] * len(images)
    labels = []
    for _ in range(count):
        best = max(range(len(images)), key=lambda c: (images[c] / (2 * taken[c] + 1), -c))
        taken[best] += 1
        labels.append(best)
    return labels


@settings(deadline=None, max_examples=50)
@drawing(
    st.integers(1, 100),
    st.lists(st.sampled_from([0, 1, 2, 3, 5, 30, 64, 1000]), min_size=1, max_size=12).filter(any),
)
def test_labels_are_apportioned_to_the_classes(count, images):
    assert proportional_labels(count, torch.tensor(images)).tolist() == apportioned(count, images)


@pytest.mark.parametrize("labels, counts", [("training", [6, 0, 2]), ("uniform", [3, 3, 2])])
def test_the_param_chooses_the_labels(monkeypatch, labels, counts):
    measured = Evaluator(with_params(evaluation={"labels": labels}), ALONE)
    uneven = SimpleNamespace(labels=np.array([2, 0, 0, 0, 0, 0, 0, 2]), class_names=["a", "b", "c"])
    monkeypatch.setattr(module, "ImageShards", lambda folder, split: uneven)
    assert measured.labels(8).bincount(minlength=3).tolist() == counts


def test_the_reference_is_of_the_training_images():
    features, _ = classified(training_images().numpy())
    np.testing.assert_allclose(reference_features("classifier"), features, rtol=1e-5, atol=1e-5)
    mu, sigma = reference_statistics(with_params())
    np.testing.assert_allclose(mu, features.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(sigma, np.cov(features.T), rtol=1e-4, atol=1e-6)
    assert {path.name for path in FEATURES.iterdir()} == {"classifier", "random"}
