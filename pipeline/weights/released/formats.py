"""Reading weights from flax's msgpack, PyTorch's zip or safetensors; the content tells which it is.

No code in a file is run, and what its lists of names and shapes say is held to limits before it is
followed: a few bytes may claim what no machine has the memory for.
"""

import math
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import require_file
from pipeline.runtime.limits import FLAX_BYTES
from pipeline.runtime.pytorch_files import read_state_dict

# Flax's msgpack extension types that hold an array (a complex number would be 2).
NDARRAY, NUMPY_SCALAR = 1, 3
CHUNKED = "__msgpack_chunked_array__"
# Longest list or map in a tree of weights; a file that declares a longer one is refused unread.
MAX_CHILDREN = 1 << 12
MAX_NODES = 1 << 16  # lists, maps and what they hold, in a whole tree
MAX_DIMENSIONS = 8  # of an array
MAX_NAME = 1024  # characters of a weight's name
DTYPES = {
    name: getattr(torch, name)
    for name in ("float32", "bfloat16", "float16", "float64", "int32", "int64", "uint8", "bool")
}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every weight by the file's own name, in its own shape and dtype.

    Names of nested flax weights are joined by `/`, without the outer `params`; all that is not
    under `params` (an optimizer's state) is left out.

    Raises:
        UserError: the file is missing, in none of the three formats, too large, truncated or
            damaged.
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
        read: Callable[[Path], dict[str, Tensor]] = read_state_dict
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
    except UserError:
        raise
    except Exception as error:  # three libraries, each with errors of its own for damaged files
        require_readable(path, error)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path} is truncated or damaged ({reason}); download or copy it again"
        ) from error


def _read_flax(path: Path) -> dict[str, Tensor]:
    require_file(path, FLAX_BYTES)
    with (
        open(path, "rb") as handle,
        mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        # Arrays stay packed (ExtType): those of an optimizer are never decoded.
        tree = _unpacked(content, MAX_NODES, MAX_CHILDREN)
    if not isinstance(tree, dict):
        raise ValueError("it holds no tree of weights")
    while isinstance(tree.get("params"), dict):
        tree = tree["params"]
    weights: dict[str, Tensor] = {}
    waiting = [("", tree)]
    while waiting:  # not recursive: a hostile file nests deeper than Python does
        name, node = waiting.pop()
        if len(name) > MAX_NAME:
            raise ValueError(f"a name in it is longer than {MAX_NAME:,} characters")
        try:
            if not isinstance(node, dict) or CHUNKED in node:
                if name in weights:  # `a/b`, and `b` in `a`
                    raise ValueError("it is in the tree twice")
                weights[name] = _chunked_array(node) if isinstance(node, dict) else _array(node)
            else:
                prefix = f"{name}/" if name else ""
                waiting += [(f"{prefix}{key}", node.pop(key)) for key in reversed(list(node))]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{name[:100]}: {error}") from error
    return weights


def _unpacked(packed: bytes | mmap.mmap, most: int, longest: int, raw: bool = False) -> Any:
    """What msgpack packed.

    Args:
        most: lists, maps and what they hold.
        longest: list or map.
        raw: texts stay bytes, and there may be bytes. (Those of a tree are in its arrays.)

    Raises:
        ValueError: there is more in it, a map has a name twice, or it is damaged.
    """
    left = most

    def counted(node: list) -> list:
        nonlocal left
        left -= 1 + len(node)
        if left < 0:
            raise ValueError("it holds too many things to be weights")
        return node

    try:
        return msgpack.unpackb(
            packed,
            raw=raw,
            object_pairs_hook=lambda pairs: dict(counted(pairs)),
            list_hook=counted,
            max_bin_len=len(packed) if raw else 0,
            max_array_len=longest,
            max_map_len=longest,
            max_str_len=len(packed) if raw else MAX_NAME,
        )
    except (msgpack.FormatError, msgpack.StackError) as error:  # they say nothing
        raise ValueError("it is no msgpack") from error


def _array(leaf: Any) -> Tensor:
    """Tensor of flax's packed (shape, name of the dtype, row-major bytes)."""
    if not isinstance(leaf, msgpack.ExtType) or leaf.code not in (NDARRAY, NUMPY_SCALAR):
        raise ValueError("not an array")
    shape, dtype, data = _unpacked(leaf.data, 3 * MAX_DIMENSIONS, MAX_DIMENSIONS, raw=True)
    name = dtype.decode()
    if name not in DTYPES:
        raise ValueError(f"arrays of {name} are not weights")
    if len(data) != math.prod(shape) * DTYPES[name].itemsize:
        raise ValueError(f"{len(data)} bytes are not those of a {name} array of shape {shape}")
    flat = torch.frombuffer(bytearray(data), dtype=DTYPES[name]) if data else torch.empty(0)
    return flat.reshape(shape)


def _chunked_array(node: dict) -> Tensor:
    """Tensor of an array that flax wrote in flat pieces because of msgpack's limit on sizes."""
    if len(node["shape"]) > MAX_DIMENSIONS:
        raise ValueError(f"an array of {len(node['shape'])} dimensions")
    shape = [node["shape"][str(i)] for i in range(len(node["shape"]))]
    chunks = [_array(node["chunks"][str(i)]) for i in range(len(node["chunks"]))]
    return torch.cat(chunks).reshape(shape)
