"""Reading an .npz file of pictures and numbers: what it says of itself is checked before anything
is unpacked."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from pipeline.runtime.bounds import bounds_of
from pipeline.runtime.limits import RESULT_ARRAYS, TEXT
from pipeline.runtime.result_files import Damaged, reading

Arrays = dict[str, np.ndarray]
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # NumPy's own
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
CHANNELS = (1, 3)
PICTURES, MASKS, NAMES, NUMBERS = "pictures", "masks", "names", "numbers"
KINDS = {PICTURES: "u", MASKS: "b", NAMES: "Uiuf", NUMBERS: "fiu"}  # of NumPy's dtypes


class Shape(NamedTuple):
    """What an array has to be.

    Args:
        kind: `PICTURES` (uint8, channels last), `MASKS`, `NAMES` or `NUMBERS`.
        axes: a letter for each axis; within a file axes of the same letter are equally long, and
            "c+1" is one longer than "c".
    """

    kind: str
    axes: str


def read_arrays(path: Path, shapes: Mapping[str, Shape]) -> Arrays:
    """Read the named arrays of an .npz file.

    Raises:
        UserError: the file is missing, unreadable, too large, or lacks one of them, or one is
            empty or of another kind, shape or range.
    """
    with reading(path, RESULT_ARRAYS):
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive, shapes)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[f"{name}.npy"] for name in shapes}  # and no member without .npy
        known: dict[str, int] = {}
        for name, shape in shapes.items():
            if wrong := _wrong(name, arrays[name], shape, known):
                raise Damaged(path, f"is damaged in {name}: {wrong}")
    return arrays


def _check_members(path: Path, archive: zipfile.ZipFile, shapes: Mapping[str, Shape]) -> None:
    """Compare what the directory and the headers promise, before anything is unpacked."""
    listed = archive.infolist()
    members = {info.filename: info for info in listed}
    if len(members) < len(listed):
        raise Damaged(path, "is damaged: it has an array twice")
    if sum(info.file_size for info in listed) > RESULT_ARRAYS:
        raise Damaged(path, f"is damaged: its arrays have more than {RESULT_ARRAYS:,} bytes")
    for name, shape in shapes.items():
        info = members.get(f"{name}.npy")
        if info is None:
            raise Damaged(path, f"has no array {name}")
        if info.compress_type not in PACKINGS or info.flag_bits & 1:
            raise Damaged(path, f"is damaged in {name}: it is packed in a way that is not NumPy's")
        with archive.open(info) as member:
            if wrong := _wrong_header(member, info.file_size, shape):
                raise Damaged(path, f"is damaged in {name}: {wrong}")


def _wrong_header(member: IO[bytes], size: int, shape: Shape) -> str:
    """What is wrong with the header of an array whose member has `size` bytes; "" if nothing is."""
    sides, _, dtype = HEADERS[npy.read_magic(member)](member)
    if dtype.kind not in KINDS[shape.kind] or (shape.kind == PICTURES and dtype.itemsize > 1):
        return f"{dtype} are no {shape.kind}"
    if len(sides) != len(shape.axes.split()):
        return f"it has {len(sides)} axes"
    if math.prod(sides) * dtype.itemsize != size - member.tell():
        return f"its header promises {math.prod(sides):,} values, which are not there"
    return ""


def _wrong(name: str, array: np.ndarray, shape: Shape, known: dict[str, int]) -> str:
    """What is wrong with an array; "" if nothing is.

    Args:
        known: the lengths of the axes that the file's arrays before have; gets this one's.
    """
    if not array.size:
        return "it is empty"
    for axis, length in zip(shape.axes.split(), array.shape, strict=True):
        letter, _, more = axis.partition("+")
        if known.setdefault(letter, length - int(more or 0)) != length - int(more or 0):
            return f"it has {length} where the arrays before have {known[letter] + int(more or 0)}"
    if shape.kind == PICTURES and array.shape[-1] not in CHANNELS:
        return f"pictures have {' or '.join(map(str, CHANNELS))} channels and not {array.shape[-1]}"
    if shape.kind == NUMBERS:
        ends = float(array.min()), float(array.max())  # NaN, where there is one
        out = next((v for v in ends if not bounds_of(name).hold(v)), None)
        return f"it cannot be {out}" if out is not None else ""
    if array.dtype.kind == "U" and array.dtype.itemsize > 4 * TEXT:
        return "it has a text without end"
    return ""
