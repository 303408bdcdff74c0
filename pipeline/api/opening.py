"""Where a model is opened from: a project, a saved folder, or released files."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict

from pipeline.api.defaults import Defaults
from pipeline.config.params import Params, load_params
from pipeline.config.paths import IMAGES, TOKENIZER
from pipeline.config.presets import preset_params
from pipeline.config.replicates import main_replicate
from pipeline.data.images.shards import MANIFEST, read_manifest
from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.runtime.provenance import NO_RESULTS, described, out_of_date
from pipeline.tokenizer import Tokenizer
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import load_model
from pipeline.weights.released.checkpoint import (
    open_pretrained_tokenizer,
    open_pretrained_transformer,
)

CONFIG = "config.json"  # of a saved model
FORMAT = "maskgit-pipeline 1"
AGAIN = "save or download it again"
TRAINING = ("train_tokenizer", "cache_tokens", "train_transformer")  # stages behind the networks


class EarlierRun(UserWarning):
    """The networks were trained with other params than params.yaml has now, or from other inputs
    than the project has now."""


class Description(BaseModel):
    """config.json of a saved model."""

    model_config = ConfigDict(extra="forbid")

    format: str = FORMAT
    classes: list[str]
    defaults: Defaults
    preset: str
    seed: int | None
    measured: dict[str, float]  # metrics of the model's samples


class Opened(NamedTuple):
    """A model and what is known about it."""

    tokenizer: Tokenizer
    transformer: MaskGitTransformer
    classes: tuple[str, ...]  # their names, by label
    defaults: Defaults
    preset: str
    seed: int | None = None  # the replicate's; None where there is but one
    project: Path | None = None  # the root folder, where there is one
    folders: tuple[Path, ...] = ()  # that the two networks were loaded from


def open_folder(folder: Path, seed: int | None, device: torch.device) -> Opened:
    """Open a project (its root, or its `models/`), or a saved folder.

    Raises:
        UserError: it is neither.
    """
    if (folder / CONFIG).exists():
        opened = open_saved(folder, device)
        if seed not in (None, opened.seed):
            raise ArgumentError("seed", f"{folder} is a saved model, of seed {opened.seed} alone")
        return opened
    for root in (folder, folder.absolute().parent):
        if (root / PARAMS_FILE).exists() and (root == folder or folder.name == TOKENIZER.parts[0]):
            return open_project(root, seed, device)
    raise UserError(
        str(folder),
        f"no model: neither a project's {PARAMS_FILE} nor the {CONFIG} of a saved one",
        "give a project's folder, its models/, or a folder that save_pretrained wrote",
    )


def open_project(root: Path, seed: int | None, device: torch.device) -> Opened:
    """Open the model that a project's params.yaml describes: a trained one, or released files.

    Args:
        seed: the replicate's; None for the first.

    Raises:
        UserError: there is no such replicate, or no model yet.
    """
    params = load_params(root / PARAMS_FILE)
    replicate = main_replicate(params, "transformer", seed)
    released = {"tokenizer": params.tokenizer.pretrained}
    released["transformer"] = params.transformer.pretrained
    params = _with_pretrained(params, {k: root / v for k, v in released.items() if v})
    folders = root / TOKENIZER, root / replicate.folder
    if released["tokenizer"]:
        tokenizer = open_pretrained_tokenizer(params, device)
    else:
        tokenizer = load_model(folders[0], "tokenizer", device)
    if released["transformer"]:
        transformer = open_pretrained_transformer(params, device)
    else:
        transformer = load_model(folders[1], "transformer", device)
    _warn_if_stale(root)
    names = tuple(map(str, range(transformer.config.num_classes)))
    if (root / IMAGES / MANIFEST).exists():
        known = tuple(read_manifest(root / IMAGES)["class_names"])
        names = known if len(known) == len(names) else names
    defaults, seed = Defaults.of(params), replicate.seed
    return Opened(
        tokenizer, transformer, names, defaults, params.preset, seed, root.absolute(), folders
    )


def open_released(
    tokenizer: Path | str,
    transformer: Path | str,
    preset: str,
    device: torch.device,
    classes: Sequence[str] | None = None,
) -> Opened:
    """Open the authors' checkpoints, or other accepted ones, with a preset's architecture.

    Raises:
        UserError: there is no such preset, or a file does not hold this architecture.
    """
    files = {"tokenizer": tokenizer, "transformer": transformer}
    params = _with_pretrained(preset_params(preset), files)
    model = open_pretrained_transformer(params, device)
    known = tuple(classes or map(str, range(model.config.num_classes)))
    if isinstance(classes, str) or len(known) != model.config.num_classes:
        reason = f"{len(known)} names, and the model has {model.config.num_classes} classes"
        raise ArgumentError("classes", reason, "give a list with a name for each")
    networks = open_pretrained_tokenizer(params, device), model
    return Opened(*networks, known, Defaults.of(params), preset)


def open_saved(folder: Path, device: torch.device) -> Opened:
    """Open a model that `save_pretrained` wrote.

    Raises:
        UserError: a file is missing, damaged, or does not fit the others.
    """
    known = read_description(folder / CONFIG)
    folders = folder / "tokenizer", folder / "transformer"
    tokenizer = load_model(folders[0], "tokenizer", device, AGAIN)
    transformer = load_model(folders[1], "transformer", device, AGAIN)
    codes, config = tokenizer.config.codebook_size, transformer.config
    if codes != config.codebook_size or len(known.classes) != config.num_classes:
        reason = f"a tokenizer of {codes} codes and {len(known.classes)} names of classes"
        wanted = f"a transformer of {config.codebook_size} codes and {config.num_classes} classes"
        raise UserError(str(folder), f"{reason}, but {wanted}", AGAIN)
    classes = tuple(known.classes)
    return Opened(
        tokenizer, transformer, classes, known.defaults, known.preset, known.seed, folders=folders
    )


def read_description(path: Path) -> Description:
    """Raises: UserError: the file is missing, or not one that `save_pretrained` wrote."""
    try:
        known = Description.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})", AGAIN) from error
    except ValueError as error:  # pydantic's, or that of the settings of decoding
        reason = f"not of a saved model ({' '.join(str(error).split())[:200]})"
        raise UserError(str(path), reason, AGAIN) from error
    if known.format != FORMAT:
        raise UserError(str(path), f"format {known.format}, not {FORMAT}", AGAIN)
    return known


def _with_pretrained(params: Params, files: Mapping[str, Path | str]) -> Params:
    """The params with these files as `pretrained` of the tokenizer or the transformer."""
    sections = {
        name: getattr(params, name).model_copy(update={"pretrained": str(path)})
        for name, path in files.items()
    }
    return params.model_copy(update=sections)


def _warn_if_stale(root: Path) -> None:
    """Give an `EarlierRun` warning if the networks' stages are out of date."""
    stale = out_of_date(root).items()
    if ours := {k: v for k, v in stale if k in TRAINING and v != NO_RESULTS}:
        warnings.warn(
            f"the model is of an earlier run: {described(ours)}; `dvc repro` trains it again",
            EarlierRun,
            stacklevel=5,
        )
