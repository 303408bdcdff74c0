"""Pretrained weights: the authors' checkpoints, the port of their tokenizer, published models."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json
from pipeline.runtime.project import of_project
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.configs import tokenizer_config, transformer_config
from pipeline.weights.released.formats import AGAIN, read_weights
from pipeline.weights.released.names import LAYOUTS, TOKEN_EMBEDDINGS, FileTensor, Layout

PUBLISHED = "model.safetensors"
KINDS = {
    TokenizerConfig: ("tokenizer", Tokenizer),
    TransformerConfig: ("transformer", MaskGitTransformer),
}
# The params that names and shapes of the weights follow from.
ARCHITECTURE = {
    "tokenizer": "tokenizer.* and data.channels",
    "transformer": "transformer.*, tokenizer.codebook_size and data.image_size",
}


def open_pretrained_tokenizer(params: Params, device: torch.device) -> Tokenizer:
    """The released tokenizer `tokenizer.pretrained`, frozen; raises as `load_pretrained`."""
    assert params.tokenizer.pretrained is not None
    config = tokenizer_config(params)
    tokenizer = Tokenizer(config)
    tokenizer.load_state_dict(load_pretrained(of_project(params.tokenizer.pretrained), config))
    return tokenizer.to(device).eval().requires_grad_(False)


def open_pretrained_transformer(
    params: Params, device: torch.device, num_classes: int | None = None
) -> MaskGitTransformer:
    """The released transformer `transformer.pretrained`, frozen; raises as `load_pretrained`.

    Args:
        num_classes: how many classes it must have; None accepts any number.
    """
    assert params.transformer.pretrained is not None
    path = of_project(params.transformer.pretrained)
    if num_classes is None:
        num_classes = pretrained_num_classes(path, params.tokenizer.codebook_size)
    config = transformer_config(params, num_classes)
    model = MaskGitTransformer(config)
    model.load_state_dict(load_pretrained(path, config))
    return model.to(device).eval().requires_grad_(False)


def load_pretrained(
    path: Path | str, config: TokenizerConfig | TransformerConfig
) -> dict[str, Tensor]:
    """Float32 state dict of `Tokenizer(config)` or `MaskGitTransformer(config)`, on the CPU.

    The format is found from the content: a checkpoint of the authors' release (flax msgpack), the
    PyTorch port of their tokenizer (`maskgit-vqgan-imagenet-f16-256.bin`), or a published model's
    safetensors.

    Args:
        path: the file, or a folder with `model.safetensors`.

    Raises:
        UserError: the file is missing, damaged or in none of these formats; or its weights are
            another model's, have keys or shapes that do not fit, or are not finite.
    """
    path = _file(path)
    kind, model_class = KINDS[type(config)]
    with torch.device("meta"):
        model = model_class(config)
    weights = read_weights(path)
    tensors = _layout(path, weights, kind).tensors(model)
    _check_keys(path, kind, {t.key for group in tensors.values() for t in group}, {*weights})
    if path.name == PUBLISHED:
        _check_description(path.with_name("config.json"), kind, config)
    return {
        name: torch.cat([_rows(path, kind, t, weights) for t in tensors[name]]).reshape(ours.shape)
        for name, ours in model.state_dict().items()
    }


def pretrained_num_classes(path: Path | str, codebook_size: int) -> int:
    """Number of classes that a transformer's checkpoint was trained with.

    The token embedding has a row per code, per class, and one for [MASK] (release).

    Raises:
        UserError: as `load_pretrained`, or the rows are too few for the codebook.
    """
    path = _file(path)
    weights = read_weights(path)
    _layout(path, weights, "transformer")
    rows = next((len(weights[key]) for key in TOKEN_EMBEDDINGS if key in weights), 0)
    if (classes := rows - codebook_size - 1) < 1:
        raise UserError(
            str(path),
            f"has {rows} token embeddings, too few for {codebook_size} codes, a class and [MASK]",
            "make tokenizer.codebook_size in params.yaml agree with the file",
        )
    return classes


def _file(path: Path | str) -> Path:
    return Path(path, PUBLISHED) if Path(path).is_dir() else Path(path)


def _layout(path: Path, weights: Collection[str], kind: str) -> Layout:
    """The layout with most of the file's names; a `UserError` unless it is one of that kind."""
    counts = [sum(key.startswith(layout.marks) for key in weights) for layout in LAYOUTS]
    best = LAYOUTS[counts.index(max(counts))]
    if not max(counts):
        raise UserError(
            str(path),
            f"its keys ({next(iter(weights), 'none')[:100]}, …) are neither a tokenizer's nor a "
            f"transformer's",
            "give the authors' file, the PyTorch port's or a published model",
        )
    if best.kind != kind:
        reason = f"holds a {best.kind} and not a {kind}"
        raise UserError(str(path), reason, f"give the {kind}'s file")
    return best


def _check_keys(path: Path, kind: str, needed: set[str], found: set[str]) -> None:
    missing, unexpected = sorted(needed - found), sorted(found - needed)
    if first := missing or unexpected:
        what = "lacks" if missing else "has an unexpected"
        more = f" (and {len(first) - 1} more)" if len(first) > 1 else ""
        raise UserError(str(path), f"{what} {first[0][:200]}{more}", _way_out(kind))


def _way_out(kind: str) -> str:
    return f"give the whole file, or make {ARCHITECTURE[kind]} in params.yaml agree with it"


def _check_description(path: Path, kind: str, config: TokenizerConfig | TransformerConfig) -> None:
    """Compare the `config.json` beside a published model with what names and shapes of the weights
    do not tell."""
    description = read_json(path) if path.exists() else {}
    ours = {"kind": kind} | dataclasses.asdict(config)
    for key in ("kind", "heads", "codebook_size"):
        if key in description and description[key] != ours.get(key):
            reason = f"{key} is {description[key]} and not {ours.get(key)}"
            raise UserError(str(path), reason, f"give another model, or change {key}")


def _rows(path: Path, kind: str, wanted: FileTensor, weights: dict[str, Tensor]) -> Tensor:
    """A tensor of the file as float32 rows of our weight; it is taken out of `weights`."""
    found, key = weights.pop(wanted.key), wanted.key
    shape = tuple(wanted.shape[wanted.axes.index(axis)] for axis in range(len(wanted.axes)))
    if tuple(found.shape) != shape:
        reason = f"{key} has shape {tuple(found.shape)} and not {shape}"
        raise UserError(str(path), reason, _way_out(kind))
    if not found.is_floating_point():
        raise UserError(str(path), f"{key} is {found.dtype}, not a float", AGAIN)
    rows = found.to(torch.float32).permute(wanted.axes)
    if not rows.isfinite().all():
        raise UserError(str(path), f"{key} holds values that are NaN or infinite", AGAIN)
    return rows
