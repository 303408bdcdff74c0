"""Reading weights from flax's msgpack, PyTorch's zip or safetensors; the content tells which it is.

No code in a file is run.
"""

from pathlib import Path
from typing import Any

import msgpack
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import require_file
from pipeline.runtime.pytorch_files import read_state_dict

NDARRAY = 1  # flax's msgpack extension type of an array
AGAIN = "download or copy it again"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every weight by the file's own name, in its own shape and dtype.

    Names of nested flax weights are joined by `/`, without the outer `params`; all that is not
    under `params` (an optimizer's state) is left out.

    Raises:
        UserError: the file is missing, in none of the three formats, truncated or damaged.
    """
    try:
        require_file(path)
    except FileNotFoundError as error:
        raise UserError(str(path), "missing", "give the path of a checkpoint") from error
    with open(path, "rb") as handle:
        start = handle.read(9)
    try:
        if start[:4] == b"PK\x03\x04":
            return read_state_dict(path)
        if start[5:] == b"\0\0\0{":  # the high bytes of the header's length, then its JSON
            return load_file(path)
        if start[:1] and start[0] in (*range(0x81, 0x90), 0xDE, 0xDF):  # a map of msgpack
            return _read_flax(path)
    except Exception as error:  # each library has errors of its own for damaged files
        require_readable(path, error)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(str(path), f"truncated or damaged ({reason})", AGAIN) from error
    raise UserError(
        str(path),
        "neither a flax checkpoint (msgpack), a PyTorch state dict (zip) nor safetensors",
        "download it again, or give another file",
    )


def _read_flax(path: Path) -> dict[str, Tensor]:
    # Arrays stay packed, as ExtType, so that those of an optimizer are never decoded.
    tree = msgpack.unpackb(path.read_bytes())
    while isinstance(tree.get("params"), dict):
        tree = tree["params"]
    weights: dict[str, Tensor] = {}

    def add(name: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, child in node.items():
                add(f"{name}/{key}" if name else key, child)
        else:
            weights[name] = _array(name, node)

    add("", tree)
    return weights


def _array(name: str, leaf: Any) -> Tensor:
    """Tensor of flax's packed (shape, name of the dtype, row-major bytes)."""
    if not isinstance(leaf, msgpack.ExtType) or leaf.code != NDARRAY:
        raise ValueError(f"{name[:100]} is not an array")
    shape, dtype, data = msgpack.unpackb(leaf.data, raw=True)
    kind = getattr(torch, dtype.decode())
    return torch.frombuffer(bytearray(data), dtype=kind).reshape(shape)
