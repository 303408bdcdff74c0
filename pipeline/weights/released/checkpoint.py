"""Pretrained weights: the authors' checkpoints, the port of their tokenizer, published models."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipeline.config.params import Params
from pipeline.runtime.errors import UserError
from pipeline.runtime.project import of_project
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.configs import tokenizer_config, transformer_config
from pipeline.weights.published import WEIGHTS, not_finite
from pipeline.weights.released import names
from pipeline.weights.released.formats import read_weights
from pipeline.weights.released.names import Weights

# By the config: the kind of model, its class, and the params that names and shapes follow from.
MODELS: dict[type, tuple[str, type, str]] = {
    TokenizerConfig: ("tokenizer", Tokenizer, "tokenizer.* and data.channels"),
    TransformerConfig: (
        "transformer",
        MaskGitTransformer,
        "transformer.*, tokenizer.codebook_size and data.image_size",
    ),
}


class Layout(NamedTuple):
    """One set of names of weights."""

    kind: str
    prefixes: tuple[str, ...]  # of names that no other layout has
    convert: Callable[[Weights, Any], Weights]  # to our names and shapes


def _own(weights: Weights, config: Any) -> Weights:
    return weights


LAYOUTS = (
    Layout("tokenizer", ("encoder/", "decoder/", "quantizer/"), names.from_flax_tokenizer),
    Layout(
        "transformer", ("Embed_0/", "TransformerLayer_", "MlmLayer_0/"), names.from_flax_transformer
    ),
    Layout("tokenizer", ("encoder.down.", "decoder.up.", "quantize."), names.from_port),
    Layout("tokenizer", ("encoder.levels.", "decoder.levels.", "quantizer."), _own),
    Layout("transformer", ("token_embedding.", "position_embedding", "blocks."), _own),
)


def open_pretrained_tokenizer(params: Params, device: torch.device) -> Tokenizer:
    """The released tokenizer `tokenizer.pretrained`, frozen; raises as `load_pretrained`."""
    assert params.tokenizer.pretrained is not None
    path = of_project(params.tokenizer.pretrained)
    return load_pretrained(path, tokenizer_config(params)).to(device)


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
    return load_pretrained(path, transformer_config(params, num_classes)).to(device)


def load_pretrained(path: Path | str, config: TokenizerConfig | TransformerConfig) -> Any:
    """Load `Tokenizer(config)` or `MaskGitTransformer(config)` in evaluation mode and float32, on
    the CPU, its weights frozen.

    The format is found from the content: a checkpoint of the authors' release (flax msgpack), the
    PyTorch port of their tokenizer (`maskgit-vqgan-imagenet-f16-256.bin`), or a published model's
    safetensors.

    Args:
        path: the file, or a folder with `model.safetensors`.

    Raises:
        UserError: the file is missing, damaged or in none of these formats; or its weights are
            another model's, have names or shapes that do not fit, or are not finite.
    """
    path, (kind, model_class, architecture) = _file(path), MODELS[type(config)]
    weights = read_weights(path)
    layout = _layout(path, weights, kind)
    model = model_class(config)
    try:
        if path.name == WEIGHTS:
            _check_description(path.with_name("config.json"), kind, config)
        model.load_state_dict(layout.convert(weights, config))
        if name := not_finite(model.state_dict()):
            raise ValueError(f"{name} holds values that are NaN or infinite")
    except (RuntimeError, ValueError, IndexError) as error:
        lines = str(error).splitlines()  # PyTorch's first line names the class alone
        reason = f"does not fit ({' '.join(lines[min(1, len(lines) - 1)].split())[:200]})"
        way_out = f"give the whole file, or make {architecture} in params.yaml agree with it"
        raise UserError(str(path), reason, way_out) from error
    return model.eval().requires_grad_(False)


def pretrained_num_classes(path: Path | str, codebook_size: int) -> int:
    """Number of classes that a transformer's checkpoint was trained with.

    The token embedding has a row per code, per class, and one for [MASK] (release).

    Raises:
        UserError: as `load_pretrained`, or the rows are too few for the codebook.
    """
    path = _file(path)
    weights = read_weights(path)
    _layout(path, weights, "transformer")
    keys = (names.TOKEN_EMBEDDINGS, "token_embedding.weight")
    rows = next((len(weights[key]) for key in keys if key in weights), 0)
    if (classes := rows - codebook_size - 1) < 1:
        raise UserError(
            str(path),
            f"has {rows} token embeddings, too few for {codebook_size} codes, a class and [MASK]",
            "make tokenizer.codebook_size in params.yaml agree with the file",
        )
    return classes


def _file(path: Path | str) -> Path:
    return Path(path, WEIGHTS) if Path(path).is_dir() else Path(path)


def _layout(path: Path, weights: Weights, kind: str) -> Layout:
    """The layout of the file's names; a `UserError` unless it is one of that kind."""
    for layout in LAYOUTS:
        if any(key.startswith(layout.prefixes) for key in weights):
            if layout.kind == kind:
                return layout
            reason = f"holds a {layout.kind} and not a {kind}"
            raise UserError(str(path), reason, f"give the {kind}'s file")
    raise UserError(
        str(path),
        f"has neither a tokenizer's nor a transformer's weights ({next(iter(weights), '')[:100]})",
        "give the authors' file, the PyTorch port's or a published model",
    )


def _check_description(path: Path, kind: str, config: TokenizerConfig | TransformerConfig) -> None:
    """Compare the `config.json` beside a published model with the values that names and shapes of
    its weights do not show; a ValueError if one differs."""
    description = json.loads(path.read_bytes()) if path.exists() else {}
    ours = {"kind": kind} | dataclasses.asdict(config)
    for key in ("kind", "heads", "codebook_size"):
        if key in description and description[key] != ours.get(key):
            raise ValueError(f"{key} is {description[key]} and not {ours.get(key)}")
