"""Published samples: pixels and labels in the order in which they were drawn, in shards like the
data set's; and how CAS reads them."""

import os
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from PIL import Image

from pipeline.data.images import samples, shards
from pipeline.data.images.pixels import random_resized_crop
from pipeline.data.images.shards import SAMPLES, ImageShards, View
from pipeline.data.order import BatchOrder
from pipeline.experiments import cas
from pipeline.runtime.batches import BatchWorkers
from pipeline.runtime.files import publish_folder
from tests.experiments.test_cas import cas_training
from tests.images import samples_in, write_samples
from tests.tiny_project import SIDE, Dies, with_params

COUNT, CLASSES, SHARD = 150, 3, 70
LABELS = (np.arange(COUNT) % CLASSES).tolist()
NAMES = [f"class {label}" for label in range(CLASSES)]


def noise(channels: int = 1) -> np.ndarray:
    shape = (COUNT, channels, SIDE, SIDE)
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def write(folder: Path, images=None, batch_size: int = 32) -> Path:
    write_samples(noise() if images is None else images, LABELS, NAMES, SHARD, folder, batch_size)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_and_labels_are_those_that_were_drawn_in_their_order(
    tmp_path, monkeypatch, channels
):
    images = noise(channels)
    write(tmp_path / "run", images)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "link", Dies(os.link, calls=2))
        publish_folder(tmp_path / "run", tmp_path / "published", keep=True)
    assert not (tmp_path / "published").exists()
    publish_folder(tmp_path / "run", tmp_path / "published", keep=True)
    found, labels = samples_in(tmp_path / "published")
    assert np.array_equal(found, images) and labels.tolist() == LABELS
    data = with_params(data={"channels": channels}).data
    read = View(ImageShards(tmp_path / "published", SAMPLES), data)
    assert read.images.class_names == NAMES and read.shape == images.shape[1:]
    assert read.labels.tolist() == LABELS
    assert np.array_equal(read.read(60, 75).numpy(), images[60:75])
    first = View(ImageShards(tmp_path / "run", SAMPLES), data, count=101)
    content = cloudpickle.dumps(first)  # for Ray
    there = cloudpickle.loads(content)
    assert len(content) < 2000 and len(there) == len(there.labels) == 101
    assert np.array_equal(there.read(65, 101).numpy(), images[65:101])


class Backwards(BatchWorkers):
    """Make the last batch first, as several workers might."""

    def make(self, maker, batches):
        return super().make(maker, dict(reversed(batches.items())))


@pytest.mark.parametrize("batch_size", [7, SHARD, COUNT])
def test_the_same_samples_are_the_same_bytes_however_they_were_drawn(
    tmp_path, monkeypatch, batch_size
):
    whole = contents(write(tmp_path / "whole"))
    monkeypatch.setattr("tests.images.BatchWorkers", Backwards)
    assert contents(write(tmp_path / "again", batch_size=batch_size)) == whole
    names = {f"samples-0000{number}.arrow" for number in range(3)}
    assert set(whole) == names | {"samples-labels.npy", "manifest.json"}
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize(("calls", "left"), [(3, 5), (6, 2)])
def test_a_killed_run_resumes_after_its_batches(tmp_path, monkeypatch, calls, left):
    """There are five batches, each drawn once, in three shards."""
    whole, folder = contents(write(tmp_path / "whole")), tmp_path / "killed"
    dying = Dies(shards.write_shard, calls)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for module in (samples, shards):
            patch.setattr(module, "write_shard", dying)
        write(folder)
    counted = Dies(shards.write_shard, calls=100)
    for module in (samples, shards):
        monkeypatch.setattr(module, "write_shard", counted)
    for _ in range(2):  # the second time nothing is left to do
        write(folder)
        assert 100 - counted.left == left
    assert contents(folder) == whole


def test_cas_crops_samples_as_it_would_those_of_an_array(tmp_path):
    """CAS takes the first `cas.samples` in an order that does not depend on the shards. A crop's
    seed is its sample's number."""
    classifier = {"batch_size": 7, "crop_scale": [0.3, 0.6]}
    params = with_params(classifier=classifier, cas={"samples": 130})
    images, data, folder = noise(), params.classifier_images, write(tmp_path / "set")
    training = cas_training(params, "transformer", "none", folder, samples=folder)
    batches = cas.CasBatches(training)
    order = BatchOrder(130, 7, seed=1)
    for step in (0, 1, 18, 40):
        found, labels = batches(step)
        chosen = order(step)
        assert labels.tolist() == [LABELS[i] for i in chosen] and max(chosen) < 130
        for crop, index in zip(found, chosen, strict=True):
            picture = Image.fromarray(images[index, 0])
            wanted = random_resized_crop(picture, data, (1, f"cas/{index}", step))
            assert np.array_equal(crop[0], np.asarray(wanted))
