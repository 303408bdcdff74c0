"""Published models: a folder with `model.safetensors` and the `config.json` that builds it."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import atomic_folder, read_json, write_json
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig

Device = torch.device | str
MODELS: dict[str, tuple[type[nn.Module], type]] = {
    "classifier": (Classifier, ClassifierConfig),
    "tokenizer": (Tokenizer, TokenizerConfig),
    "transformer": (MaskGitTransformer, TransformerConfig),
    "autoregressive": (AutoregressiveTransformer, TransformerConfig),
}


def save_model(folder: Path | str, kind: str, config: Any, weights: dict[str, Tensor]) -> None:
    """Publish a model, whole or not at all.

    Args:
        kind: a key of `MODELS`.
        config: the dataclass the model is built from.
        weights: its state dict.
    """
    from safetensors.torch import save

    with atomic_folder(folder) as temporary:
        content = save({k: v.contiguous() for k, v in weights.items()})
        (temporary / "model.safetensors").write_bytes(content)
        write_json(temporary / "config.json", {"kind": kind} | dataclasses.asdict(config))


@overload
def load_model(
    folder: Path | str, kind: Literal["classifier"], device: Device = ...
) -> Classifier: ...
@overload
def load_model(
    folder: Path | str, kind: Literal["tokenizer"], device: Device = ...
) -> Tokenizer: ...
@overload
def load_model(
    folder: Path | str, kind: Literal["transformer"], device: Device = ...
) -> MaskGitTransformer: ...
@overload
def load_model(
    folder: Path | str, kind: Literal["autoregressive"], device: Device = ...
) -> AutoregressiveTransformer: ...


def load_model(folder: Path | str, kind: str, device: Device = "cpu") -> nn.Module:
    """Load a published model in evaluation mode, its weights frozen.

    Raises:
        UserError: the folder is missing, holds another kind of model, or weights that do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    config = read_json(folder / "config.json")
    found = config.pop("kind", None)
    if found != kind:
        raise UserError(f"{folder} holds a {found} and not a {kind}; run `dvc repro` again")
    model_class, config_class = MODELS[kind]
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    model = model_class(config_class(**values))
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (SafetensorError, FileNotFoundError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{folder}/model.safetensors does not load: {reason}") from error
    return model.to(device).eval().requires_grad_(False)
