"""Pretrained weights: the authors' checkpoints, the port of their tokenizer, published models."""

import dataclasses
import os
import re
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.released.formats import read_weights
from pipeline.weights.released.names import LAYOUTS, TOKEN_EMBEDDINGS, Layout, Part, Parts

PUBLISHED = "model.safetensors"
KINDS = {
    TokenizerConfig: ("tokenizer", Tokenizer),
    TransformerConfig: ("transformer", MaskGitTransformer),
}
# Dimensions of our weights, and the params that set them.
SIZES = {
    "tokenizer": (
        ("encoder.stem.weight", 0, "tokenizer.filters"),
        ("encoder.stem.weight", 1, "data.channels"),
        ("quantizer.codebook", 0, "tokenizer.codebook_size"),
        ("quantizer.codebook", 1, "tokenizer.embedding_dim"),
    ),
    "transformer": (
        ("token_embedding.weight", 1, "transformer.hidden"),
        ("blocks.0.mlp_in.weight", 0, "transformer.mlp"),
        ("position_embedding", 0, "tokens + 1 by data.image_size and tokenizer.multipliers"),
        ("token_embedding.weight", 0, "tokenizer.codebook_size + number of classes + 1"),
    ),
}
# The param that a shape depends on if all of these agree.
OTHERWISE = {"tokenizer": "tokenizer.multipliers", "transformer": "transformer.heads"}
# Modules whose number differs between models, in any layout, and the params that set the number.
MODULES = (
    (r"(TransformerLayer_|blocks\.)\d+[/.]", "transformer.layers"),
    (
        r"(en|de)coder[/.](ResBlock_\d+/|Conv_\d+/|levels\.\d+\.\d+\.|mid(dle)?\.\d+\.|"
        r"(down|up)\.\d+\.(block\.\d+|upsample_conv)\.|upsample\.\d+\.)",
        "tokenizer.multipliers or tokenizer.res_blocks",
    ),
    (r".*(ResBlock_\d+/Conv_2/|shortcut\.)", "tokenizer.multipliers"),
)


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
    layout = _layout(path, weights)
    _check_kind(path, layout, kind)
    parts = layout.parts(model)
    _check_keys(path, parts, weights)
    _check_shapes(path, kind, parts, weights)
    if path.name == PUBLISHED:
        _check_description(path.with_name("config.json"), kind, config)
    return {
        name: _joined(path, parts[name], weights, tuple(ours.shape))
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
    _check_kind(path, _layout(path, weights), "transformer")
    for key in TOKEN_EMBEDDINGS:
        if key in weights and weights[key].ndim == 2:
            classes = len(weights[key]) - codebook_size - 1
            if classes < 1:
                raise _does_not_fit(
                    path,
                    f"{key} has {len(weights[key])} rows, too few for {codebook_size} codes, a "
                    f"class and [MASK]; make params.yaml agree on tokenizer.codebook_size",
                )
            return classes
    raise _does_not_fit(path, "it lacks the token embedding; give a complete checkpoint")


def _file(path: Path | str) -> Path:
    # Not of pathlib, whose question has an error of its own for a name that is too long.
    return Path(path, PUBLISHED) if os.path.isdir(path) else Path(path)


def _does_not_fit(path: Path, what: str) -> UserError:
    return UserError(" ".join(f"{path} does not fit: {what}".split()))


def _layout(path: Path, weights: Collection[str]) -> Layout:
    def hits(layout: Layout) -> int:
        return sum(key.startswith(layout.marks) for key in weights)

    best = max(LAYOUTS, key=hits)
    if not hits(best):
        first = next(iter(weights), "no key at all")
        raise _does_not_fit(
            path,
            f"its keys ({first[:100]}, …) are neither a tokenizer's nor a transformer's; give "
            f"the authors' file, the PyTorch port's or a published model",
        )
    return best


def _check_kind(path: Path, layout: Layout, kind: str) -> None:
    if layout.kind != kind:
        raise _does_not_fit(
            path, f"it holds a {layout.kind} and not a {kind}; give the {kind}'s file"
        )


def _check_keys(path: Path, parts: Parts, weights: Collection[str]) -> None:
    needed = {part.key: None for group in parts.values() for part in group}  # an ordered set
    what, hint = [], None
    for verb, keys, others in (
        ("lacks", [key for key in needed if key not in weights], weights),
        ("has an unexpected", [key for key in weights if key not in needed], needed),
    ):
        if keys:
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            what.append(f"{verb} {keys[0][:200]}{more}")
            hint = hint or _differing_modules(keys[0], others)
    if what:
        way_out = f"make params.yaml agree on {hint}" if hint else "give this model's whole file"
        raise _does_not_fit(path, f"it {' and '.join(what)}; {way_out}")


def _differing_modules(key: str, others: Collection[str]) -> str | None:
    """The params that set the number of modules like the key's, if `others` lack that module."""
    for pattern, parameter in MODULES:
        module = re.match(pattern, key)
        if module and not any(other.startswith(module[0]) for other in others):
            return parameter
    return None


def _check_shapes(path: Path, kind: str, parts: Parts, weights: dict[str, Tensor]) -> None:
    for part in (part for group in parts.values() for part in group):
        found = weights[part.key]
        if tuple(found.shape) != part.shape:
            raise _does_not_fit(
                path,
                f"{part.key} has shape {tuple(found.shape)} and not {part.shape}; make params.yaml "
                f"agree on {_differing_sizes(kind, parts, weights)}",
            )
        if not found.is_floating_point() or found.itemsize < 2:  # 8 bits have a scale elsewhere
            dtype = str(found.dtype).removeprefix("torch.")
            raise _does_not_fit(path, f"{part.key} is {dtype}, no weight; give the original file")


def _differing_sizes(kind: str, parts: Parts, weights: dict[str, Tensor]) -> str:
    differing = []
    for name, dimension, parameter in SIZES[kind]:
        part = parts[name][0]
        shape, axis = tuple(weights[part.key].shape), part.axes[dimension]
        if len(shape) == len(part.shape) and shape[axis] != part.shape[axis]:
            differing.append(f"{parameter} ({shape[axis]} in the file, {part.shape[axis]} here)")
    return ", ".join(differing) or OTHERWISE[kind]


def _check_description(path: Path, kind: str, config: TokenizerConfig | TransformerConfig) -> None:
    """Compare what names and shapes of the weights do not tell with the `config.json` beside a
    published model."""
    description = read_json(path) if path.exists() else None
    if isinstance(description, dict):
        ours = {"kind": kind} | dataclasses.asdict(config)
        for key in ("kind", "heads", "codebook_size"):
            wanted = ours.get(key)
            found = description.get(key, wanted)
            if found != wanted:
                alike = str(found) == str(wanted)  # the text "4" and the number
                what, ours_is = (
                    f"{str(value)[:100]}{f' ({type(value).__name__})' if alike else ''}"
                    for value in (found, wanted)
                )
                raise _does_not_fit(
                    path,
                    f"{key} is {what} and not {ours_is}; give another model, or change {key}",
                )


def _joined(
    path: Path, parts: list[Part], weights: dict[str, Tensor], shape: tuple[int, ...]
) -> Tensor:
    """Our weight of the given shape, copied from its parts, which are taken out of `weights`."""
    rows = []
    for part in parts:
        weight = weights.pop(part.key).to(torch.float32)
        if not weight.isfinite().all():
            raise _does_not_fit(
                path, f"{part.key} holds values that are not finite; download or copy it again"
            )
        rows.append(weight.permute(part.axes).reshape(shape[0] // len(parts), *shape[1:]))
    return torch.cat(rows)
