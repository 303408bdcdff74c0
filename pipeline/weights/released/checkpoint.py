"""Loads the authors' checkpoints, a PyTorch port of their tokenizer, and this project's models."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgpack
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.config.params import Params
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import require_file
from pipeline.runtime.project import of_project
from pipeline.runtime.pytorch_files import read_state_dict
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.configs import tokenizer_config, transformer_config
from pipeline.weights.published import MODELS, WEIGHTS, not_finite
from pipeline.weights.released.names import (
    TOKEN_EMBEDDINGS,
    Weights,
    from_flax_tokenizer,
    from_flax_transformer,
    from_port,
)

NDARRAY = 1  # the msgpack extension type that flax uses for arrays
# Kind of model -> the params that determine the names and shapes of the model's weights.
ARCHITECTURE = {
    "tokenizer": "tokenizer.* and data.channels",
    "transformer": "transformer.*, tokenizer.codebook_size and data.image_size",
}
# The layouts of files: the kind of model, prefixes of weight names that only this layout has, and
# the function that converts the weights to our names and shapes.
LAYOUTS: tuple[tuple[str, tuple[str, ...], Callable[[Weights, Any], Weights]], ...] = (
    ("tokenizer", ("encoder/", "decoder/", "quantizer/"), from_flax_tokenizer),
    ("transformer", ("Embed_0/", "TransformerLayer_", "MlmLayer_0/"), from_flax_transformer),
    ("tokenizer", ("encoder.down.", "decoder.up.", "quantize."), from_port),
    ("tokenizer", ("encoder.levels.", "decoder.levels.", "quantizer."), lambda own, config: own),
    ("transformer", ("token_embedding.", "position_embedding", "blocks."), lambda own, config: own),
)


def open_pretrained_tokenizer(
    params: Params, device: torch.device, path: Path | str | None = None
) -> Tokenizer:
    """Load the tokenizer at `path`, by default `tokenizer.pretrained` (see `load_pretrained`)."""
    path = path or of_project(str(params.tokenizer.pretrained))
    return load_pretrained(path, tokenizer_config(params)).to(device)


def open_pretrained_transformer(
    params: Params,
    device: torch.device,
    num_classes: int | None = None,
    path: Path | str | None = None,
) -> MaskGitTransformer:
    """Load the transformer at `path`, by default `transformer.pretrained` (see `load_pretrained`).
    `num_classes` is the number that the file must have; None accepts any number of classes."""
    path = path or of_project(str(params.transformer.pretrained))
    if num_classes is None:
        num_classes = pretrained_num_classes(path, params.tokenizer.codebook_size)
    return load_pretrained(path, transformer_config(params, num_classes)).to(device)


def load_pretrained(path: Path | str, config: TokenizerConfig | TransformerConfig) -> Any:
    """Load `Tokenizer(config)` or `MaskGitTransformer(config)` in evaluation mode and float32, on
    the CPU, with frozen weights. `path` is a checkpoint of the authors' release (flax msgpack), the
    PyTorch port of their tokenizer (`maskgit-vqgan-imagenet-f16-256.bin`), a safetensors file, or a
    folder with `model.safetensors`; the content determines the format.

    Raises:
        UserError: the file is missing, damaged, in another format, or of another kind of model;
            or the weights have unexpected names or shapes, or are not finite.
    """
    kind = "tokenizer" if isinstance(config, TokenizerConfig) else "transformer"
    path, weights, convert = _read(path, kind)
    model = MODELS[kind][0](config)
    try:
        about = path.with_name("config.json")
        if path.name == WEIGHTS and about.exists():
            theirs, ours = json.loads(about.read_bytes()), {"kind": kind} | asdict(config)
            for key in ("kind", "heads", "codebook_size"):  # not visible in names and shapes
                if key in theirs and theirs[key] != ours.get(key):
                    raise ValueError(f"the file's {key} is {theirs[key]}, not {ours.get(key)}")
        model.load_state_dict(convert(weights, config))
        if name := not_finite(model.state_dict()):
            raise ValueError(f"{name} has NaN or infinite values")
    except (RuntimeError, ValueError, IndexError) as error:
        lines = str(error).splitlines()  # PyTorch's first line only names the class
        reason = f"does not match params ({' '.join(lines[min(1, len(lines) - 1)].split())[:200]})"
        way_out = f"give a complete file, or adapt {ARCHITECTURE[kind]} to this file"
        raise UserError(str(path), reason, way_out) from error
    return model.eval().requires_grad_(False)


def pretrained_num_classes(path: Path | str, codebook_size: int) -> int:
    """The number of classes of a transformer checkpoint, from the rows of its token embedding: one
    per code, one per class, and one for [MASK]. Raises a `UserError` if the file cannot be read, or
    if the embedding has too few rows for `codebook_size` codes."""
    path, weights, _ = _read(path, "transformer")
    keys = (TOKEN_EMBEDDINGS, "token_embedding.weight")
    rows = next((len(weights[key]) for key in keys if key in weights), 0)
    if (classes := rows - codebook_size - 1) < 1:
        raise UserError(
            str(path),
            f"has {rows} token embeddings, too few for {codebook_size} codes, a class and [MASK]",
            "set tokenizer.codebook_size in params.yaml to the file's number of codes",
        )
    return classes


def _read(path: Path | str, kind: str) -> tuple[Path, Weights, Callable[[Weights, Any], Weights]]:
    """Read a weights file. Returns the file's path, the weights, and the function that converts the
    weights to this project's names and shapes."""
    path = Path(path, WEIGHTS) if Path(path).is_dir() else Path(path)
    weights = _weights(path)
    for of, prefixes, convert in LAYOUTS:
        if any(key.startswith(prefixes) for key in weights):
            if of == kind:
                return path, weights, convert
            raise UserError(str(path), f"holds a {of}, not a {kind}", f"give the {kind}'s file")
    raise UserError(
        str(path),
        f"has no tokenizer or transformer weights (found: {next(iter(weights), 'none')[:100]})",
        "give the authors' file, the PyTorch port's file or a model that this project saved",
    )


def _weights(path: Path) -> Weights:
    """Read a weights file without executing its code. Names and shapes are not converted."""
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
        return _read_flax(path)
    except Exception as error:  # each library raises its own errors for damaged files
        require_readable(path, error)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            str(path),
            f"damaged, or not a flax msgpack, PyTorch zip or safetensors file ({reason})",
            "download it again, or give another file",
        ) from error


def _read_flax(path: Path) -> Weights:
    """Read the weights of a flax checkpoint, without the optimizer's state. Nested names are joined
    by `/`."""
    # Arrays stay packed as ExtType, so the optimizer's arrays are never decoded.
    tree = msgpack.unpackb(path.read_bytes())
    while isinstance(tree.get("params"), dict):
        tree = tree["params"]
    weights: Weights = {}

    def add(name: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, child in node.items():
                add(f"{name}/{key}" if name else key, child)
        else:
            weights[name] = _array(name, node)

    add("", tree)
    return weights


def _array(name: str, leaf: Any) -> Tensor:
    """Convert a packed flax array (shape, name of dtype, row-major bytes) to a tensor."""
    if not isinstance(leaf, msgpack.ExtType) or leaf.code != NDARRAY:
        raise ValueError(f"the weight {name[:100]} is not an array")
    shape, dtype, data = msgpack.unpackb(leaf.data, raw=True)
    kind = getattr(torch, dtype.decode())
    return torch.frombuffer(bytearray(data), dtype=kind).reshape(shape)
