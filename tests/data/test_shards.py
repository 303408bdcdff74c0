"""Splits, shards, and the images and batches that are read from them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.images.batches import ImageBatches
from pipeline.data.images.crops import center_crop
from pipeline.data.images.pixels import decode_image, encode_png, to_chw
from pipeline.data.images.shards import GROUP, ImageShards, Item, write_manifest, write_shards
from pipeline.data.images.views import View
from pipeline.prepare.split import stratified_split
from pipeline.runtime.errors import UserError
from tests.images import noise_image


class FakeSource:
    """`counts[c]` small grey images of class c; remembers which were read, can fail at one, and
    can hold one ready-made image over and over."""

    def __init__(
        self,
        counts: list[int],
        fail_at: int | None = None,
        size: int = 6,
        image: Image.Image | None = None,
    ):
        labels = [label for label, count in enumerate(counts) for _ in range(count)]
        self.class_names = [f"class {c}" for c in range(len(counts))]
        self.items = [Item(f"k/{i:04d}", label, None) for i, label in enumerate(labels)]
        self.fail_at, self.size, self.image, self.was_read = fail_at, size, image, []

    def read(self, index: int) -> bytes:
        if index == self.fail_at:
            raise KeyboardInterrupt
        self.was_read.append(index)
        return encode_png(self.image or noise_image(self.size, self.size, "L", seed=index))


@settings(max_examples=60, deadline=None)
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
    source = FakeSource([50, 50])
    one, other = (stratified_split(source, 0.2, seed) for seed in (0, 1))
    assert set(one["val"]) != set(other["val"])
    labels = [source.items[i].label for i in one["train"]]
    assert labels != sorted(labels)


def test_class_of_one_image_is_named():
    with pytest.raises(UserError, match="'class 1' has one image") as error:
        stratified_split(FakeSource([3, 1]), 0.2, seed=0)
    assert "\n" not in str(error.value)


def test_class_without_a_training_image_is_named():
    source = FakeSource([2, 1])
    splits = ["train", "val", "val"]
    source.items = [item._replace(split=s) for item, s in zip(source.items, splits, strict=True)]
    with pytest.raises(UserError, match="'class 1' has no training image") as error:
        stratified_split(source, 0.2, seed=0)
    assert "\n" not in str(error.value)


def written(folder: Path, source, indices, shard_size: int) -> ImageShards:
    shards = {"train": write_shards(source, indices, "train", shard_size, folder)}
    write_manifest(folder, source.class_names, "fake", shards)
    return ImageShards(folder, "train")


def test_shards_round_trip_across_record_batches(tmp_path):
    source = FakeSource([100, 70])
    indices = np.random.default_rng(0).permutation(170).tolist()
    images = written(tmp_path, source, indices, shard_size=100)
    assert len(images) == 170 and images.class_names == source.class_names
    assert images.group_start.tolist() == [0, GROUP, 100, 100 + GROUP, 170]
    for position in (*range(0, 170, 7), 63, 64, 99, 100, 163, 164, 169):
        item = source.items[indices[position]]
        assert images.read(position) == (item.key, source.read(indices[position]))
        assert images.labels[position] == item.label


def test_shards_travel_by_their_name(tmp_path, monkeypatch):
    source = FakeSource([20])
    images = written(tmp_path, source, list(range(20)), shard_size=8)
    content = pickle.dumps(images)
    monkeypatch.chdir("/")
    assert len(content) < 500 and pickle.loads(content).read(13) == images.read(13)


@pytest.mark.parametrize("damage", ["missing", "cut", "no manifest"])
def test_shards_that_cannot_be_read_name_the_file_and_the_stage(tmp_path, damage):
    written(tmp_path, FakeSource([20]), list(range(20)), shard_size=8)
    path = tmp_path / ("manifest.json" if damage == "no manifest" else "train-00001.arrow")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
    with pytest.raises(UserError, match="dvc repro") as error:
        ImageShards(tmp_path, "train").read(8)
    assert path.name in error.value.subject


def test_manifest_counts_every_class(tmp_path):
    source = FakeSource([3, 4])
    split = {"train": [0, 1, 3, 4, 5], "val": [2, 6]}
    shards = {name: write_shards(source, i, name, 2, tmp_path) for name, i in split.items()}
    manifest = write_manifest(tmp_path, source.class_names, "fake", shards)
    assert manifest["counts"] == {
        "train": {"class 0": 2, "class 1": 3},
        "val": {"class 0": 1, "class 1": 1},
    }
    assert [s["count"] for s in manifest["shards"]["train"]] == [2, 2, 1]


def test_two_classes_of_one_name_are_counted_together(tmp_path):
    """As the cranes (bird, machine) of torchvision's ImageNet."""
    source = FakeSource([3, 4, 2])
    source.class_names = ["crane", "maillot", "crane"]
    shards = {"train": write_shards(source, list(range(9)), "train", 5, tmp_path)}
    manifest = write_manifest(tmp_path, source.class_names, "fake", shards)
    assert manifest["counts"] == {"train": {"crane": 5, "maillot": 4}}
    assert len(ImageShards(tmp_path, "train")) == 9


def test_interrupted_write_goes_on_without_rewriting(tmp_path):
    indices = list(range(10))
    whole = write_shards(FakeSource([10]), indices, "train", 4, tmp_path / "whole")
    folder = tmp_path / "resumed"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_shards(FakeSource([10], fail_at=6), indices, "train", 4, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["train-00000.arrow"]
    before = (folder / "train-00000.arrow").stat().st_mtime_ns
    source = FakeSource([10])
    resumed = write_shards(source, indices, "train", 4, folder)
    assert (folder / "train-00000.arrow").stat().st_mtime_ns == before
    assert sorted(source.was_read) == [4, 5, 6, 7, 8, 9]
    assert resumed == whole  # names, counts and hashes


def test_views(tmp_path, make_params):
    data = make_params(data={"image_size": 20, "crop_scale": [0.3, 0.6]}).data
    source = FakeSource([6], size=30)
    images = written(tmp_path, source, list(range(6)), shard_size=4)
    view = View(images, data, seed=0)
    center = center_crop(decode_image(source.read(5), 1), 20)
    np.testing.assert_array_equal(view.centers([5])[0, 0], np.asarray(center))
    again = View(images, data, seed=0).crops([1, 2], 3)
    np.testing.assert_array_equal(view.crops([2], 3)[0], again[1])
    draws = {view.crops([2], draw).numpy().tobytes() for draw in range(5)}
    assert len(draws) == 5 and again.shape == (2, 1, 20, 20)
    together, one_by_one = view.crops(range(6), 3), [view.crops([i], 3) for i in range(6)]
    assert torch.equal(together, torch.cat(one_by_one))
    everything, labels = view.first(100)
    assert everything.shape == (6, 1, 20, 20) and everything.dtype == torch.uint8
    assert torch.equal(everything[5], view.centers([5])[0])
    assert labels.tolist() == [0] * 6
    few, labels = view.first(2)
    assert torch.equal(few, everything[:2]) and len(labels) == 2
    batches = list(view.batches(4))
    assert [len(batch) for batch in batches] == [4, 2]
    assert torch.equal(torch.cat(batches), everything)


def ramps(side: int) -> Image.Image:
    """Red grows from left to right and green from top to bottom, from 0 to 255."""
    ramp = np.linspace(0, 255, side)
    red, green = np.meshgrid(ramp, ramp)
    return Image.fromarray(np.stack([red, green, 0 * red], axis=2).round().astype(np.uint8))


def test_crops_have_the_scale_ratio_and_flip_of_the_params(tmp_path, make_params):
    images = written(tmp_path, FakeSource([2], image=ramps(64)), [0, 1], shard_size=4)

    def crops(**data) -> np.ndarray:
        data = make_params(data={"image_size": 20, "channels": 3} | data).data
        view = View(images, data, seed=0)
        return torch.cat([view.crops([0], draw) for draw in range(40)]).numpy().astype(float)

    def sides(crops: np.ndarray) -> tuple[float, float]:
        """Width and height of the boxes as fractions of the image's, from the ramps' extent."""
        return tuple(np.ptp(crops[:, c], axis=(1, 2)).mean() / (255 * 19 / 20) for c in (0, 1))

    whole = {"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "flip": False}
    small = whole | {"crop_scale": [0.25, 0.25]}
    wide = small | {"crop_ratio": [4.0, 4.0]}
    for data, wanted in ((whole, (1, 1)), (small, (0.5, 0.5)), (wide, (1, 0.25))):
        assert sides(crops(**data)) == pytest.approx(wanted, abs=0.03)
    to_the_right = crops(**whole)[:, 0, 0, -1] > 128
    assert to_the_right.all()
    to_the_right = crops(**whole | {"flip": True})[:, 0, 0, -1] > 128
    assert 8 < to_the_right.sum() < 32


def test_crops_are_seeded_by_seed_key_and_draw(tmp_path, make_params):
    data = make_params(data={"image_size": 20, "crop_scale": [0.3, 0.6]}).data
    twins = FakeSource([2], image=noise_image(30, 30, "L"))
    images = written(tmp_path, twins, [0, 1], shard_size=4)
    one, other = View(images, data, seed=0), View(images, data, seed=1)
    crops = [one.crops([0], 0), one.crops([1], 0), one.crops([0], 1), other.crops([0], 0)]
    assert len({crop.numpy().tobytes() for crop in crops}) == 4


def test_batches_are_a_function_of_seed_and_step(tmp_path, make_params):
    data = make_params(data={"image_size": 20, "crop_scale": [0.3, 0.6]}).data
    images = written(tmp_path, FakeSource([40, 50], size=30), list(range(90)), shard_size=70)

    def batches(seed: int) -> ImageBatches:
        return ImageBatches(images, data, batch_size=32, seed=seed)

    in_order = batches(1)
    straight = [in_order(step) for step in range(6)]
    assert straight[0][0].shape == (32, 1, 20, 20)
    for step in (4, 0, 5):  # out of order, as after a restart
        pixels, labels = batches(1)(step)
        assert torch.equal(pixels, straight[step][0]) and torch.equal(labels, straight[step][1])
    pixels, labels = batches(2)(0)
    assert not torch.equal(pixels, straight[0][0]) and not torch.equal(labels, straight[0][1])


def test_an_epoch_of_batches_shows_every_image_once_with_its_label(tmp_path, make_params):
    """Images of one grey each, so that a crop tells which it is of."""

    class Greys(FakeSource):
        def read(self, index):
            return encode_png(Image.new("L", (30, 30), index))

    data = make_params(data={"image_size": 20, "crop_scale": [0.3, 0.6]}).data
    source = Greys([40, 56])
    images = written(tmp_path, source, list(range(96)), shard_size=70)
    batches = ImageBatches(images, data, batch_size=32, seed=1)
    epochs = []
    for epoch in range(2):
        read = [batches(3 * epoch + step) for step in range(3)]
        seen = torch.cat([pixels[:, 0, 0, 0] for pixels, _ in read]).tolist()
        assert sorted(seen) == list(range(96))
        labels = torch.cat([labels for _, labels in read]).tolist()
        assert labels == [source.items[i].label for i in seen]
        epochs.append(seen)
    assert epochs[0] != epochs[1]


def test_batches_show_another_crop_of_an_image_each_time(tmp_path, make_params):
    """One picture, 8 times, in batches of 8: all crops differ, in a batch and between epochs."""
    images = written(tmp_path, FakeSource([8], image=ramps(64)), list(range(8)), shard_size=8)

    def crops(**data) -> set[bytes]:
        data = make_params(data={"image_size": 20, "channels": 3} | data).data
        batches = ImageBatches(images, data, batch_size=8, seed=1)
        return {crop.numpy().tobytes() for step in range(4) for crop in batches(step)[0]}

    assert len(crops(crop_scale=[0.3, 0.6])) == 32
    assert len(crops(crop_scale=[1.0, 1.0], crop_ratio=[1.0, 1.0], flip=True)) == 2
    (still,) = crops(crop_scale=[1.0, 1.0], crop_ratio=[1.0, 1.0])
    assert still == to_chw(center_crop(ramps(64), 20)).tobytes()
