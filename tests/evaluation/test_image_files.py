"""Image sets on disk: reading and export."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.evaluation.image_files import open_images
from pipeline.evaluation.image_sets import ArrayImages, batches
from pipeline.runtime.errors import UserError
from pipeline.tools.export import export_npz, export_pngs, export_samples
from tests.errors import refused
from tests.images import noise_array, write_samples


def everything(images, size: int = 4) -> np.ndarray:
    return torch.cat(list(batches(images, size))).numpy()


@pytest.fixture
def forms(tmp_path):
    """A function that writes an array as PNGs and as `.npz`, in a new folder per call."""
    numbers = itertools.count()

    def write(array: np.ndarray, labels=None) -> dict[str, Path]:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        paths = {"png": folder / "set", "npz": folder / "set.npz"}
        export_pngs(ArrayImages(array), paths["png"])
        export_npz(ArrayImages(array), labels, paths["npz"])
        return paths

    return write


@pytest.mark.parametrize("channels", [1, 3])
def test_every_form_gives_the_images_back(forms, channels):
    array = noise_array(11, channels)
    for form, path in forms(array).items():
        images = open_images(path)
        wanted = np.repeat(array, 3, axis=1) if form == "npz" and channels == 1 else array
        found = list(batches(images, 4))
        assert len(images) == 11 and images.shape == wanted.shape[1:]
        assert [len(b) for b in found] == [4, 4, 3]
        assert all(b.dtype == torch.uint8 and b.is_contiguous() for b in found)
        assert np.array_equal(torch.cat(found).numpy(), wanted)
        assert np.array_equal(images.read(7, 9), wanted[7:9])


def test_npz_is_what_numpy_reads_and_writes(forms, tmp_path):
    array, labels = noise_array(6, 3), torch.tensor([3, 1, 4, 1, 5, 9])
    path = forms(array, labels)["npz"]
    with np.load(path) as archive:
        assert set(archive) == {"arr_0", "arr_1"}
        assert np.array_equal(archive["arr_0"], array.transpose(0, 2, 3, 1))
        assert archive["arr_1"].dtype == np.int64 and archive["arr_1"].tolist() == labels.tolist()
    with np.load(forms(array)["npz"]) as archive:
        assert set(archive) == {"arr_0"}
    with Image.open(forms(array)["png"] / "000002.png") as image:
        assert np.array_equal(np.asarray(image), array[2].transpose(1, 2, 0))
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "theirs.npz", array.transpose(0, 2, 3, 1), labels.numpy())
        found = open_images(tmp_path / "theirs.npz")
        assert np.array_equal(everything(found), array) and torch.equal(found.labels, labels)


def test_exported_are_the_samples_that_were_measured_or_all(tmp_path, monkeypatch, make_params):
    monkeypatch.chdir(tmp_path)
    evaluation = {"seeds": [3, 5], "samples": 6, "kid_subset_size": 3}
    params = make_params(evaluation=evaluation, classifier={"width": 1})
    with pytest.raises(UserError, match="dvc repro"):
        export_samples(params, "transformer", Path("set.npz"))
    array = np.random.default_rng(0).integers(256, size=(9, 1, 28, 28), dtype=np.uint8)
    labels = np.arange(9) % 3
    for seed, images in ((3, array), (5, array[::-1])):
        folder = Path(f"data/samples/transformer/seed{seed}")
        write_samples(images, labels.tolist(), ["a", "b", "c"], 4, folder)
    assert export_samples(params, "transformer", Path("set.npz")) == 6  # the first seed's
    with np.load("set.npz") as archive:
        assert np.array_equal(archive["arr_0"][..., :1], array[:6].transpose(0, 2, 3, 1))
        assert archive["arr_1"].tolist() == labels[:6].tolist()
    assert export_samples(params, "transformer", Path("other"), 5, everything=True) == 9
    with pytest.raises(UserError, match="other exists"):
        export_samples(params, "transformer", Path("other"), 3)
    assert np.array_equal(everything(open_images("other")), array[::-1])
    with pytest.raises(UserError, match="does not contain 0; use one of 3, 5"):
        export_samples(params, "transformer", Path("none"), 0)


@pytest.mark.parametrize("damage", ["truncated", "size", "channels", "broken link"])
def test_a_bad_png_is_named_and_hidden_files_are_ignored(forms, damage):
    folder = forms(noise_array(5, 3))["png"]
    (folder / "._000000.png").write_bytes(b"\0\5\x16\7")  # a hidden file of macOS
    bad = folder / "000003.png"
    if damage == "truncated":
        bad.write_bytes(bad.read_bytes()[:60])
    elif damage == "broken link":
        bad.unlink()
        bad.symlink_to(folder / "nowhere.png")
    else:
        mode, size = ("RGB", (8, 5)) if damage == "size" else ("L", (7, 5))
        Image.new(mode, size).save(bad)
    other = {"size": "7×5.*8×5|8×5.*7×5", "channels": "7×5.*grey|grey.*7×5"}
    with refused(match=rf"000003\.png.*({other.get(damage, '')})"):
        everything(open_images(folder))


PICTURES = noise_array(4, 3).transpose(0, 2, 3, 1)
OTHERS = {
    "float": [PICTURES.astype(np.float32)],
    "two channels": [PICTURES[..., :2]],
    "one image": [PICTURES[0]],
    "none": [PICTURES[:0]],
    "objects": [np.array([{}], dtype=object)],
    "labels of other images": [PICTURES, np.arange(5)],
    "labels that are no numbers of classes": [PICTURES, np.zeros(4)],
}


NAMES = ["nowhere", "empty", "set.txt", "set.npz", "fifo", "no arr_0", *OTHERS]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_an_image_set_is_named(tmp_path, name):
    path = tmp_path / name
    if name == "empty":
        path.mkdir()
        (path / "a.txt").write_text("no PNG")
    elif name.startswith("set."):
        path.write_text("no images")
    elif name == "fifo":
        os.mkfifo(path)
    elif name != "nowhere":
        path = path.with_suffix(".npz")
        np.savez(path, *OTHERS.get(name, []), other=PICTURES)
    with refused(path):
        open_images(path)
