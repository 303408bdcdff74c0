"""Arrays of images and statistics that NumPy does not write, and more images than any set has."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation.image_files import open_images
from pipeline.evaluation.statistics import load_statistics
from pipeline.runtime.errors import UserError
from pipeline.runtime.limits import IMAGES
from tests.errors import one_line
from tests.images import noise_array


def zipped(path: Path, *arrays: bytes, packed: int = zipfile.ZIP_STORED) -> None:
    """A zip with these entries `arr_0.npy`."""
    with zipfile.ZipFile(path, "w", packed) as archive:
        for array in arrays:
            archive.writestr("arr_0.npy", array)


def npy(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, array, version=version)
    return content.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path, a: zipped(path, a, packed=zipfile.ZIP_BZIP2), "packs in another way"),
        (lambda path, a: zipped(path, a, packed=zipfile.ZIP_LZMA), "packs in another way"),
        (lambda path, a: zipped(path, a, a[:-105]), r"it has arr_0\.npy twice"),
        (lambda path, a: zipped(path, npy(np.zeros((2, 5, 7, 3)), (2, 0))), "another version"),
    ],
    ids=["bzip2", "lzma", "twice", "version 2"],
)
def test_an_npz_that_numpy_does_not_write_is_refused_at_once(tmp_path, make, words):
    make(tmp_path / "set.npz", npy(noise_array(4, 3).transpose(0, 2, 3, 1).copy()))
    with pytest.raises(UserError, match=rf"set\.npz.*{words}") as error:
        open_images(tmp_path / "set.npz")
    one_line(error)


def test_more_images_than_the_limit_are_refused(tmp_path):
    header = {"descr": "|u1", "fortran_order": False, "shape": (IMAGES + 1, 1, 1, 1)}
    with open(tmp_path / "set.npy", "wb") as handle:
        np.lib.format.write_array_header_1_0(handle, header)
        handle.truncate(handle.tell() + IMAGES + 1)
    with pytest.raises(UserError, match=r"set\.npy holds 100,000,001 images, more than the limit"):
        open_images(tmp_path / "set.npy")


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_statistics_that_are_there_twice(tmp_path):
    path = tmp_path / "statistics.npz"
    np.savez(path, mu=np.zeros(4), sigma=np.eye(4))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("mu.npy", npy(np.zeros(4)))
    with pytest.raises(UserError, match=r"statistics\.npz.*it has mu\.npy twice"):
        load_statistics(path)


def test_statistics_beside_the_images_they_are_of(tmp_path):
    """As in the ADM suite's reference batches, whose images are larger than any statistics."""
    content, size = io.BytesIO(), 128 + 12_345
    np.savez(content, mu=np.zeros(4), sigma=np.eye(4), arr_0=np.zeros(12_345, np.uint8))
    pretended = content.getvalue().replace(struct.pack("<I", size), struct.pack("<I", 2**31 - 1))
    (tmp_path / "reference.npz").write_bytes(pretended)
    assert zipfile.ZipFile(io.BytesIO(pretended)).getinfo("arr_0.npy").file_size == 2**31 - 1
    assert load_statistics(tmp_path / "reference.npz").mu.shape == (4,)


def test_statistics_that_are_zero_or_too_long_for_a_double(tmp_path, recwarn):
    np.savez(tmp_path / "zero.npz", mu=np.zeros(4), sigma=np.zeros((4, 4)))
    with pytest.raises(UserError, match=r"zero\.npz.*sigma is all zero"):
        load_statistics(tmp_path / "zero.npz")
    mu = np.full(4, np.longdouble("1e400"))
    np.savez(tmp_path / "long.npz", mu=mu, sigma=np.eye(4))
    with pytest.raises(UserError, match=r"long\.npz.*NaN or infinite"):
        load_statistics(tmp_path / "long.npz")
    assert not recwarn.list
