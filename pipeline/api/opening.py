"""Loads a model and its metrics from a project or from a folder that `save_pretrained` wrote."""

import csv
import math
import warnings
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file
from torch import nn

from pipeline.api.defaults import Defaults
from pipeline.config.params import Params, load_params
from pipeline.config.paths import IMAGES, RESULTS, TOKENIZER, TRANSFORMER
from pipeline.config.replicates import main_replicate
from pipeline.runtime.dag import HERE, PARAMS_FILE
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.runtime.files import as_written, read_json
from pipeline.runtime.provenance import NO_RESULTS, described, has_inputs, out_of_date
from pipeline.tokenizer import Tokenizer
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import WEIGHTS, load_model
from pipeline.weights.released.checkpoint import (
    open_pretrained_tokenizer,
    open_pretrained_transformer,
)

CONFIG = "config.json"  # describes a saved model
AGAIN = "save or download the model again"
TRAINING = ("train_tokenizer", "cache_tokens", "train_transformer")  # stages that make the networks
SHIPPED = Path(__file__).with_name("pretrained")  # the default run's first model, in float16
# Prefixes of the metrics that model cards show (docs/metrics.md).
SHOWN = ("class_accuracy", "fid", "is", "precision", "recall", "nll")
NEAR = 0.1  # near chance: the lowest tenth of the range from chance to real images' accuracy
Z = 1.959964  # half the width of a 95% interval, in standard deviations


class ModelWarning(UserWarning):
    """Warns that a model is out of date or barely trained, or ships with this package."""


class Description(BaseModel):
    """The description of a model, which `save_pretrained` stores as config.json."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["maskgit-pipeline 1"] = "maskgit-pipeline 1"
    classes: list[str]  # class names, by label
    defaults: Defaults
    preset: str
    seed: int | None = None  # seed of the replicate; None if no run made the model
    steps: int | None = None  # training steps of the transformer; None for released weights
    measured: dict[str, float] = {}  # metrics of the model's samples
    barely_trained: bool = False  # derived from the metrics (docs/metrics.md)


class Opened(NamedTuple):
    tokenizer: Tokenizer
    transformer: MaskGitTransformer
    about: Description
    project: Path | None = None  # root folder of the project; None for other sources
    folders: tuple[Path, ...] = ()  # folders from which the two networks were loaded

    def described(self) -> Description:
        """The model's description. If the weights come from released files or were changed after
        opening, the description has no metrics."""
        networks = self.tokenizer, self.transformer
        if self.folders and all(map(_same_weights, networks, self.folders)):
            return self.about
        return self.about.model_copy(update={"measured": {}, "barely_trained": False})


def _same_weights(network: nn.Module, folder: Path) -> bool:
    if not (folder / WEIGHTS).exists():
        return False
    own, there = network.state_dict(), load_file(folder / WEIGHTS)
    return own.keys() == there.keys() and all(
        torch.equal(v.cpu(), there[k].to(v.dtype)) for k, v in own.items()
    )


def open_model(folder: Path | None, seed: int | None, device: torch.device) -> Opened:
    """Open the model of a project (the root or `models/`), or a folder that `save_pretrained`
    wrote. None opens the current folder or, before training, the model that ships with this
    package. Warns (`ModelWarning`) if a model is from this package, out of date or barely trained.

    Raises:
        UserError: the model is missing or damaged, or was not trained with `seed`.
    """
    shipped = folder is None and not _trained_here()
    opened = _open(folder or (SHIPPED if shipped else HERE), seed, device)
    about, notes = opened.about, []
    if shipped:
        run = f"{about.preset} default run, {about.steps} steps"
        notes.append(f"no trained model here: using the weights that ship with the package ({run})")
    stale = out_of_date(opened.project) if opened.project else {}
    if ours := {k: v for k, v in stale.items() if k in TRAINING and v != NO_RESULTS}:
        why = described(ours)
        notes.append(f"the model is from an earlier run ({why}); run `dvc repro`")
    if about.barely_trained:
        found = "the classifier recognises its samples hardly more often than by chance"
        notes.append(f"the model is barely trained: {found}; raise training.steps")
    for note in notes:
        warnings.warn(note, ModelWarning, stacklevel=3)
    return opened


def _trained_here() -> bool:
    if any(path.exists() for path in (Path(CONFIG), TOKENIZER, TRANSFORMER)):
        return True
    params = load_params() if PARAMS_FILE.exists() else None
    return bool(params and (params.tokenizer.pretrained or params.transformer.pretrained))


def _open(folder: Path, seed: int | None, device: torch.device) -> Opened:
    if (folder / CONFIG).exists():
        return open_saved(folder, seed, device)
    for root in (folder, folder.absolute().parent):
        if (root / PARAMS_FILE).exists() and (root == folder or folder.name == TOKENIZER.parts[0]):
            return open_project(root, seed, device)
    raise UserError(
        str(folder),
        f"the folder holds neither a project's {PARAMS_FILE} nor a saved model's {CONFIG}",
        "give a project's folder, its models/, or a folder that save_pretrained wrote",
    )


def open_project(root: Path, seed: int | None, device: torch.device) -> Opened:
    """Open a project's model. A network has the released weights if params.yaml names their file,
    otherwise the weights that the project trained. `seed` selects the transformer's training run;
    None selects the first seed."""
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


def open_saved(folder: Path, seed: int | None, device: torch.device) -> Opened:
    """Open the model in a folder that `save_pretrained` wrote."""
    path = folder / CONFIG
    try:
        about = Description.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:  # ValueError: of pydantic or `DecodingSettings`
        reason = f"does not describe a saved model ({' '.join(str(error).split())[:200]})"
        raise UserError(str(path), reason, AGAIN) from error
    if seed not in (None, about.seed):
        raise ArgumentError("seed", f"{folder} holds only the model of seed {about.seed}")
    folders = folder / "tokenizer", folder / "transformer"
    tokenizer = load_model(folders[0], "tokenizer", device, AGAIN)
    transformer = load_model(folders[1], "transformer", device, AGAIN)
    return Opened(tokenizer, transformer, about, folders=folders)


def read_results(root: Path, params: Params, seed: int) -> tuple[dict[str, float], bool]:
    """Returns a dict of the metrics of the MaskGIT trained with `seed`, and whether the model is
    barely trained. Returns ({}, False) if no results exist, or only results of earlier models."""
    path = root / RESULTS / "evaluation/rows.csv"
    if not path.exists() or not has_inputs("evaluate", (TOKENIZER, TRANSFORMER), root):
        return {}, False
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("images") == "transformer"]
    smoothing = as_written(params.training.label_smoothing)
    mine = (r for r in rows if int(r["seed"]) == seed and float(r["label_smoothing"]) == smoothing)
    values = {name: float(value) for name, value in next(mine, {}).items() if value}
    shown = {
        name: value
        for name, value in values.items()
        if name.startswith(SHOWN) and not name.endswith(("_std", "_splits")) and value == value
    }
    data = read_json(root / RESULTS / "prepare/metrics.json", "classes", "largest_class")
    real = read_json(root / RESULTS / "evaluation/metrics.json").get("real", {})
    accuracy, others = values.get("class_accuracy"), real.get("class_accuracy")
    if accuracy is None or others is None or data["classes"] < 2:  # not measured
        return shown, False
    uniform = params.evaluation.labels == "uniform"
    chance = 1 / data["classes"] if uniform else data["largest_class"]
    return shown, is_barely_trained(accuracy, others, int(values["samples"]), chance)


def is_barely_trained(accuracy: float, real: float, samples: int, chance: float) -> bool:
    """Returns True if the classifier recognises a model's samples hardly better than by chance: the
    lower bound of the 95% Wilson interval of `accuracy`, its accuracy on the samples, is below
    chance + `NEAR` × max(`real` − chance, 0). `real` is its accuracy on real images. The report
    applies the same rule to all seeds together (`_near_chance` in analysis/exhibits/claims.py)."""
    variance = accuracy * (1 - accuracy) / samples + (Z / (2 * samples)) ** 2
    low = (accuracy + Z**2 / (2 * samples) - Z * math.sqrt(variance)) / (1 + Z**2 / samples)
    return low < chance + NEAR * max(real - chance, 0.0)
