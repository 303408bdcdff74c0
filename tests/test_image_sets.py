"""Image sets on disk, and their exports."""

import itertools
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.evaluation.image_files import open_images
from pipeline.evaluation.images import ArrayImages
from pipeline.runtime.errors import UserError
from pipeline.tools.export import export_npz, export_pngs, export_samples
from tests.errors import one_line
from tests.images import noise_array, write_samples


def everything(images, size: int = 4) -> np.ndarray:
    return torch.cat(list(images.batches(size))).numpy()


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
@pytest.mark.parametrize("size", [1, 4, 100])
def test_every_form_gives_the_images_back(forms, channels, size):
    array = noise_array(11, channels)
    for form, path in forms(array).items():
        images = open_images(path)
        wanted = np.repeat(array, 3, axis=1) if form == "npz" and channels == 1 else array
        batches = list(images.batches(size))
        assert len(images) == 11 and images.shape == wanted.shape[1:]
        assert [len(b) for b in batches] == [size] * (11 // size) + [11 % size] * (11 % size > 0)
        assert all(b.dtype == torch.uint8 and b.is_contiguous() for b in batches)
        assert np.array_equal(torch.cat(batches).numpy(), wanted)


def test_pngs_are_what_other_programs_read(forms):
    grey, colour = noise_array(3, 1), noise_array(3, 3)
    folder = forms(grey)["png"]
    assert sorted(p.name for p in folder.iterdir()) == ["000000.png", "000001.png", "000002.png"]
    with Image.open(folder / "000002.png") as image:
        assert image.mode == "L" and np.array_equal(np.asarray(image), grey[2, 0])
    with Image.open(forms(colour)["png"] / "000002.png") as image:
        assert image.mode == "RGB" and np.array_equal(
            np.asarray(image), colour[2].transpose(1, 2, 0)
        )


def test_npz_is_what_numpy_reads_and_writes(forms, tmp_path):
    array, labels = noise_array(6, 3), torch.tensor([3, 1, 4, 1, 5, 9])
    path = forms(array, labels)["npz"]
    with np.load(path) as archive:
        assert set(archive) == {"arr_0", "arr_1"}
        assert np.array_equal(archive["arr_0"], array.transpose(0, 2, 3, 1))
        assert archive["arr_1"].dtype == np.int64 and archive["arr_1"].tolist() == labels.tolist()
    with np.load(forms(array)["npz"]) as archive:
        assert set(archive) == {"arr_0"}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "theirs.npz", array.transpose(0, 2, 3, 1), labels.numpy())
        assert np.array_equal(everything(open_images(tmp_path / "theirs.npz")), array)


def test_exports_are_the_same_bytes_each_time(forms):
    def contents() -> list[bytes]:
        paths = forms(noise_array(5, 3), [1, 2, 3, 4, 5])
        return [p.read_bytes() for p in (paths["npz"], *sorted(paths["png"].iterdir()))]

    assert contents() == contents()


def test_exports_hold_a_batch_at_a_time(tmp_path):
    """50 MB of images under 20 MB of memory."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4000, 3, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "large.npy", images)
    del images
    tracemalloc.start()
    export_npz(open_images(tmp_path / "large.npy"), None, tmp_path / "large.npz")
    assert sum(len(b) for b in open_images(tmp_path / "large.npz").batches(250)) == 4000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6 < (tmp_path / "large.npz").stat().st_size


@pytest.mark.parametrize("path", ["mine/thesis.tex", "mine/holiday.png", "mine"])
def test_export_of_pngs_replaces_nothing(tmp_path, path):
    """Neither a folder that holds something, PNGs or not, nor a file."""
    kept = tmp_path / path
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("years of work")
    with pytest.raises(UserError, match="mine is there already") as error:
        export_pngs(ArrayImages(noise_array(2, 1)), tmp_path / "mine")
    assert "give a new one" in one_line(error)
    assert kept.read_text() == "years of work" and os.listdir(tmp_path) == ["mine"]


def test_export_fills_an_empty_folder_and_replaces_an_npz(tmp_path):
    array = noise_array(2, 3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "set.npz").write_text("old")
    export_pngs(ArrayImages(array), tmp_path / "empty")
    export_npz(ArrayImages(array), None, tmp_path / "set.npz")
    for name in ("empty", "set.npz"):
        assert np.array_equal(everything(open_images(tmp_path / name)), array)


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
    export_samples(params, "transformer", Path("set.NPZ"), everything=all_of_them)
    assert Path("set.NPZ").read_bytes() == Path("set.npz").read_bytes()
    assert len(open_images("set.NPZ")) == count
    with pytest.raises(UserError, match="has a suffix that is not written") as error:
        export_samples(params, "transformer", Path("set.png"))
    one_line(error)
    with pytest.raises(UserError, match="no replicate 0; use one of 3, 5") as error:
        export_samples(params, "transformer", Path("none"), 0)
    one_line(error)


def test_content_hash_is_of_the_images_and_their_order(forms):
    array = noise_array(5, 3)
    changed = array.copy()
    changed[4, 2, 4, 6] ^= 1
    hashes = {}
    for name, images in (("a", array), ("again", array.copy()), ("changed", changed)):
        hashes[name] = [open_images(path).content_hash for path in forms(images).values()]
    hashes["order"] = [open_images(path).content_hash for path in forms(array[::-1]).values()]
    assert hashes["a"] == hashes["again"]
    for other in ("changed", "order"):
        assert all(x != y for x, y in zip(hashes["a"], hashes[other], strict=True))


def test_a_slice_of_a_file_is_the_set_that_holds_the_same(tmp_path):
    array = noise_array(9, 1)
    np.save(tmp_path / "set.npy", array)
    mapped = np.load(tmp_path / "set.npy", mmap_mode="r")
    assert ArrayImages(mapped[:4]).content_hash == ArrayImages(array[:4].copy()).content_hash
    assert ArrayImages(mapped[:4]).content_hash != ArrayImages(mapped).content_hash


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
    assert line.count(";") == 1  # one way out
    if damage in ("size", "channels"):
        assert "7×5" in line and ("8×5" in line or "grey" in line)


@pytest.mark.parametrize("damage", ["half", "one byte", "text", "no arr_0"])
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
    else:
        np.savez(path, images=noise_array(3, 3))
    with pytest.raises(UserError, match=r"set\.npz") as error:
        everything(open_images(path))
    one_line(error)


def test_an_npz_that_promises_more_images_than_it_holds(tmp_path):
    header = {"descr": "|u1", "fortran_order": False, "shape": (9, 5, 7, 3)}
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive, archive.open("arr_0.npy", "w") as f:
        np.lib.format.write_array_header_1_0(f, header)
        f.write(bytes(4 * 5 * 7 * 3))
    with pytest.raises(UserError, match=r"set\.npz"):
        everything(open_images(tmp_path / "set.npz"))


def test_a_shape_that_no_integer_holds_is_one_line(tmp_path, recwarn):
    header = {"descr": "|u1", "fortran_order": False, "shape": (2**32, 1, 2**32, 2**32)}
    with open(tmp_path / "set.npy", "wb") as handle:
        np.lib.format.write_array_header_1_0(handle, header)
    with pytest.raises(UserError, match=r"set\.npy is damaged") as error:
        open_images(tmp_path / "set.npy")
    one_line(error)
    assert not recwarn.list  # NumPy's, of two lines


def test_a_broken_link_is_named_and_not_its_folder(forms):
    folder = forms(noise_array(3, 3))["png"]
    (folder / "zz.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(UserError, match=r"zz\.png is a broken link; delete it"):
        open_images(folder)


def test_hidden_pngs_are_passed_over(forms):
    array = noise_array(3, 3)
    folder = forms(array)["png"]
    (folder / "._000000.png").write_bytes(b"\0\5\x16\7")  # macOS's
    assert np.array_equal(everything(open_images(folder)), array)


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


def test_a_missing_set_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        open_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no PNG files"):
        open_images(tmp_path)
