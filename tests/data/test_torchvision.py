"""Torchvision's data sets as `data.source`."""

import inspect
import struct
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from pipeline.data.images.pixels import decode_image
from pipeline.prepare.datasets import open_source
from pipeline.runtime.errors import UserError


def write_mnist(root: Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    raw = root / "MNIST/raw"
    raw.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">IIII", 2051, *images.shape)
    (raw / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = struct.pack(">II", 2049, len(labels))
    (raw / f"{split}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def test_mnist_that_is_there_already(tmp_path):
    rng, data = np.random.default_rng(0), {}
    for split, count in (("train", 20), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        data[split] = images, (np.arange(count) % 10).astype(np.uint8)
        write_mnist(tmp_path, split, *data[split])
    source = open_source("torchvision:MNIST", str(tmp_path), 28)
    assert len(source.class_names) == 10
    assert [item.split for item in source.items] == ["train"] * 20 + ["val"] * 10
    assert len({item.key for item in source.items}) == 30
    for index, (split, i) in ((3, ("train", 3)), (24, ("t10k", 4))):
        images, labels = data[split]
        np.testing.assert_array_equal(np.asarray(decode_image(source.read(index), 1)), images[i])
        assert source.items[index].label == labels[i]


class GreySet:
    """A data set as torchvision has them: image i has grey level i and class i % 3."""

    labels_in: str | None = None

    def prepare(self, root: str, split: str) -> None:
        self.root, self.split, self.decoded = root, split, []
        if self.labels_in:
            setattr(self, self.labels_in, (np.arange(len(self)) % 3).tolist())

    def __len__(self) -> int:
        return 6 if self.split.startswith("train") else 3

    def __getitem__(self, i: int):
        self.decoded.append(i)
        return Image.new("L", (4, 4), i), i % 3


class ByTrain(GreySet):
    classes = ("zero", "one", "two")

    def __init__(self, root, train=True, transform=None, download=False):
        assert download
        self.prepare(root, "train" if train else "test")


class BySplit(GreySet):
    classes = (("zero", "nought"), ("one", "single"), ("two", "pair"))

    def __init__(self, root, split="train", transform=None):
        self.prepare(root, split)


class Whole(GreySet):
    def __init__(self, root, transform=None):
        self.prepare(root, "train")


@pytest.mark.parametrize("labels_in", ["targets", "_labels", None])
@pytest.mark.parametrize("kind", [ByTrain, BySplit, Whole])
def test_sets_split_by_train_by_split_or_not_at_all(monkeypatch, tmp_path, kind, labels_in):
    opened = []

    class Set(kind):
        def __init__(self, *args, **kwargs):
            self.labels_in = labels_in
            super().__init__(*args, **kwargs)
            opened.append(self)

    Set.__signature__ = inspect.signature(kind)
    monkeypatch.setattr(torchvision.datasets, "GreySet", Set, raising=False)
    source = open_source("torchvision:GreySet", str(tmp_path), 28)
    assert {dataset.root for dataset in opened} == {str(tmp_path)}
    if labels_in:  # an image is decoded only when it is read
        assert not any(dataset.decoded for dataset in opened)
    splits = [None] * 6 if kind is Whole else ["train"] * 6 + ["val"] * 3
    assert [item.split for item in source.items] == splits
    assert source.class_names == (["0", "1", "2"] if kind is Whole else ["zero", "one", "two"])
    assert [item.label for item in source.items] == [i % 3 for i in range(len(splits))]
    greys = [decode_image(source.read(i), 1).getpixel((0, 0)) for i in range(len(splits))]
    assert greys == [*range(6), *range(3)][: len(splits)]


@pytest.mark.parametrize("name", ["Places365", "GreySet"])
def test_splits_have_the_names_that_torchvision_gives_them(monkeypatch, tmp_path, name):
    asked = []

    class Set(BySplit):
        def __init__(self, root, split="train-standard"):
            asked.append(split)
            self.prepare(root, split)

    monkeypatch.setattr(torchvision.datasets, name, Set, raising=False)
    open_source(f"torchvision:{name}", str(tmp_path), 28)
    assert asked == {"Places365": ["train-standard", "val"]}.get(name, ["train", "test"])


def test_pictures_whose_files_torchvision_lists_are_read_as_a_folders(tmp_path):
    for label, name in enumerate(("Forest", "River")):
        folder = tmp_path / "eurosat/2750" / name
        folder.mkdir(parents=True)
        last = folder / f"{name}_1.jpg"
        Image.new("RGB", (32, 32), (label * 200, 0, 0)).save(last)
    source = open_source("torchvision:EuroSAT", str(tmp_path), 28)
    assert source.read(1) == last.read_bytes()  # and not a PNG of it
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", (40, 20)).save(last, exif=turned)
    assert decode_image(source.read(1), 3).size == (20, 40)
    last.write_bytes(last.read_bytes()[:400])
    with pytest.raises(UserError) as error:
        source.read(1)
    assert error.value.subject == str(last)


class Boxes(Whole):
    def __getitem__(self, i: int):
        return Image.new("L", (4, 4)), {"box": (0, 0, 1, 1)}


@pytest.mark.parametrize("name", ["NoSuchSet", "mnist", "ImageFolder", "VisionDataset", "Boxes"])
def test_names_that_are_no_labelled_set_are_refused(monkeypatch, tmp_path, name):
    monkeypatch.setattr(torchvision.datasets, "Boxes", Boxes, raising=False)
    with pytest.raises(UserError, match=f"torchvision.*{name}") as error:
        open_source(f"torchvision:{name}", str(tmp_path), 28)
    assert error.value.subject == "data.source" and error.value.way_out
