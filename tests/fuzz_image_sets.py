"""Hostile image sets, as `measure` reads them."""

import io
import os
import random
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.evaluation.image_files import open_images
from tests.fuzzing import Case
from tests.images import noise_array, noise_image, png_of_size


def cases(random: random.Random) -> list[Case]:
    made = []
    for form in ("npy", "npz", "png"):
        made.append(Case(f"good {form}", "accept", partial(_set, form, None)))
        for number in range(16):
            run = partial(_set, form, random.randrange(2**32))
            made.append(Case(f"damaged {form} {number}", "either", run))
        for what in ("fifo", "zero", "random"):
            made.append(Case(f"{form}: {what}", "refuse", partial(_no_file, form, what)))
    for name, array in ARRAYS.items():
        for form in ("npy", "npz"):
            made.append(Case(f"{name} as {form}", "refuse", partial(_array, form, array)))
    for name, content in FILES.items():
        for suffix in ("npy", "npz"):
            made.append(Case(f"{name} as {suffix}", "refuse", partial(_file, suffix, content)))
    for name, content in PNGS.items():
        made.append(Case(name, "refuse", partial(_png, content)))
    for name in ("nothing", "empty folder", "long path", "no PNG"):
        made.append(Case(name, "refuse", partial(_odd, name)))
    return made


def read(path: Path) -> None:
    images = open_images(path)
    assert len(images.content_hash) == 64
    total = sum(len(batch) for batch in images.batches(4))
    assert total == len(images)


def _write(form: str, folder: Path) -> Path:
    """A set of nine images in that form."""
    array, path = noise_array(9, 3), folder / f"set.{form}"
    if form == "npy":
        np.save(path, array)
    elif form == "npz":
        np.savez_compressed(path, array.transpose(0, 2, 3, 1))
    else:
        path.mkdir()
        for number in range(3):
            noise_image(7, 5, seed=number).save(path / f"{number}.png")
    return path


def _set(form: str, seed: int | None, folder: Path) -> None:
    path = _write(form, folder)
    if seed is not None:
        target = path / "1.png" if form == "png" else path
        content, draw = bytearray(target.read_bytes()), random.Random(seed)
        for _ in range(draw.randint(1, 4)):
            end = draw.choice([len(content), min(len(content), 150)])
            content[draw.randrange(end)] = draw.randrange(256)
        if draw.random() < 0.4:
            del content[draw.randrange(len(content)) :]
        target.write_bytes(content)
    read(path)


def _no_file(form: str, what: str, folder: Path) -> None:
    path = folder / f"set.{form}"
    if form == "png":
        path = _write(form, folder)
    target = path / "x.png" if form == "png" else path
    if what == "fifo":
        os.mkfifo(target)
    else:
        target.symlink_to("/dev/zero" if what == "zero" else "/dev/urandom")
    read(path)


def _array(form: str, array: np.ndarray, folder: Path) -> None:
    path = folder / f"set.{form}"
    if form == "npy":
        np.save(path, array)
    else:
        np.savez(path, array.transpose(0, 2, 3, 1) if array.ndim == 4 else array)
    read(path)


def _file(suffix: str, content: bytes, folder: Path) -> None:
    (folder / f"set.{suffix}").write_bytes(content)
    read(folder / f"set.{suffix}")


def _png(content: bytes, folder: Path) -> None:
    path = _write("png", folder)
    (path / "x.png").write_bytes(content)
    read(path)


def _odd(name: str, folder: Path) -> None:
    if name == "nothing":
        read(folder / "nothing.npz")
    elif name == "long path":
        read(folder / ("x" * 400))
    elif name == "no PNG":
        (folder / "a.txt").write_text("x")
        read(folder)
    else:
        read(folder)


def _npy(shape: tuple, descr: str = "|u1", data: bytes = b"", fortran: bool = False) -> bytes:
    out = io.BytesIO()
    header = {"descr": descr, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue() + data


def _npz(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return out.getvalue()


def _encoded(kind: str) -> bytes:
    out = io.BytesIO()
    noise_image(7, 5).save(out, kind)
    return out.getvalue()


ARRAYS = {
    "float": noise_array(3, 3).astype(np.float32),
    "NaN": np.full((3, 3, 5, 7), np.nan),
    "int16": noise_array(3, 3).astype(np.int16),
    "bool": noise_array(3, 3) > 100,
    "two channels": noise_array(3, 2),
    "four channels": noise_array(3, 4),
    "no image": noise_array(0, 3),
    "one image": noise_array(2, 3)[0],
    "a number": np.uint8(5),
    "objects": np.array([{}], dtype=object),
    "text": np.array(["a", "b"]),
    "records": np.zeros(3, dtype=[("a", "u1"), ("b", "f4")]),
}
FILES = {
    "empty": b"",
    "text": b"no array",
    "HTML": b"<html>404</html>",
    "a shape that is not there": _npy((10**6, 3, 64, 64)),
    "a shape of 2^62": _npy((2**31, 3, 2**15, 2**15)),
    "a negative shape": _npy((-1, 3, 5, 7), data=bytes(105)),
    "a width of zero": _npy((3, 3, 0, 7)),
    "Fortran's order": _npy((3, 3, 5, 7), data=bytes(315), fortran=True),
    "a long header": b"\x93NUMPY\x02\x00" + (2**31 - 1).to_bytes(4, "little") + b"{" * 1000,
    "a header that is code": b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').system('true') \n",
    "an unknown version": b"\x93NUMPY\x09\x09" + bytes(100),
    "another name in it": _npz("images.npy", _npy((3, 5, 7, 3), data=bytes(315))),
    "a promise in a zip": _npz("arr_0.npy", _npy((10**9, 64, 64, 3))),
    "a zip of text": _npz("arr_0.npy", b"no array"),
    "a promise of large images": _npz("arr_0.npy", _npy((1, 10**5, 10**5, 3), data=bytes(10**6))),
}
PNGS = {
    "another size": _encoded("PNG") and png_of_size(6, 5),
    "a BMP in between": b"BM" + bytes(60),
    "an EPS": _encoded("EPS"),
    "a PDF": _encoded("PDF"),
    "a long strip": png_of_size(1, 20_000),
    "a huge one": png_of_size(50_000, 50_000),
    "text": b"text",
    "empty": b"",
}
