"""Torchvision's data sets as `data.source`."""

import pytest
import torchvision
from PIL import Image

from pipeline.data.images.pixels import decode_image
from pipeline.prepare.datasets import open_source
from tests.errors import refused

decoded: list[int] = []  # images that were read


class Whole:
    """A data set like torchvision's: image i has grey level i and class i % 3."""

    labels_in: str | None = None

    def __init__(self, root, held_out=False):
        self.size = 3 if held_out else 6
        if self.labels_in:
            setattr(self, self.labels_in, [i % 3 for i in range(self.size)])

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int):
        decoded.append(i)
        return Image.new("L", (4, 4), i), i % 3


class ByTrain(Whole):
    classes = ("zero", "one", "two")

    def __init__(self, root, train=True, download=False):
        assert download
        super().__init__(root, held_out=not train)


class ByRest(ByTrain):
    def __init__(self, root, what=None, **kwargs):  # as QMNIST's
        super().__init__(root, **kwargs)


class BySplit(Whole):
    classes = (("zero", "nought"), ("one", "single"), ("two", "pair"))

    def __init__(self, root, split="train"):
        super().__init__(root, held_out={"train": False, "val": True}[split])  # as ImageNet's


@pytest.mark.parametrize("labels_in", ["targets", None])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("ByTrain", ByTrain), ("ByRest", ByRest), ("ImageNet", BySplit), ("Whole", Whole)],
)
def test_sets_split_by_train_by_split_or_not_at_all(monkeypatch, tmp_path, name, kind, labels_in):
    monkeypatch.setattr(kind, "labels_in", labels_in)
    monkeypatch.setattr(torchvision.datasets, name, kind, raising=False)
    decoded.clear()
    source = open_source(f"torchvision:{name}", str(tmp_path), 112)
    assert labels_in is None or not decoded  # else an image is decoded only when it is read
    splits = [None] * 6 if kind is Whole else ["train"] * 6 + ["val"] * 3
    assert [item.split for item in source.items] == splits
    assert source.class_names == (["0", "1", "2"] if kind is Whole else ["zero", "one", "two"])
    assert [item.label for item in source.items] == [i % 3 for i in range(len(splits))]
    greys = [decode_image(source.read(i), 1).getpixel((0, 0)) for i in range(len(splits))]
    assert greys == [*range(6), *range(3)][: len(splits)]


def test_pictures_whose_files_torchvision_lists_are_read_as_a_folders(tmp_path):
    for label, name in enumerate(("Forest", "River")):
        folder = tmp_path / "eurosat/2750" / name
        folder.mkdir(parents=True)
        last = folder / f"{name}_1.jpg"
        Image.new("RGB", (70, 70), (label * 200, 0, 0)).save(last)
    source = open_source("torchvision:EuroSAT", str(tmp_path), 112)
    assert source.read(1) == last.read_bytes()  # and not a PNG of it
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", (40, 20)).save(last, exif=turned)
    assert decode_image(source.read(1), 3).size == (20, 40)
    last.write_bytes(last.read_bytes()[:400])
    with refused(last):
        source.read(1)


class Boxes(Whole):
    def __getitem__(self, i: int):
        return Image.new("L", (4, 4)), {"box": (0, 0, 1, 1)}


@pytest.mark.parametrize("name", ["NoSuchSet", "mnist", "VisionDataset", "Boxes"])
def test_names_that_are_no_labelled_set_are_refused(monkeypatch, tmp_path, name):
    monkeypatch.setattr(torchvision.datasets, "Boxes", Boxes, raising=False)
    with refused("data.source", match=f"torchvision.*{name}"):
        open_source(f"torchvision:{name}", str(tmp_path), 112)
