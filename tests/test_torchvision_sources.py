"""Torchvision's data sets as sources of images; broken ones are named."""

import inspect
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.images.opening import decode_image
from pipeline.prepare.datasets import open_source
from pipeline.runtime.errors import UserError
from tests.errors import one_line


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
    source = open_source("torchvision:MNIST", str(tmp_path), 28)
    assert len(source.class_names) == 10
    assert [item.split for item in source.items] == ["train"] * 20 + ["val"] * 10
    assert len({item.key for item in source.items}) == 30
    for index, (split, i) in ((3, ("train", 3)), (24, ("t10k", 4))):
        images, labels = data[split]
        np.testing.assert_array_equal(np.asarray(decode_image(source.read(index), 1)), images[i])
        assert source.items[index].label == labels[i]


class GreySet:
    """A data set in torchvision's manner: image i is of grey level i, its class is i % 3."""

    keeps_labels_as: str | None = None

    def prepare(self, root: str, split: str) -> None:
        self.root, self.split, self.decoded = root, split, []
        if self.keeps_labels_as:
            labels = np.arange(len(self)) % 3
            setattr(self, self.keeps_labels_as, labels.tolist())

    def __len__(self) -> int:
        return {"train": 6, "test": 3}[self.split]

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

    def __init__(self, root, split="train", transform=None, download=False):
        assert download
        self.prepare(root, split)


class Whole(GreySet):
    def __init__(self, root, transform=None):
        self.prepare(root, "train")


@pytest.mark.parametrize("kept", ["targets", "_labels", "labels", None])
@pytest.mark.parametrize("kind", [ByTrain, BySplit, Whole])
def test_torchvision_data_sets_of_every_manner(monkeypatch, tmp_path, kind, kept):
    """With labels under any name or with none, and split by `train`, by `split` or not at all."""
    import torchvision

    opened = []

    class Set(kind):
        keeps_labels_as = kept

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            opened.append(self)

    Set.__signature__ = inspect.signature(kind)
    monkeypatch.setattr(torchvision.datasets, "GreySet", Set, raising=False)
    source = open_source("torchvision:GreySet", str(tmp_path), 28)
    assert {dataset.root for dataset in opened} == {str(tmp_path)}
    if kept:  # an image is decoded only when it is asked for
        assert not any(dataset.decoded for dataset in opened)
    if kind is Whole:
        assert [item.split for item in source.items] == [None] * 6
        assert source.class_names == ["0", "1", "2"]
    else:
        assert [item.split for item in source.items] == ["train"] * 6 + ["val"] * 3
        assert source.class_names == ["zero", "one", "two"]
    assert [item.label for item in source.items] == [i % 3 for i in range(len(source.items))]
    assert len({item.key for item in source.items}) == len(source.items)
    greys = [decode_image(source.read(i), 1).getpixel((0, 0)) for i in range(len(source.items))]
    assert greys == [*range(6), *range(3)][: len(source.items)]


@pytest.mark.parametrize(("name", "train"), [("Places365", "train-standard"), ("GreySet", "train")])
def test_splits_have_the_names_that_torchvision_gives_them(monkeypatch, tmp_path, name, train):
    import torchvision

    class Set(BySplit):
        def __init__(self, root, split="train-standard", small=False, download=False):
            asked.append(split)
            self.prepare(root, "train" if split == train else "test")

    asked = []
    monkeypatch.setattr(torchvision.datasets, name, Set, raising=False)
    assert len(open_source(f"torchvision:{name}", str(tmp_path), 28).items) == 9
    assert asked == [train, "val" if name == "Places365" else "test"]


def eurosat(folder: Path) -> Path:
    """EuroSAT of two classes with a picture each, as torchvision unpacks it; the last picture."""
    for label, name in enumerate(("Forest", "River")):
        place = folder / "eurosat/2750" / name
        place.mkdir(parents=True)
        last = place / f"{name}_1.jpg"
        Image.new("RGB", (32, 32), (label * 200, 0, 0)).save(last)
    return last


def test_a_damaged_picture_of_torchvisions_is_named(tmp_path):
    last = eurosat(tmp_path)
    last.write_bytes(last.read_bytes()[:400])
    source = open_source("torchvision:EuroSAT", str(tmp_path), 28)
    with pytest.raises(UserError, match=r"data\.source: .*River_1\.jpg is truncated") as error:
        source.read(1)
    one_line(error)


def test_pictures_whose_files_torchvision_lists_are_held_to_what_a_folders_are(tmp_path):
    last = eurosat(tmp_path)
    source = open_source("torchvision:EuroSAT", str(tmp_path), 28)
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", (40, 20), (9, 9, 9)).save(last, exif=turned)
    content = source.read(1)
    assert content == last.read_bytes()  # and not a PNG of it
    assert decode_image(content, 3).size == (20, 40)
    last.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\nshowpage\n")
    with pytest.raises(UserError, match=r"River_1\.jpg is truncated or not an image of BMP"):
        source.read(1)  # Ghostscript does not start
    last.unlink()
    os.mkfifo(last)
    with pytest.raises(UserError, match=r"River_1\.jpg: a device or pipe"):
        source.read(1)
    last.unlink()
    with pytest.raises(UserError, match=r"River_1\.jpg was there .*; unpack the data set again"):
        source.read(1)


@pytest.mark.parametrize("manner", ["_samples", "_image_files"])
def test_a_set_that_lists_its_files_decodes_no_picture_itself(monkeypatch, tmp_path, manner):
    """Whose reader would open any format, and wait at a pipe."""
    import torchvision

    class Set(BySplit):
        def __init__(self, root, split="train", transform=None, download=False):
            self.prepare(root, split)
            files = [Path(root, f"{split}{i}.png") for i in range(len(self))]
            labels = [i % 3 for i in range(len(self))]
            if manner == "_samples":  # as of Imagenette, GTSRB, StanfordCars and RenderedSST2
                self._samples = list(zip(files, labels, strict=True))
            else:
                self._image_files, self._labels = files, labels

        def __getitem__(self, i: int):
            raise AssertionError("torchvision decodes it")

    monkeypatch.setattr(torchvision.datasets, "GreySet", Set, raising=False)
    for split, count in (("train", 6), ("test", 3)):
        for i in range(count):
            Image.new("L", (4, 4), 100 * (split == "test") + i).save(tmp_path / f"{split}{i}.png")
    source = open_source("torchvision:GreySet", str(tmp_path), 28)
    assert [item.label for item in source.items] == [0, 1, 2] * 3
    greys = [decode_image(source.read(i), 1).getpixel((0, 0)) for i in range(9)]
    assert greys == [*range(6), 100, 101, 102]


@pytest.mark.parametrize("name", ["ImageFolder", "DatasetFolder"])
def test_a_reader_of_folders_is_sent_to_the_folder_source(tmp_path, name):
    eurosat(tmp_path)
    with pytest.raises(UserError, match=r"no data set, .*folder:PATH") as error:
        open_source(f"torchvision:{name}", str(tmp_path / "eurosat/2750"), 28)
    one_line(error)


def test_files_of_torchvisions_that_change_are_another_version(tmp_path):
    last = eurosat(tmp_path)

    def version() -> str:
        return open_source("torchvision:EuroSAT", str(tmp_path), 28).version

    before = version()
    assert version() == before != "torchvision"
    Image.new("RGB", (32, 32), (0, 0, 250)).save(last)
    assert version() != before


def test_pictures_that_are_drawn_are_the_same_whoever_reads_them(tmp_path):
    source = open_source("torchvision:FakeData", str(tmp_path), 28)
    alone = [source.read(index) for index in range(40)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(source.read, range(40))) == alone


@pytest.mark.parametrize("name", ["NoSuchSet", "mnist", "DatasetFolder"])
def test_torchvision_name_that_is_no_data_set(tmp_path, name):
    with pytest.raises(UserError, match=r"data\.source.*torchvision") as error:
        open_source(f"torchvision:{name}", str(tmp_path), 28)
    assert name in one_line(error)


class Boxes(Whole):
    def __getitem__(self, i: int):
        return Image.new("L", (4, 4)), {"box": (0, 0, 1, 1)}


@pytest.mark.parametrize("name", ["VisionDataset", "Boxes"])  # the first is no set by itself
def test_a_torchvision_set_without_classes_is_one_line(monkeypatch, tmp_path, name):
    import torchvision

    monkeypatch.setattr(torchvision.datasets, "Boxes", Boxes, raising=False)
    with pytest.raises(
        UserError, match=rf"data\.source: torchvision cannot load {name}.*;"
    ) as error:
        open_source(f"torchvision:{name}", str(tmp_path), 28)
    one_line(error)
