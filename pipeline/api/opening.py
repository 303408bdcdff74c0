"""Where a model is opened from: a project, a folder that was saved, released files, the Hub."""

import warnings
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipeline.api.defaults import Defaults
from pipeline.api.saved import CONFIG, TOKENIZER_FOLDER, TRANSFORMER_FOLDER, read_description
from pipeline.config.params import Params, load_params
from pipeline.config.paths import IMAGES, TOKENIZER
from pipeline.config.presets import preset_params
from pipeline.config.replicates import main_replicate
from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.runtime.files import read_json
from pipeline.runtime.records import described, out_of_date
from pipeline.tokenizer import Tokenizer
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import WAY_OUT, load_model
from pipeline.weights.released.opening import open_pretrained_tokenizer, open_pretrained_transformer

TRAINING = ("train_tokenizer", "cache_tokens", "train_transformer")  # stages behind the networks


class EarlierRun(UserWarning):
    """The networks were trained with other params than params.yaml has now."""


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
    measured: dict[str, float] = field(default_factory=dict)


def open_project(root: Path, seed: int | None, device: torch.device) -> Opened:
    """The model of a project, as its params.yaml says: trained, or of the released files that it
    names.

    Args:
        seed: the replicate's; None for the first.

    Raises:
        UserError: there is no such replicate, or no model yet.
    """
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
    _warn_if_stale(root)
    names = _names(root / IMAGES / "manifest.json", transformer.config.num_classes)
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
    params = preset_params(preset)
    files = {"tokenizer": tokenizer, "transformer": transformer}
    params = params.model_copy(
        update={
            name: getattr(params, name).model_copy(update={"pretrained": str(path)})
            for name, path in files.items()
        }
    )
    model = open_pretrained_transformer(params, device)
    known = tuple(classes or map(str, range(model.config.num_classes)))
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
    try:
        tokenizer = load_model(folder / TOKENIZER_FOLDER, "tokenizer", device)
        transformer = load_model(folder / TRANSFORMER_FOLDER, "transformer", device)
    except UserError as error:  # whose way out is a project's
        raise UserError(str(error).replace(WAY_OUT, "save or download it again")) from error
    classes = transformer.config.num_classes
    codes = (tokenizer.config.codebook_size, transformer.config.codebook_size)
    if len(description.classes) != classes or codes[0] != codes[1]:
        raise UserError(
            f"{folder} is damaged: {len(description.classes)} names of {classes} classes, "
            f"codebooks of {codes[0]} and {codes[1]}; save or download it again"
        )
    return Opened(
        tokenizer,
        transformer,
        tuple(description.classes),
        description.defaults,
        description.preset,
        description.seed,
        measured=description.measured,
    )


def open_folder(folder: Path, seed: int | None, device: torch.device) -> Opened:
    """A project (its root, or its `models/`), or a folder that was saved.

    Raises:
        UserError: it is neither.
    """
    if (folder / CONFIG).exists():
        return open_saved(folder, device)
    for root in (folder, folder.absolute().parent):
        if (root / PARAMS_FILE).exists() and (root == folder or folder.name == TOKENIZER.parts[0]):
            return open_project(root, seed, device)
    raise UserError(
        f"{folder} holds no model: neither a project's {PARAMS_FILE} nor the {CONFIG} of a saved "
        f"one; give a project's folder, its models/, or a folder that save_pretrained wrote"
    )


def _warn_if_stale(root: Path) -> None:
    """Warn where the networks are of an `EarlierRun`."""
    with chdir(root):
        stale = out_of_date()
    ours = {k: v for k, v in stale.items() if k in TRAINING and not v.missing}
    if ours:
        warnings.warn(
            f"the model is of an earlier run: {described(ours)}; `dvc repro` makes it new",
            EarlierRun,
            stacklevel=4,
        )


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


def _names(manifest: Path, classes: int) -> tuple[str, ...]:
    """The classes' names, where the project's images have as many; else their numbers."""
    if manifest.exists():
        names = read_json(manifest, "class_names")["class_names"]
        if len(names) == classes:
            return tuple(names)
    return tuple(map(str, range(classes)))
