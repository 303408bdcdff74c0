"""Image sets on disk, and their exports."""

import itertools
import os
import random
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.evaluation.image_files import open_images
from pipeline.evaluation.image_sets import ArrayImages, batches
from pipeline.runtime.errors import UserError
from pipeline.tools.export import export_npz, export_pngs, export_samples
from tests.errors import one_line
from tests.images import noise_array, write_samples


def everything(images, size: int = 4) -> np.ndarray:
    return torch.cat(list(batches(images, size))).numpy()


@pytest.fixture
def forms(tmp_path):
    """Writes an array in every form: `.npy`, PNGs and `.npz`, in a new folder each time."""
    numbers = itertools.count()

    def write(array: np.ndarray, labels=None) -> dict[str, Path]:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        paths = {"npy": folder / "set.npy", "png": folder / "set", "npz": folder / "set.npz"}
        np.save(paths["npy"], array)
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
        assert np.array_equal(everything(open_images(tmp_path / "theirs.npz")), array)


def test_exports_hold_a_batch_at_a_time(tmp_path):
    """50 MB of images under 20 MB of memory."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4000, 3, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "large.npy", images)
    del images
    tracemalloc.start()
    export_npz(open_images(tmp_path / "large.npy"), None, tmp_path / "large.npz")
    assert sum(len(b) for b in batches(open_images(tmp_path / "large.npz"), 250)) == 4000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6 < (tmp_path / "large.npz").stat().st_size


@pytest.mark.parametrize("path", ["mine/holiday.png", "mine"])
def test_export_of_pngs_replaces_nothing(tmp_path, path):
    """Neither a folder that holds something, nor a file."""
    kept = tmp_path / path
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("years of work")
    with pytest.raises(UserError, match="mine is there already") as error:
        export_pngs(ArrayImages(noise_array(2, 1)), tmp_path / "mine")
    assert "give a new one" in one_line(error)
    assert kept.read_text() == "years of work" and os.listdir(tmp_path) == ["mine"]


@pytest.mark.parametrize("all_of_them", [False, True])
def test_exported_are_the_samples_that_were_measured_or_all(
    tmp_path, monkeypatch, make_params, all_of_them
):
    monkeypatch.chdir(tmp_path)
    params = make_params(
        evaluation={"seeds": [3, 5], "samples": 6, "kid_subset_size": 3},
        classifier={"architecture": "torchvision:resnet18"},  # whose features are not counted
    )
    with pytest.raises(UserError, match="dvc repro") as error:
        export_samples(params, "transformer", Path("set.npz"))
    one_line(error)
    array = np.random.default_rng(0).integers(256, size=(9, 1, 28, 28), dtype=np.uint8)
    labels = np.arange(9) % 3
    for seed, images in ((3, array), (5, array[::-1])):
        folder = Path(f"data/samples/transformer/seed{seed}")
        write_samples(images, labels.tolist(), ["a", "b", "c"], 4, folder)
    count = 9 if all_of_them else 6
    for name in ("set.npz", "pngs"):  # of the first seed
        written = export_samples(params, "transformer", Path(name), everything=all_of_them)
        assert written == count
    assert np.array_equal(everything(open_images("pngs")), array[:count])
    with np.load("set.npz") as archive:
        assert np.array_equal(archive["arr_0"][..., :1], array[:count].transpose(0, 2, 3, 1))
        assert archive["arr_1"].tolist() == labels[:count].tolist()
    export_samples(params, "transformer", Path("other"), 5, everything=all_of_them)
    assert np.array_equal(everything(open_images("other")), array[::-1][:count])
    with pytest.raises(UserError, match="unsupported suffix") as error:
        export_samples(params, "transformer", Path("set.png"))
    one_line(error)
    with pytest.raises(UserError, match="no replicate 0; use one of 3, 5") as error:
        export_samples(params, "transformer", Path("none"), 0)
    one_line(error)


@pytest.mark.parametrize("damage", ["truncated", "text", "size", "channels"])
def test_a_bad_png_is_named(forms, damage):
    folder = forms(noise_array(5, 3))["png"]
    bad = folder / "000003.png"
    if damage == "truncated":
        bad.write_bytes(bad.read_bytes()[:60])
    elif damage == "text":
        bad.write_text("no image")
    elif damage == "size":
        Image.new("RGB", (8, 5)).save(bad)
    else:
        Image.new("L", (7, 5)).save(bad)
    with pytest.raises(UserError, match=r"000003\.png") as error:
        everything(open_images(folder))
    line = one_line(error)
    if damage in ("size", "channels"):
        assert "7×5" in line and ("8×5" in line or "grey" in line)


@pytest.mark.parametrize("damage", ["half", "one byte", "text", "no arr_0", "cut off"])
def test_a_damaged_npz_is_named(forms, damage):
    path = forms(noise_array(50, 3), range(50))["npz"]
    content = bytearray(path.read_bytes())
    if damage == "half":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "one byte":
        content[2000] ^= 1
        path.write_bytes(content)
    elif damage == "text":
        path.write_text("no archive")
    elif damage == "cut off":
        header = {"descr": "|u1", "fortran_order": False, "shape": (9, 5, 7, 3)}
        with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w") as f:
            np.lib.format.write_array_header_1_0(f, header)
            f.write(bytes(4 * 5 * 7 * 3))
    else:
        np.savez(path, images=noise_array(3, 3))
    with pytest.raises(UserError) as error:
        open_images(path)
    assert error.value.subject == str(path)
    one_line(error)


def test_a_broken_link_is_named_and_hidden_files_are_ignored(forms):
    folder = forms(noise_array(3, 3))["png"]
    (folder / "._000000.png").write_bytes(b"\0\5\x16\7")  # macOS's, which is ignored
    (folder / "zz.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(UserError) as error:
        everything(open_images(folder))
    assert error.value.subject == str(folder / "zz.png")


@pytest.mark.parametrize(
    "array",
    [
        noise_array(4, 3).astype(np.float32),
        noise_array(4, 2),
        noise_array(4, 3)[0],
        noise_array(0, 3),
        np.array([{}], dtype=object),
    ],
    ids=["float", "two channels", "one image", "none", "objects"],
)
def test_other_arrays_are_refused(tmp_path, array):
    np.save(tmp_path / "set.npy", array)
    np.savez(tmp_path / "set.npz", array if array.ndim < 4 else array.transpose(0, 2, 3, 1))
    for name in ("set.npy", "set.npz"):
        with pytest.raises(UserError, match=name) as error:
            open_images(tmp_path / name)
        one_line(error)


@pytest.mark.parametrize("name", ["nowhere", "empty", "set.txt", "fifo.npy", "zero.npz"])
def test_what_is_not_an_image_set_is_named(tmp_path, name):
    path = tmp_path / name
    if name == "empty":
        path.mkdir()
        (path / "a.txt").write_text("no PNG")
    elif name == "set.txt":
        path.write_text("no images")
    elif name == "fifo.npy":
        os.mkfifo(path)
    elif name == "zero.npz":
        path.symlink_to("/dev/zero")
    with pytest.raises(UserError) as error:
        open_images(path)
    assert error.value.subject == str(path) and error.value.reason and error.value.way_out


@pytest.mark.parametrize("form", ["npy", "npz", "png"])
def test_damaged_bytes_are_refused_in_a_line_or_read(forms, form):
    """No other error, whatever bytes are changed or cut off."""
    path = forms(noise_array(9, 3))[form]
    target = path / "000001.png" if form == "png" else path
    whole, draw = target.read_bytes(), random.Random(form)
    for _ in range(30):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(draw.choice([len(content), 150]))] = draw.randrange(256)
        if draw.random() < 0.4:
            del content[draw.randrange(len(content)) :]
        target.write_bytes(content)
        try:
            assert len(everything(open_images(path))) > 0
        except UserError as error:
            assert error.subject in (str(path), str(target)) and "\n" not in str(error)
