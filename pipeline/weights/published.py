"""Saves and loads published models. A published model is a folder with `model.safetensors` and a
`config.json` that describes the network."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import atomic_folder, write_json
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig

WEIGHTS = "model.safetensors"
WAY_OUT = "run `dvc repro` to make the model again (if no stage runs, delete the folder first)"
MODELS: dict[str, tuple[type[nn.Module], type]] = {
    "classifier": (Classifier, ClassifierConfig),
    "tokenizer": (Tokenizer, TokenizerConfig),
    "transformer": (MaskGitTransformer, TransformerConfig),
    "autoregressive": (AutoregressiveTransformer, TransformerConfig),
}


def save_model(folder: Path | str, kind: str, config: Any, weights: dict[str, Tensor]) -> None:
    """Write a model's config and state dict to a folder, atomically. `kind` is the key of the
    model's class in `MODELS`. Raises a `UserError` if a weight is NaN or infinite; the folder is
    then unchanged."""
    if (name := not_finite(weights)) is not None:
        raise UserError(
            str(folder),
            f"{name} of the {kind} has NaN or infinite values, so the {kind} is not saved",
            "lower the learning rate (or turn bf16 off) and train again",
        )
    with atomic_folder(folder) as temporary:
        content = save({k: v.contiguous() for k, v in weights.items()})
        (temporary / WEIGHTS).write_bytes(content)
        write_json(temporary / "config.json", {"kind": kind} | dataclasses.asdict(config))


def load_model(
    folder: Path | str, kind: str, device: torch.device | str = "cpu", way_out: str = WAY_OUT
) -> Any:
    """Load a model that `save_model` wrote, in evaluation mode with frozen weights. `kind` is the
    key of the model's class in `MODELS`.

    Raises:
        UserError: the folder is missing or holds another kind of model, or the weights are damaged,
            do not match the network, or are not finite. `way_out` is the advice in the message.
    """
    model_class, config_class = MODELS[kind]
    file = Path(folder, WEIGHTS)
    try:
        config = json.loads(file.with_name("config.json").read_bytes())
        if (found := config.pop("kind")) != kind:
            raise ValueError(f"the folder has a {found}, not a {kind}")
        model = model_class(TypeAdapter(config_class).validate_python(config))
        model.load_state_dict(weights := load_file(file))
        if name := not_finite(weights):
            raise ValueError(f"{name} has NaN or infinite values")
    except Exception as error:  # each library raises its own errors for damaged files
        require_readable(file, error)
        reason = f"cannot be loaded as a {kind} ({' '.join(str(error).split())[:200]})"
        if isinstance(error, FileNotFoundError):
            reason = "is missing or incomplete"
        raise UserError(str(folder), reason, way_out) from error
    return model.to(device).eval().requires_grad_(False)


def not_finite(weights: dict[str, Tensor]) -> str | None:
    """The name of the first weight with a NaN or infinite value; None if all values are finite."""
    floats = {k: v for k, v in weights.items() if v.is_floating_point()}
    return next((name for name, w in floats.items() if not w.isfinite().all()), None)
