"""Reading weights from flax's msgpack, PyTorch's zip or safetensors; the content tells which it is.

No code in a file is run: of a pickle only tensors are loaded (`weights_only`).
"""

import math
import mmap
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import require_file

# Flax's msgpack extension types that hold an array (a complex number would be 2).
NDARRAY, NUMPY_SCALAR = 1, 3
CHUNKED = "__msgpack_chunked_array__"
# Longest list or map in a tree of weights; a file that declares a longer one is refused unread.
MAX_CHILDREN = 1 << 16
DTYPES = {
    name: getattr(torch, name)
    for name in ("float32", "bfloat16", "float16", "float64", "int32", "int64", "uint8", "bool")
}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every weight by the file's own name, in its own shape and dtype.

    Names of nested flax weights are joined by `/`, without the outer `params`; all that is not
    under `params` (an optimizer's state) is left out.

    Raises:
        UserError: the file is missing, in none of the three formats, truncated or damaged.
    """
    try:
        require_file(path)
        with open(path, "rb") as handle:
            start = handle.read(9)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; give the path of a checkpoint") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path") from error
    if start[:4] == b"PK\x03\x04":
        read: Callable[[Path], dict[str, Tensor]] = _read_zip
    elif start[5:] == b"\0\0\0{":  # the high bytes of the header's length, then its JSON
        read = load_file
    elif start[:1] and start[0] in (*range(0x81, 0x90), 0xDE, 0xDF):  # a map that is not empty
        read = _read_flax
    else:
        raise UserError(
            f"{path} is neither a flax checkpoint (msgpack), a PyTorch state dict (zip) nor "
            f"safetensors; download it again, or give another file"
        )
    try:
        return read(path)
    except Exception as error:  # three libraries, each with errors of its own for damaged files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path} is truncated or damaged ({reason}); download or copy it again"
        ) from error


def _read_zip(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("its entries are compressed, which PyTorch never does")
        if broken := archive.testzip():
            raise ValueError(f"{broken} does not match its checksum")
    try:
        # Mapped, so that a storage that claims to be larger than the file cannot be read past it.
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError("it holds more than tensors; that is not run") from error
    if not isinstance(weights, dict):
        raise ValueError(f"it holds a {type(weights).__name__} and not a dict of tensors")
    for name, weight in weights.items():
        if not isinstance(weight, Tensor) or weight.layout != torch.strided or weight.is_meta:
            raise ValueError(f"{name} is not a dense tensor")
    return {str(name): weight.detach() for name, weight in weights.items()}


def _read_flax(path: Path) -> dict[str, Tensor]:
    with (
        open(path, "rb") as handle,
        mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        # Arrays stay packed (ExtType): those of an optimizer are never decoded.
        tree = msgpack.unpackb(content, max_array_len=MAX_CHILDREN, max_map_len=MAX_CHILDREN)
    while isinstance(tree.get("params"), dict):
        tree = tree["params"]
    weights, waiting = {}, [("", tree)]
    while waiting:  # not recursive: a hostile file nests deeper than Python does
        name, node = waiting.pop()
        try:
            if not isinstance(node, dict):
                weights[name] = _array(node)
            elif CHUNKED in node:
                weights[name] = _chunked_array(node)
            else:
                prefix = f"{name}/" if name else ""
                waiting += [(f"{prefix}{key}", node.pop(key)) for key in reversed(list(node))]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{name}: {error}") from error
    return weights


def _array(leaf: Any) -> Tensor:
    """Tensor of flax's packed (shape, name of the dtype, row-major bytes)."""
    if not isinstance(leaf, msgpack.ExtType) or leaf.code not in (NDARRAY, NUMPY_SCALAR):
        raise ValueError("not an array")
    shape, dtype, data = msgpack.unpackb(leaf.data, raw=True)
    name = dtype.decode()
    if name not in DTYPES:
        raise ValueError(f"arrays of {name} are not weights")
    if len(data) != math.prod(shape) * DTYPES[name].itemsize:
        raise ValueError(f"{len(data)} bytes are not those of a {name} array of shape {shape}")
    flat = torch.frombuffer(bytearray(data), dtype=DTYPES[name]) if data else torch.empty(0)
    return flat.reshape(shape)


def _chunked_array(node: dict) -> Tensor:
    """Tensor of an array that flax wrote in flat pieces because of msgpack's limit on sizes."""
    shape = [node["shape"][str(i)] for i in range(len(node["shape"]))]
    chunks = [_array(node["chunks"][str(i)]) for i in range(len(node["chunks"]))]
    return torch.cat(chunks).reshape(shape)
