"""Features of image sets of every form are made in parts, which a killed run finds again and of
which memory holds few at once."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.evaluation import feature_files, image_files
from pipeline.evaluation.feature_files import cached_features, features_path
from pipeline.evaluation.image_files import open_images
from pipeline.evaluation.images import ArrayImages, ImageSet
from pipeline.runtime.errors import UserError
from pipeline.tools.export import export_npz, export_pngs
from pipeline.tools.measure import Grey
from tests.errors import one_line
from tests.images import noise_array
from tests.project import ROOT
from tests.test_feature_files import Pixels

COUNT = 1200  # images, of which a part has 512


def npy(array: np.ndarray, path: Path) -> Path:
    np.save(path.with_suffix(".npy"), array)
    return path.with_suffix(".npy")


def pngs(array: np.ndarray, path: Path) -> Path:
    export_pngs(ArrayImages(array), path)
    return path


def npz(array: np.ndarray, path: Path) -> Path:
    export_npz(ArrayImages(array), range(len(array)), path.with_suffix(".npz"))
    return path.with_suffix(".npz")


def deflated(array: np.ndarray, path: Path) -> Path:
    np.savez_compressed(path.with_suffix(".npz"), array.transpose(0, 2, 3, 1))
    return path.with_suffix(".npz")


FORMS: dict[str, Callable[[np.ndarray, Path], Path]] = {
    "npy": npy,
    "PNGs": pngs,
    "npz": npz,
    "deflated npz": deflated,
}
# Which of them have grey images as such; of an `.npz` they are RGB, and `measure` takes them back.
GREY = {name: name in ("npy", "PNGs") for name in FORMS}


@pytest.fixture(params=[(form, channels) for form in FORMS for channels in (1, 3)], ids=str)
def images(request, tmp_path) -> tuple[ImageSet, np.ndarray]:
    """A set in each form, and its images (1200, C, 5, 7)."""
    form, channels = request.param
    array = noise_array(COUNT, channels)
    if channels == 3 or GREY[form]:
        return open_images(FORMS[form](array, tmp_path / "set")), array
    rgb = np.repeat(array, 3, axis=1)
    return Grey(open_images(FORMS[form](rgb, tmp_path / "set")), tmp_path), array


def test_killed_extraction_goes_on_with_the_part_that_it_was_at(images, tmp_path, capsys):
    images, array = images
    with pytest.raises(KeyboardInterrupt):
        cached_features(images, Pixels(most=1100), tmp_path)  # in the third part of 512
    rest, again = Pixels(most=COUNT - 1024), pickle.loads(pickle.dumps(images))
    found = cached_features(again, rest, tmp_path)
    assert rest.left == 0
    assert "features: pixels: going on from batch 2 of 3" in capsys.readouterr().out
    np.testing.assert_array_equal(found.features, array.reshape(COUNT, -1))
    np.testing.assert_array_equal(found.class_logits, array.reshape(COUNT, -1)[:, :2])
    assert not list(tmp_path.glob("*.parts"))


def test_features_in_parts_are_the_bytes_of_one_part(images, tmp_path, monkeypatch):
    images, _ = images
    in_parts, whole = (features_path(images, Pixels(), tmp_path / name) for name in "ab")
    cached_features(images, Pixels(), in_parts.parent)
    monkeypatch.setattr(feature_files, "PART", 10**6)
    cached_features(images, Pixels(), whole.parent)
    assert in_parts.read_bytes() == whole.read_bytes()
    wanted = feature_files.extract(Pixels(), images.batches(feature_files.BATCH))
    found = feature_files.load_features(whole)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_set_that_travelled_is_read_from_any_image_on(images):
    images, array = images
    other = pickle.loads(pickle.dumps(images))
    assert other.content_hash == images.content_hash and other.shape == images.shape
    for start, stop in [(512, 576), (576, 600), (0, 3), (700, 701), (1136, COUNT), (1136, COUNT)]:
        found = other.read(start, stop)
        assert found.dtype == torch.uint8 and found.is_contiguous()
        np.testing.assert_array_equal(found, array[start:stop])


@pytest.mark.parametrize("form", ["npz", "deflated npz"])
def test_an_archive_is_read_once_by_parts_in_order(form, tmp_path, monkeypatch):
    images = open_images(FORMS[form](noise_array(COUNT, 3), tmp_path / "set"))
    opened, stream = [], image_files._Stream

    def counted(*args):
        opened.append(args)
        return stream(*args)

    monkeypatch.setattr(image_files, "_Stream", counted)
    cached_features(images, Pixels(), tmp_path)
    assert len(opened) == 1


@pytest.mark.parametrize("killed", [False, True])
def test_an_archive_that_does_not_match_its_checksum_has_no_features(tmp_path, killed):
    """Not by a run that goes on behind the damage either, which lies in the first part."""
    path = npz(noise_array(COUNT, 3), tmp_path / "set")
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    images = open_images(path)
    if killed:
        with pytest.raises(KeyboardInterrupt):
            cached_features(images, Pixels(most=1100), tmp_path)
    for opened in (images, images, open_images(path)):
        with pytest.raises(UserError, match=r"set\.npz is damaged.*CRC") as error:
            cached_features(opened, Pixels(), tmp_path)
        one_line(error)
    assert not list(tmp_path.glob("*.safetensors"))
    images.read(1100, 1136)
    for _ in range(2):  # what failed does not go on from where it failed
        with pytest.raises(UserError, match=r"set\.npz is damaged.*CRC"):
            images.read(1136, COUNT)


MEASURED = """
import sys, threading
from pathlib import Path
from pipeline.evaluation.feature_files import cached_features
from pipeline.evaluation.features import Features
from pipeline.evaluation.image_files import open_images

class Wide:
    name, identity = "wide", "first"
    def __call__(self, images):
        return Features(images[:, 0, 0, :1].float().expand(-1, 2048))

def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024

images = open_images(sys.argv[1])
before, peak, done = anonymous(), 0.0, threading.Event()
def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, anonymous())
thread = threading.Thread(target=watch)
thread.start()
cached_features(images, Wide(), Path("cache"))
done.set()
thread.join()
print(peak - before)
"""
MANY = 20_000


def many_pngs(array: np.ndarray, path: Path) -> Path:
    """One file by many names."""
    pngs(array[:1], path)
    for number in range(1, len(array)):
        os.link(path / "000000.png", path / f"{number:06d}.png")
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("form", FORMS)
def test_features_of_many_images_are_never_in_memory_at_once(form, tmp_path):
    """Those of 20,000 images have 156 MiB."""
    write = many_pngs if form == "PNGs" else FORMS[form]
    path = write(np.zeros((MANY, 3, 2, 2), np.uint8), tmp_path / "set")
    command = (sys.executable, "-c", MEASURED, str(path))
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert float(result.stdout.splitlines()[-1]) < 64  # MiB
