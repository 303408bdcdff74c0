"""Opens models of a project, a saved folder or released files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict

from pipeline.api.defaults import Defaults
from pipeline.api.results import read_results
from pipeline.config.params import load_params
from pipeline.config.paths import IMAGES, TOKENIZER, TRANSFORMER
from pipeline.config.presets import preset_params
from pipeline.config.replicates import main_replicate
from pipeline.runtime.dag import HERE, PARAMS_FILE
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.runtime.files import read_json
from pipeline.runtime.provenance import NO_RESULTS, described, out_of_date
from pipeline.tokenizer import Tokenizer
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import load_model
from pipeline.weights.released.checkpoint import (
    open_pretrained_tokenizer,
    open_pretrained_transformer,
)

CONFIG = "config.json"  # of a saved model
AGAIN = "save or download it again"
TRAINING = ("train_tokenizer", "cache_tokens", "train_transformer")  # stages behind the networks
SHIPPED = Path(__file__).with_name("pretrained")  # the default run's first model, in float16


class ModelWarning(UserWarning):
    """Something to know of a model before its samples are judged."""


class Description(BaseModel):
    """What is known about a model: config.json of a saved one."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["maskgit-pipeline 1"] = "maskgit-pipeline 1"
    classes: list[str]  # their names, by label
    defaults: Defaults
    preset: str
    seed: int | None = None  # the replicate's; None where there is but one
    steps: int | None = None  # of the transformer's training; None of released weights
    measured: dict[str, float] = {}  # metrics of the model's samples
    barely_trained: bool = False  # by these metrics (docs/metrics.md)


class Opened(NamedTuple):
    tokenizer: Tokenizer
    transformer: MaskGitTransformer
    about: Description
    project: Path | None = None  # the root folder, where there is one
    folders: tuple[Path, ...] = ()  # that the two networks were loaded from
    notes: tuple[str, ...] = ()  # what the user should know of the model


def open_here(seed: int | None, device: torch.device) -> Opened:
    """Open the model of the current folder or, if nothing was trained there, the one that ships
    with this package. Raises the errors of `open_folder`."""
    trained = any(path.exists() for path in (Path(CONFIG), TOKENIZER, TRANSFORMER))
    if not trained and PARAMS_FILE.exists():
        params = load_params()
        trained = bool(params.tokenizer.pretrained or params.transformer.pretrained)
    if trained:
        return open_folder(HERE, seed, device)
    opened = open_folder(SHIPPED, seed, device)
    run = f"{opened.about.preset} default run, {opened.about.steps} steps"
    note = f"no trained model here: using the weights that ship with the package ({run})"
    return opened._replace(notes=(note, *opened.notes))


def open_folder(folder: Path, seed: int | None, device: torch.device) -> Opened:
    """Open a project (its root, or its `models/`), or a saved folder.

    Raises:
        UserError: it is neither.
    """
    if (folder / CONFIG).exists():
        opened = _with_notes(open_saved(folder, device))
        if seed not in (None, opened.about.seed):
            reason = f"{folder} is a saved model, of seed {opened.about.seed} alone"
            raise ArgumentError("seed", reason)
        return opened
    for root in (folder, folder.absolute().parent):
        if (root / PARAMS_FILE).exists() and (root == folder or folder.name == TOKENIZER.parts[0]):
            return _with_notes(open_project(root, seed, device))
    raise UserError(
        str(folder),
        f"no model: neither a project's {PARAMS_FILE} nor the {CONFIG} of a saved one",
        "give a project's folder, its models/, or a folder that save_pretrained wrote",
    )


def _with_notes(opened: Opened) -> Opened:
    notes = []
    stale = out_of_date(opened.project) if opened.project else {}
    if ours := {k: v for k, v in stale.items() if k in TRAINING and v != NO_RESULTS}:
        why = described(ours)
        notes.append(f"the model is of an earlier run ({why}); `dvc repro` trains it again")
    if opened.about.barely_trained:
        found = "the classifier recognises its samples hardly more often than by chance"
        notes.append(f"the model is barely trained: {found}; raise training.steps")
    return opened._replace(notes=tuple(notes))


def open_project(root: Path, seed: int | None, device: torch.device) -> Opened:
    """Open the model that a project's params.yaml describes: a trained one, or released files.

    Args:
        seed: the replicate's; None for the first.

    Raises:
        UserError: there is no such replicate, or no model yet.
    """
    params = load_params(root / PARAMS_FILE)
    replicate = main_replicate(params, "transformer", seed)
    folders = root / TOKENIZER, root / replicate.folder
    if file := params.tokenizer.pretrained:
        tokenizer = open_pretrained_tokenizer(params, device, root / file)
    else:
        tokenizer = load_model(folders[0], "tokenizer", device)
    if file := params.transformer.pretrained:
        transformer = open_pretrained_transformer(params, device, path=root / file)
    else:
        transformer = load_model(folders[1], "transformer", device)
    names = [str(label) for label in range(transformer.config.num_classes)]
    if (manifest := root / IMAGES / "manifest.json").exists():
        known = read_json(manifest, "class_names")["class_names"]
        names = known if len(known) == len(names) else names
    measured, barely_trained = read_results(root, params, replicate.seed)
    about = Description(
        classes=names,
        defaults=Defaults.of(params),
        preset=params.preset,
        seed=replicate.seed,
        steps=None if params.transformer.pretrained else params.training.steps,
        measured=measured,
        barely_trained=barely_trained,
    )
    return Opened(tokenizer, transformer, about, root.absolute(), folders)


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
    params = preset_params(preset)
    model = open_pretrained_transformer(params, device, path=transformer)
    known = list(classes or map(str, range(model.config.num_classes)))
    if isinstance(classes, str) or len(known) != model.config.num_classes:
        reason = f"{len(known)} names, and the model has {model.config.num_classes} classes"
        raise ArgumentError("classes", reason, "give a list with a name for each")
    defaults = replace(Defaults.of(params), guided=True)
    about = Description(classes=known, defaults=defaults, preset=preset)
    return Opened(open_pretrained_tokenizer(params, device, tokenizer), model, about)


def open_saved(folder: Path, device: torch.device) -> Opened:
    """Open a model that `save_pretrained` wrote.

    Raises:
        UserError: a file is missing or damaged.
    """
    path = folder / CONFIG
    try:
        about = Description.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})", AGAIN) from error
    except ValueError as error:  # pydantic's, or that of the settings of decoding
        reason = f"not of a saved model ({' '.join(str(error).split())[:200]})"
        raise UserError(str(path), reason, AGAIN) from error
    folders = folder / "tokenizer", folder / "transformer"
    tokenizer = load_model(folders[0], "tokenizer", device, AGAIN)
    transformer = load_model(folders[1], "transformer", device, AGAIN)
    return Opened(tokenizer, transformer, about, folders=folders)
