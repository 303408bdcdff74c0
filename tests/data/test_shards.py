"""Splits and shards, and the images and batches read from them."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.images.batches import ImageBatches
from pipeline.data.images.pixels import center_crop, decode_image, encode_png, to_chw
from pipeline.data.images.shards import GROUP, ImageShards, Item, View, write_manifest, write_shards
from pipeline.prepare.datasets import stratified_split
from tests.errors import refused
from tests.images import noise_image
from tests.tiny_project import Dies


class FakeSource:
    """Has `counts[c]` grey images of class c; `picture` makes the image with an index."""

    version = "fake"

    def __init__(self, counts: list[int], picture: Callable[[int], Image.Image] | None = None):
        labels = [label for label, count in enumerate(counts) for _ in range(count)]
        self.class_names = [f"class {c}" for c in range(len(counts))]
        self.items = [Item(f"k/{i:04d}", label, None) for i, label in enumerate(labels)]
        self.picture = picture or (lambda i: noise_image(30, 30, "L", seed=i))

    def read(self, index: int) -> bytes:
        return encode_png(self.picture(index))


def written(folder: Path, source: FakeSource, shard_size: int, indices=None) -> ImageShards:
    indices = range(len(source.items)) if indices is None else indices
    shards = {"train": write_shards(source, indices, "train", shard_size, folder)}
    write_manifest(folder, source.class_names, "fake", shards)
    return ImageShards(folder, "train")


@pytest.fixture
def data(make_params):
    """Return the params of `data`, with small crops unless changed."""
    usual = {"image_size": 20, "crop_scale": [0.3, 0.6]}
    return lambda **changes: make_params(data=usual | changes).data


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(2, 30), min_size=1, max_size=5),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
def test_split_holds_out_the_same_share_of_each_class(counts, fraction, seed):
    source = FakeSource(counts)
    split = stratified_split(source, fraction, seed)
    assert sorted(split["train"] + split["val"]) == list(range(sum(counts)))
    for label, count in enumerate(counts):
        held_out = sum(source.items[i].label == label for i in split["val"])
        assert 1 <= held_out <= count - 1
        assert abs(held_out - fraction * count) <= 1
    assert split == stratified_split(source, fraction, seed)


def test_split_depends_on_the_seed_and_mixes_classes():
    one, other = (stratified_split(FakeSource([50, 50]), 0.2, seed) for seed in (0, 1))
    assert set(one["val"]) != set(other["val"])
    assert min(one["train"][-20:]) < 50 <= max(one["train"][:20])


@pytest.mark.parametrize("splits", [(None, None, None), ("train", "val", "val")])
def test_a_class_with_too_few_images_is_named(splits):
    source = FakeSource([2, 1])
    source.items = [item._replace(split=s) for item, s in zip(source.items, splits, strict=True)]
    with refused("data.source", match=r"'class 1' has no training image left"):
        stratified_split(source, 0.2, seed=0)


def test_shards_round_trip_across_record_batches(tmp_path, monkeypatch):
    source, order = FakeSource([100, 70]), np.random.default_rng(0).permutation(170).tolist()
    images = written(tmp_path, source, 100, order)
    assert len(images) == 170 and images.class_names == source.class_names
    assert images.group_start.tolist() == [0, GROUP, 100, 100 + GROUP, 170]
    for position in (0, 1, 63, 64, 99, 100, 163, 164, 169):
        item = source.items[order[position]]
        assert images.read(position) == (item.key, source.read(order[position]))
        assert images.labels[position] == item.label
    content = pickle.dumps(images)  # for a loader, which maps the files itself
    monkeypatch.chdir("/")
    assert len(content) < 500 and pickle.loads(content).read(13) == images.read(13)


@pytest.mark.parametrize("damage", ["missing", "cut", "no manifest"])
def test_shards_that_cannot_be_read_name_the_folder_and_the_stage(tmp_path, damage):
    written(tmp_path, FakeSource([20]), shard_size=8)
    path = tmp_path / ("manifest.json" if damage == "no manifest" else "train-00001.arrow")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
    with refused(match=rf"^{tmp_path}.*dvc repro"):
        ImageShards(tmp_path, "train").read(8)


def test_manifest_counts_every_class(tmp_path):
    """Two classes with the same name, such as ImageNet's cranes, are counted together."""
    source = FakeSource([3, 4, 2])
    source.class_names = ["crane", "maillot", "crane"]
    split = {"train": [0, 1, 3, 4, 5, 7, 8], "val": [2, 6]}
    shards = {name: write_shards(source, i, name, 3, tmp_path) for name, i in split.items()}
    manifest = write_manifest(tmp_path, source.class_names, "fake", shards)
    counts = {"train": {"crane": 4, "maillot": 3}, "val": {"crane": 1, "maillot": 1}}
    assert manifest["counts"] == counts
    assert [s["count"] for s in manifest["shards"]["train"]] == [3, 3, 1]


def test_interrupted_write_resumes_without_rewriting(tmp_path, monkeypatch):
    whole = write_shards(FakeSource([10]), range(10), "train", 4, tmp_path / "whole")
    folder, source = tmp_path / "resumed", FakeSource([10])
    folder.mkdir()
    monkeypatch.setattr(source, "read", Dies(source.read, calls=6))
    with pytest.raises(KeyboardInterrupt):
        write_shards(source, range(10), "train", 4, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["train-00000.arrow"]
    source.read.left = 6  # of the images that are not in the first shard
    assert write_shards(source, range(10), "train", 4, folder) == whole
    assert source.read.left == 0


def test_views(tmp_path, data):
    source = FakeSource([3, 3])
    images = written(tmp_path, source, shard_size=4)
    view = View(images, data(), seed=0)
    together, one_by_one = view.crops(range(6), 3), [view.crops([i], 3) for i in range(6)]
    assert torch.equal(together, torch.cat(one_by_one)) and together.shape == (6, 1, 20, 20)
    centers, labels = view.centers([5, 1]), view.labels[[5, 1]]
    assert centers.shape == (2, 1, 20, 20) and centers.dtype == torch.uint8
    assert labels.tolist() == [1, 0]
    wanted = center_crop(decode_image(source.read(5), 1), 20)
    np.testing.assert_array_equal(centers[0, 0], np.asarray(wanted))


def ramps(index: int = 0) -> Image.Image:
    """Red grows from left to right and green from top to bottom, from 0 to 255."""
    red, green = np.meshgrid(*[np.linspace(0, 255, 64)] * 2)
    return Image.fromarray(np.stack([red, green, 0 * red], axis=2).round().astype(np.uint8))


def test_crops_have_the_scale_ratio_and_flip_of_the_params(tmp_path, data):
    images = written(tmp_path, FakeSource([2], ramps), shard_size=4)

    def crops(**changes) -> np.ndarray:
        view = View(images, data(channels=3, **changes), seed=0)
        return torch.cat([view.crops([0], draw) for draw in range(40)]).numpy().astype(float)

    def sides(crops: np.ndarray) -> tuple[float, ...]:
        """Return the boxes' widths and heights as fractions of the image, from the ramps' range."""
        return tuple(np.ptp(crops[:, c], axis=(1, 2)).mean() / (255 * 19 / 20) for c in (0, 1))

    whole = {"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "flip": False}
    small = whole | {"crop_scale": [0.25, 0.25]}
    wide = small | {"crop_ratio": [4.0, 4.0]}
    for changes, wanted in ((whole, (1, 1)), (small, (0.5, 0.5)), (wide, (1, 0.25))):
        assert sides(crops(**changes)) == pytest.approx(wanted, abs=0.03)
    assert (crops(**whole) == to_chw(center_crop(ramps(), 20))).all()
    mirrored = crops(**whole | {"flip": True})[:, 0, 0, -1] < 128
    assert 8 < mirrored.sum() < 32


def test_crops_are_seeded_by_seed_key_and_draw(tmp_path, data):
    twins = FakeSource([2], lambda index: noise_image(30, 30, "L"))
    images = written(tmp_path, twins, shard_size=4)
    one, other = View(images, data(), seed=0), View(images, data(), seed=1)
    crops = [one.crops([0], 0), one.crops([1], 0), one.crops([0], 1), other.crops([0], 0)]
    assert len({crop.numpy().tobytes() for crop in crops}) == 4


def test_an_epoch_of_batches_shows_another_crop_of_every_image_with_its_label(tmp_path, data):
    """Red encodes the image, green and blue encode the crop."""

    def picture(index: int) -> Image.Image:
        return Image.merge("RGB", [Image.new("L", (64, 64), index), *ramps().split()[:2]])

    source = FakeSource([40, 56], picture)
    images = written(tmp_path, source, shard_size=70)
    batches, other = (ImageBatches(images, data(channels=3), 32, seed) for seed in (1, 2))
    orders, crops = [], set()
    for epoch in range(2):
        read = [batches(3 * epoch + step) for step in range(3)]
        pixels, labels = (torch.cat(own) for own in zip(*read, strict=True))
        orders.append(pixels[:, 0, 0, 0].tolist())
        assert sorted(orders[-1]) == list(range(96))
        assert labels.tolist() == [source.items[i].label for i in orders[-1]]
        crops |= {crop[1:].numpy().tobytes() for crop in pixels}
    assert orders[0] != orders[1] and len(crops) == 2 * 96
    assert not any(map(torch.equal, other(5), read[2]))
