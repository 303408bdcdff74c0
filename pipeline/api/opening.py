"""Where a model is opened from: a project, a folder that was saved, released files, the Hub."""

import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipeline.api.defaults import Defaults
from pipeline.api.numbers import a_path, elements
from pipeline.api.saved import (
    AGAIN,
    CONFIG,
    TOKENIZER_FOLDER,
    TRANSFORMER_FOLDER,
    WEIGHTS,
    identity,
    read_description,
    weights_hash,
)
from pipeline.config.params import Params, load_params
from pipeline.config.paths import IMAGES, TOKENIZER
from pipeline.config.presets import preset_params
from pipeline.config.replicates import main_replicate
from pipeline.data.images.shards import MANIFEST, read_manifest
from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.runtime.files import file_hash
from pipeline.runtime.limits import SIDE
from pipeline.runtime.provenance import NO_RESULTS, described, out_of_date
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.published import WAY_OUT, load_model, require_float32
from pipeline.weights.released.opening import open_pretrained_tokenizer, open_pretrained_transformer

TRAINING = ("train_tokenizer", "cache_tokens", "train_transformer")  # stages behind the networks


class EarlierRun(UserWarning):
    """The networks were trained with other params than params.yaml has now, or from other inputs
    than the project has now."""


@dataclass(frozen=True)
class Opened:
    """A model and what is known about it."""

    tokenizer: Tokenizer
    transformer: MaskGitTransformer
    classes: tuple[str, ...]  # their names, by label
    defaults: Defaults
    preset: str
    seed: int | None = None  # the replicate's; None where there is but one
    project: Path | None = None  # the root folder, where there is one
    measured: dict[str, float] = field(default_factory=dict)  # of a saved model
    measured_of: str = ""  # hash of the weights that it was measured of


def open_project(root: Path, seed: int | None, device: torch.device) -> Opened:
    """The model of a project, as its params.yaml says: trained, or of the released files that it
    names.

    Args:
        seed: the replicate's; None for the first.

    Raises:
        UserError: there is no such replicate, or no model yet; or its networks do not fit each
            other, or neither the params and images, which no `EarlierRun` explains.
    """
    require_float32()
    params = load_params(root / PARAMS_FILE)
    replicate = main_replicate(params, "transformer", seed)
    params = _absolute(params, root)
    tokenizer = (
        load_model(root / TOKENIZER, "tokenizer", device)
        if params.tokenizer.pretrained is None
        else open_pretrained_tokenizer(params, device)
    )
    transformer = (
        load_model(root / replicate.folder, "transformer", device)
        if params.transformer.pretrained is None
        else open_pretrained_transformer(params, device)
    )
    if wrong := _unfit(tokenizer.config, transformer.config):
        raise UserError(f"{root / TOKENIZER.parts[0]}: {wrong}; {WAY_OUT}")
    earlier = _warn_if_stale(root)
    if not earlier:
        _require_asked_for(tokenizer.config, transformer.config, params, root)
    released = params.transformer.pretrained is not None
    names = _names(root / IMAGES, transformer.config.num_classes, any_number=earlier or released)
    defaults = Defaults.of(params)
    return Opened(
        tokenizer, transformer, names, defaults, params.preset, replicate.seed, root.absolute()
    )


def open_released(
    tokenizer: Path | str,
    transformer: Path | str,
    preset: str,
    device: torch.device,
    classes: Sequence[str] | None = None,
) -> Opened:
    """The authors' checkpoints, or others that the stages accept, with a preset's architecture.

    Raises:
        UserError: there is no such preset, or a file does not hold this architecture.
    """
    if isinstance(classes, str) or not isinstance(classes, Iterable | None):
        raise ArgumentError(f"classes: {type(classes).__name__} is no list of names; give one")
    require_float32()
    params = preset_params(preset)
    given = {"tokenizer": tokenizer, "transformer": transformer}
    files = {name: a_path(name, path) for name, path in given.items()}
    params = params.model_copy(
        update={
            name: getattr(params, name).model_copy(update={"pretrained": str(path)})
            for name, path in files.items()
        }
    )
    model = open_pretrained_transformer(params, device)
    known = tuple(elements("classes", classes or map(str, range(model.config.num_classes))))
    if len(known) != model.config.num_classes:
        raise ArgumentError(
            f"classes: {len(known)} names, and the model has {model.config.num_classes} classes"
        )
    networks = open_pretrained_tokenizer(params, device), model
    return Opened(*networks, known, Defaults.of(params), preset)


def open_saved(folder: Path, device: torch.device) -> Opened:
    """What `save_pretrained` wrote.

    Raises:
        UserError: a file is missing, damaged, or does not fit the others.
    """
    description = read_description(folder / CONFIG)
    tokenizer = load_model(folder / TOKENIZER_FOLDER, "tokenizer", device, AGAIN)
    transformer = load_model(folder / TRANSFORMER_FOLDER, "transformer", device, AGAIN)
    wrong = _unfit(tokenizer.config, transformer.config)
    tokens = transformer.config.num_tokens
    wrong = wrong or description.defaults.too_wide(tokens, tokenizer.config.downsampling)
    if (count := transformer.config.num_classes) != len(description.classes):
        wrong = f"{len(description.classes)} names of {count} classes"
    if wrong:
        raise UserError(f"{folder} is damaged: {wrong}; {AGAIN}")
    for part, written in description.weights.items():
        if file_hash(weights := folder / part / WEIGHTS) != written:
            raise UserError(str(weights), "not the weights that were saved with this model", AGAIN)
    classes, defaults = tuple(description.classes), description.defaults
    now = identity(tokenizer.config, transformer.config, classes, defaults.decoding)
    # Else a file was edited since, and what was measured is not this model's.
    measured = description.measured if description.measured_with in ("", now) else {}
    return Opened(
        tokenizer,
        transformer,
        classes,
        defaults,
        description.preset,
        description.seed,
        measured=measured,
        measured_of=weights_hash(tokenizer, transformer) if measured else "",
    )


def open_folder(folder: Path, seed: int | None, device: torch.device) -> Opened:
    """A project (its root, or its `models/`), or a folder that was saved.

    Raises:
        UserError: it is neither.
    """
    if (folder / CONFIG).exists():
        opened = open_saved(folder, device)
        if seed not in (None, opened.seed):
            raise ArgumentError(f"seed: {folder} is a saved model, of seed {opened.seed} alone")
        return opened
    for root in (folder, folder.absolute().parent):
        if (root / PARAMS_FILE).exists() and (root == folder or folder.name == TOKENIZER.parts[0]):
            return open_project(root, seed, device)
    raise UserError(
        f"{folder} holds no model: neither a project's {PARAMS_FILE} nor the {CONFIG} of a saved "
        f"one; give a project's folder, its models/, or a folder that save_pretrained wrote"
    )


def _unfit(tokenizer: TokenizerConfig, transformer: TransformerConfig) -> str | None:
    """Why no image can be made by the two, if none can."""
    if tokenizer.codebook_size != transformer.codebook_size:
        return f"codebooks of {tokenizer.codebook_size} and {transformer.codebook_size}"
    if (side := math.isqrt(transformer.num_tokens) * tokenizer.downsampling) > SIDE:
        return f"images of {side} pixels a side, more than the limit of {SIDE:,} (docs/limits.md)"
    return None


def _require_asked_for(
    tokenizer: TokenizerConfig, transformer: TransformerConfig, params: Params, root: Path
) -> None:
    """Raise a `UserError` where the networks' images are not those of the params."""
    for folder, what, found, wanted in (
        ("tokenizer", "channels", tokenizer.channels, params.data.channels),
        ("tokenizer", "pixels a token", tokenizer.downsampling, params.tokenizer.downsampling),
        ("transformer", "tokens an image", transformer.num_tokens, params.num_tokens),
    ):
        if found != wanted:
            raise UserError(
                f"{root / TOKENIZER.parts[0] / folder}: {found} {what}, where {PARAMS_FILE} asks "
                f"for {wanted}; {WAY_OUT}"
            )


def _warn_if_stale(root: Path) -> bool:
    """Whether the networks are of an `EarlierRun`, of which a warning is given then."""
    stale = out_of_date(root)
    ours = {k: v for k, v in stale.items() if k in TRAINING and v != NO_RESULTS}
    if ours:
        warnings.warn(
            f"the model is of an earlier run: {described(ours)}; `dvc repro` trains it again",
            EarlierRun,
            stacklevel=4,
        )
    return bool(ours)


def _absolute(params: Params, root: Path) -> Params:
    """The params with the released files that they name found from the project's root."""
    named = {k: getattr(params, k) for k in ("tokenizer", "transformer")}
    return params.model_copy(
        update={
            name: section.model_copy(update={"pretrained": str(root / section.pretrained)})
            for name, section in named.items()
            if section.pretrained is not None
        }
    )


def _names(images: Path, classes: int, any_number: bool) -> tuple[str, ...]:
    """The classes' names, where the project has images; else their numbers.

    Args:
        any_number: whether the images may have another number of classes. Then it is numbers too.

    Raises:
        UserError: they have, and may not.
    """
    if os.path.lexists(images / MANIFEST):
        names = read_manifest(images)["class_names"]
        if len(names) == classes:
            return tuple(names)
        if not any_number:
            raise UserError(
                f"{images / MANIFEST} names {len(names)} classes, and the transformer has "
                f"{classes}; {WAY_OUT}"
            )
    return tuple(map(str, range(classes)))
