"""Crops, reading order, sources of images, shards and splits."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.crops import center_crop, crop_box, random_resized_crop
from pipeline.data.order import BatchOrder
from pipeline.data.shards import (
    ROW_GROUP,
    ImageBatches,
    ImageShards,
    View,
    as_float,
    as_uint8,
    decode_image,
    stratified_split,
    write_manifest,
    write_shards,
)
from pipeline.data.sources import Item, encode_png, open_source
from pipeline.errors import UserError


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# --- crops ----------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted),
    seed=st.integers(0, 2**32),
)
def test_crop_box_lies_in_the_image(width, height, scale, ratio, seed):
    box = crop_box(width, height, scale, ratio, np.random.default_rng(seed))
    left, top, right, bottom = box
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert all(isinstance(x, int) for x in box)


def test_crop_box_has_the_area_and_aspect_asked_for():
    scale, ratio = (0.1, 0.7), (3 / 4, 4 / 3)
    areas, aspects, corners = [], [], set()
    for seed in range(500):
        left, top, right, bottom = crop_box(300, 200, scale, ratio, np.random.default_rng(seed))
        w, h = right - left, bottom - top
        slack = 0.5 / w + 0.5 / h + 1e-3  # sides are rounded to pixels
        area, aspect = w * h / (300 * 200), w / h
        assert scale[0] * (1 - slack) <= area <= scale[1] * (1 + slack)
        assert ratio[0] * (1 - slack) <= aspect <= ratio[1] * (1 + slack)
        areas.append(area)
        aspects.append(np.log(aspect))
        corners.add((left, top))
    # The whole range is used, evenly: area uniform (but for boxes that stuck out), aspect in log.
    assert min(areas) < 0.13 and max(areas) > 0.6 and abs(np.mean(aspects)) < 0.05
    assert len(corners) > 400


def test_crop_box_that_cannot_fit_is_the_centre():
    box = crop_box(10, 100, (1.0, 1.0), (1.0, 1.0), np.random.default_rng(0))
    assert box == (0, 45, 10, 55)


def noise_image(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, 3)
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_center_crop_at_the_same_size_is_the_identity(mode):
    image = noise_image(28, 28, mode)
    assert center_crop(image, 28).tobytes() == image.tobytes()


@pytest.mark.parametrize("size", [(28, 40), (41, 28)])
def test_center_crop_cuts_the_middle(size):
    image = noise_image(*size)
    left, top = (size[0] - 28) // 2, (size[1] - 28) // 2
    middle = np.asarray(image)[top : top + 28, left : left + 28]
    np.testing.assert_array_equal(np.asarray(center_crop(image, 28)), middle)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (200, 7)])
def test_crops_of_odd_sizes_are_squares(size):
    image = noise_image(*size)
    assert center_crop(image, 16).size == (16, 16)
    crop = random_resized_crop(image, 16, (0.1, 1), (0.5, 2), True, seed=(0,))
    assert crop.size == (16, 16)


def test_random_crop_is_a_function_of_its_seed():
    image = noise_image(64, 64)

    def crop(*seed):
        return random_resized_crop(image, 16, (0.2, 1), (0.75, 1.33), True, seed).tobytes()

    assert crop(0, "a", 1) == crop(0, "a", 1)
    assert len({crop(0, "a", 1), crop(1, "a", 1), crop(0, "b", 1), crop(0, "a", 2)}) == 4


def test_flip_mirrors_half_of_the_crops():
    image = noise_image(16, 16, "L")
    straight, mirrored = image.tobytes(), np.asarray(image)[:, ::-1].tobytes()

    def crops(flip):
        whole = ((1.0, 1.0), (1.0, 1.0))
        return [random_resized_crop(image, 16, *whole, flip, (i,)).tobytes() for i in range(300)]

    flipped = crops(True)
    assert set(flipped) == {straight, mirrored}
    assert 110 < flipped.count(mirrored) < 190
    assert set(crops(False)) == {straight}


# --- order ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(items=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 1000))
def test_each_epoch_is_a_permutation(items, batch_size, seed):
    order = BatchOrder(items, batch_size, seed)
    batches = [order(step) for step in range(3 * items // batch_size + 2)]
    assert all(len(batch) == batch_size for batch in batches)
    stream = np.concatenate(batches)
    for epoch in range(len(stream) // items):
        assert sorted(stream[epoch * items : (epoch + 1) * items]) == list(range(items))


def test_order_is_a_function_of_seed_and_step():
    order = BatchOrder(17, 5, seed=3)
    straight = [order(step).tolist() for step in range(12)]
    backwards = [BatchOrder(17, 5, seed=3)(step).tolist() for step in reversed(range(12))][::-1]
    assert straight == backwards
    assert [order(step).tolist() for step in (11, 0, 7)] == [straight[i] for i in (11, 0, 7)]
    assert straight != [BatchOrder(17, 5, seed=4)(step).tolist() for step in range(12)]
    stream = np.concatenate(straight)
    assert stream[:17].tolist() != stream[17:34].tolist()  # epochs differ


@pytest.mark.parametrize("window", [1, 2, 3])
def test_blocks_are_read_window_by_window(window):
    starts = np.array([0, 4, 7, 12, 13, 20, 26, 30])
    block_of = np.searchsorted(starts, np.arange(30), side="right") - 1
    order = BatchOrder(30, 1, 0, starts, window)
    orders = set()
    for epoch in range(4):
        stream = [order(epoch * 30 + i)[0] for i in range(30)]
        assert sorted(stream) == list(range(30))
        first_seen = list(dict.fromkeys(block_of[stream].tolist()))
        orders.add(tuple(first_seen))
        position, shuffled = 0, False
        while position < 30:  # the stream falls into runs that are whole blocks, `window` at once
            blocks, size = set(), 0
            for count in range(1, 31 - position):
                blocks = set(block_of[stream[position : position + count]].tolist())
                size = sum(starts[b + 1] - starts[b] for b in blocks)
                if count == size and (len(blocks) == window or position + count == 30):
                    break
            assert len(blocks) <= window
            read = stream[position : position + size]
            shuffled = shuffled or read != sorted(read)
            position += size
        assert shuffled  # within the window
    assert len(orders) > 1  # and blocks among themselves


# --- sources --------------------------------------------------------------------------------------


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def folder_source(root: Path):
    return open_source(f"folder:{root}", str(root / "downloads"))


def test_mnist5k_is_balanced_and_reads():
    source = open_source("mnist5k", "nowhere")
    assert source.class_names == [str(d) for d in range(10)]
    assert np.bincount([item.label for item in source.items]).tolist() == [500] * 10
    assert len({item.key for item in source.items}) == 5000
    image = decode_image(source.read(17), channels=1)
    assert image.size == (28, 28) and image.mode == "L" and np.asarray(image).max() > 100


def test_folder_with_a_split_of_its_own(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                save(noise_image(8, 8, seed=i), tmp_path / split / name / f"{i}.png")
    save(noise_image(8, 8), tmp_path / "train" / "dog" / "nested" / "deeper" / "x.JPG")
    (tmp_path / "train" / "dog" / "notes.txt").write_text("no image")
    source = folder_source(tmp_path)
    assert source.class_names == ["cat", "dog"]
    keys = [item.key for item in source.items if item.split == "train" and item.label == 1]
    assert keys == [
        "train/dog/0.png",
        "train/dog/1.png",
        "train/dog/2.png",
        "train/dog/nested/deeper/x.JPG",
    ]
    split = stratified_split(source, 0.5, seed=0)
    assert {name: len(indices) for name, indices in split.items()} == {"train": 7, "val": 4}
    assert all(source.items[i].split == name for name in split for i in split[name])


def test_test_folder_serves_as_validation(tmp_path):
    for split in ("train", "test"):
        save(noise_image(8, 8), tmp_path / split / "a" / "0.png")
    assert {item.split for item in folder_source(tmp_path).items} == {"train", "val"}


def test_train_folder_alone_is_not_taken_for_a_class(tmp_path):
    for name in ("cat", "dog"):
        for i in range(2):
            save(noise_image(8, 8, seed=i), tmp_path / "train" / name / f"{i}.png")
    assert folder_source(tmp_path).class_names == ["cat", "dog"]


def test_folder_without_a_split(tmp_path):
    for name, count in (("b", 5), ("a", 4)):
        for i in range(count):
            save(noise_image(8, 8, seed=i), tmp_path / name / f"{i}.png")
    source = folder_source(tmp_path)
    assert source.class_names == ["a", "b"]
    assert [item.label for item in source.items] == [0] * 4 + [1] * 5
    assert all(item.split is None for item in source.items)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["rgb", "grey", "palette", "rgba", "one_bit", "odd", "cmyk"])
def test_every_kind_of_image_becomes_grey_or_rgb(tmp_path, kind, channels):
    image = {
        "rgb": noise_image(20, 20),
        "grey": noise_image(20, 20, "L"),
        "palette": noise_image(20, 20).quantize(16),
        "rgba": noise_image(20, 20).convert("RGBA"),
        "one_bit": noise_image(20, 20, "L").convert("1"),
        "odd": noise_image(33, 7),
        "cmyk": noise_image(20, 20).convert("CMYK"),
    }[kind]
    save(image, tmp_path / "a" / ("0.jpg" if kind == "cmyk" else "0.png"))
    content = folder_source(tmp_path).read(0)
    decoded = decode_image(content, channels)
    assert decoded.mode == ("L" if channels == 1 else "RGB") and decoded.size == image.size
    assert center_crop(decoded, 16).size == (16, 16)


def test_sixteen_bit_grey_is_scaled_and_not_cut(tmp_path):
    ramp = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, format="png")
    decoded = np.asarray(decode_image(buffer.getvalue(), channels=1)).astype(float)
    assert np.abs(decoded - ramp / 257).max() <= 1


def test_broken_files_are_named(tmp_path):
    good = tmp_path / "a" / "0.png"
    save(noise_image(32, 32), good)
    (tmp_path / "a" / "1.png").write_bytes(good.read_bytes()[:400])
    (tmp_path / "a" / "2.png").write_text("this is text")
    save(noise_image(64, 64), tmp_path / "a" / "3.jpg")
    jpeg = tmp_path / "a" / "3.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:-800])
    (tmp_path / "a" / "4.png").write_bytes(b"")
    source = folder_source(tmp_path)
    assert source.read(0) == good.read_bytes()
    for index, name in ((1, "1.png"), (2, "2.png"), (3, "3.jpg"), (4, "4.png")):
        with pytest.raises(UserError, match="truncated or not an image") as error:
            source.read(index)
        assert str(tmp_path / "a" / name) in one_line(error)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist") as error:
        folder_source(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in one_line(error)
    with pytest.raises(UserError, match="has no class folders") as error:
        folder_source(tmp_path)
    assert str(tmp_path) in one_line(error)
    save(noise_image(8, 8), tmp_path / "full" / "0.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no images") as error:
        folder_source(tmp_path)
    assert str(tmp_path / "empty") in one_line(error)


def test_validation_class_unknown_to_training_is_named(tmp_path):
    for place in ("train/a", "val/a", "val/b"):
        save(noise_image(8, 8), tmp_path / place / "0.png")
    with pytest.raises(UserError, match=r"\['b'\]") as error:
        folder_source(tmp_path)
    assert str(tmp_path / "val") in one_line(error)


def write_mnist(root: Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">IIII", 2051, *images.shape)
    (raw / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = struct.pack(">II", 2049, len(labels))
    (raw / f"{split}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def test_torchvision_data_set_that_is_there_already(tmp_path):
    rng = np.random.default_rng(0)
    data = {}
    for split, count in (("train", 20), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        data[split] = images, labels
        write_mnist(tmp_path, split, images, labels)
    source = open_source("torchvision:MNIST", str(tmp_path))
    assert len(source.class_names) == 10
    assert [item.split for item in source.items] == ["train"] * 20 + ["val"] * 10
    assert len({item.key for item in source.items}) == 30
    for index, (split, i) in ((3, ("train", 3)), (24, ("t10k", 4))):
        images, labels = data[split]
        np.testing.assert_array_equal(np.asarray(decode_image(source.read(index), 1)), images[i])
        assert source.items[index].label == labels[i]


@pytest.mark.parametrize("name", ["NoSuchSet", "mnist", "DatasetFolder"])
def test_torchvision_name_that_is_no_data_set(tmp_path, name):
    with pytest.raises(UserError, match=r"data\.source.*torchvision") as error:
        open_source(f"torchvision:{name}", str(tmp_path))
    assert name in one_line(error)


# --- splits and shards ----------------------------------------------------------------------------


class FakeSource:
    """`counts[c]` small images of class c; remembers which were read, and can fail at one."""

    def __init__(self, counts: list[int], fail_at: int | None = None, size: int = 6):
        labels = [label for label, count in enumerate(counts) for _ in range(count)]
        self.class_names = [f"class {c}" for c in range(len(counts))]
        self.items = [Item(f"k/{i:04d}", label, None) for i, label in enumerate(labels)]
        self.fail_at, self.size, self.was_read = fail_at, size, []

    def read(self, index: int) -> bytes:
        if index == self.fail_at:
            raise KeyboardInterrupt
        self.was_read.append(index)
        return encode_png(noise_image(self.size, self.size, "L", seed=index))


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
    one_line(error)


def written(folder: Path, source, indices, shard_size: int) -> ImageShards:
    shards = {"train": write_shards(source, indices, "train", shard_size, folder)}
    write_manifest(folder, source, "fake", shards)
    return ImageShards(folder, "train")


def test_shards_round_trip_across_row_groups(tmp_path):
    source = FakeSource([100, 70])
    indices = np.random.default_rng(0).permutation(170).tolist()
    images = written(tmp_path, source, indices, shard_size=100)
    assert len(images) == 170 and images.class_names == source.class_names
    assert images.group_start.tolist() == [0, ROW_GROUP, 100, 100 + ROW_GROUP, 170]
    for position in (*range(0, 170, 7), 63, 64, 99, 100, 163, 164, 169):
        item = source.items[indices[position]]
        assert images.read(position) == (item.key, source.read(indices[position]))
        assert images.labels[position] == item.label


def test_manifest_counts_every_class(tmp_path):
    source = FakeSource([3, 4])
    split = {"train": [0, 1, 3, 4, 5], "val": [2, 6]}
    shards = {name: write_shards(source, i, name, 2, tmp_path) for name, i in split.items()}
    manifest = write_manifest(tmp_path, source, "fake", shards)
    assert manifest["counts"] == {
        "train": {"class 0": 2, "class 1": 3},
        "val": {"class 0": 1, "class 1": 1},
    }
    assert [s["count"] for s in manifest["shards"]["train"]] == [2, 2, 1]


def test_interrupted_write_goes_on_without_rewriting(tmp_path):
    indices = list(range(10))
    whole = write_shards(FakeSource([10]), indices, "train", 4, tmp_path / "whole")
    folder = tmp_path / "resumed"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_shards(FakeSource([10], fail_at=6), indices, "train", 4, folder)
    assert [p.name for p in folder.iterdir()] == ["train-00000.parquet"]
    before = (folder / "train-00000.parquet").stat().st_mtime_ns
    source = FakeSource([10])
    resumed = write_shards(source, indices, "train", 4, folder)
    assert (folder / "train-00000.parquet").stat().st_mtime_ns == before
    assert source.was_read == [4, 5, 6, 7, 8, 9]
    assert resumed == whole  # names, counts and hashes


def test_views(tmp_path, make_params):
    data = make_params(data={"image_size": 20, "crop_scale": [0.3, 0.6]}).data
    source = FakeSource([6], size=30)
    images = written(tmp_path, source, list(range(6)), shard_size=4)
    view = View(images, data, seed=0)
    center = center_crop(decode_image(source.read(5), 1), 20)
    np.testing.assert_array_equal(view.center(5)[0], np.asarray(center))
    np.testing.assert_array_equal(view.crop(2, 3), View(images, data, seed=0).crop(2, 3))
    draws = {view.crop(2, draw).tobytes() for draw in range(5)}
    assert len(draws) == 5 and view.crop(2, 3).shape == (1, 20, 20)
    everything, labels = view.everything()
    assert everything.shape == (6, 1, 20, 20) and everything.dtype == torch.uint8
    assert np.array_equal(everything[5].numpy(), view.center(5))
    assert labels.tolist() == [0] * 6


def test_crops_are_seeded_by_seed_key_and_draw(tmp_path, make_params):
    class Twins(FakeSource):
        def read(self, index):
            return super().read(0)

    data = make_params(data={"image_size": 20, "crop_scale": [0.3, 0.6]}).data
    images = written(tmp_path, Twins([2], size=30), [0, 1], shard_size=4)
    one, other = View(images, data, seed=0), View(images, data, seed=1)
    crops = [one.crop(0, 0), one.crop(1, 0), one.crop(0, 1), other.crop(0, 0)]
    assert len({crop.tobytes() for crop in crops}) == 4


def test_batches_are_a_function_of_the_step(tmp_path, make_params):
    data = make_params(data={"image_size": 20, "crop_scale": [0.3, 0.6]}).data
    source = FakeSource([40, 50], size=30)
    images = written(tmp_path, source, list(range(90)), shard_size=70)
    batches = ImageBatches(images, data, batch_size=32, seed=1)
    straight = [batches(step) for step in range(6)]
    assert straight[0][0].shape == (32, 1, 20, 20)
    for step in (4, 0, 5):  # out of order, as after a restart
        pixels, labels = ImageBatches(images, data, batch_size=32, seed=1)(step)
        assert torch.equal(pixels, straight[step][0]) and torch.equal(labels, straight[step][1])
    order = BatchOrder(90, 32, 1, images.group_start, 256)
    assert straight[3][1].tolist() == images.labels[order(3)].tolist()


def test_as_uint8_rounds_and_clips():
    values = torch.tensor([0.0, 0.499 / 255, 0.501 / 255, 1.0, 254.6 / 255, -0.2, 1.3])
    assert as_uint8(values).tolist() == [0, 0, 1, 255, 255, 0, 255]
    everything = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(as_uint8(as_float(everything)), everything)
    assert as_float(everything).min() == 0 and as_float(everything).max() == 1
