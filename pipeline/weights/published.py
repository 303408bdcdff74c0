"""Published models: a folder with `model.safetensors` and the `config.json` that builds it."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import atomic_folder, read_json, write_json
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.bounds import require_bounds

Device = torch.device | str
WEIGHTS = "model.safetensors"
WAY_OUT = "run `dvc repro` to make it again (if that runs nothing, delete it first)"
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

    Raises:
        UserError: a weight is NaN or infinite; what was published before stays.
    """
    if (name := not_finite(weights)) is not None:
        raise UserError(
            f"{folder}: {name} of the {kind} holds values that are NaN or infinite, so it is not "
            f"published; lower its learning rate (or turn bf16 off) and train it again"
        )

    with atomic_folder(folder) as temporary:
        content = save({k: v.contiguous() for k, v in weights.items()})
        (temporary / WEIGHTS).write_bytes(content)
        write_json(temporary / "config.json", {"kind": kind} | dataclasses.asdict(config))


def require_float32() -> None:
    """Raises: UserError: torch's default dtype, which networks are built in, is another."""
    if (default := torch.get_default_dtype()) != torch.float32:
        raise UserError(
            f"models are built in torch's default dtype, which is {default}; set it to float32"
        )


@overload
def load_model(
    folder: Path | str, kind: Literal["classifier"], device: Device = ..., way_out: str = ...
) -> Classifier: ...
@overload
def load_model(
    folder: Path | str, kind: Literal["tokenizer"], device: Device = ..., way_out: str = ...
) -> Tokenizer: ...
@overload
def load_model(
    folder: Path | str, kind: Literal["transformer"], device: Device = ..., way_out: str = ...
) -> MaskGitTransformer: ...
@overload
def load_model(
    folder: Path | str, kind: Literal["autoregressive"], device: Device = ..., way_out: str = ...
) -> AutoregressiveTransformer: ...


def load_model(
    folder: Path | str, kind: str, device: Device = "cpu", way_out: str = WAY_OUT
) -> nn.Module:
    """Load a published model in evaluation mode, its weights frozen.

    Args:
        way_out: ends the message where it does not load.

    Raises:
        UserError: the folder is missing, holds another kind of model, or weights that are damaged,
            do not fit, or are not finite; or torch's default dtype is not float32.
    """
    require_float32()
    folder = Path(folder)
    try:
        config = read_json(folder / "config.json", "kind")
    except UserError as error:  # whose way out is that of a result
        raise UserError(f"{str(error).rpartition(';')[0]}; {way_out}") from error
    found = config.pop("kind")
    if found != kind:
        raise UserError(f"{folder} holds a {found} and not a {kind}; {way_out}")
    model_class, config_class = MODELS[kind]
    try:
        weights = load_file(folder / WEIGHTS)
        require_bounds(kind, config, len(weights))
        typed = _typed(config, config_class)
        with torch.device("meta"), _NothingDrawn():  # first: a config may ask for all memory
            _require_fit(weights, model_class(typed).state_dict())
        model = model_class(typed)
        model.load_state_dict(weights)
    except Exception as error:  # a damaged config or file makes its reader raise nearly anything
        require_readable(folder, error)
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder} does not load as a {kind}: {reason}; {way_out}") from error
    if (bad := not_finite(weights)) is not None:
        raise UserError(f"{folder}: {bad} holds values that are NaN or infinite; {way_out}")
    return model.to(device).eval().requires_grad_(False)


class _NothingDrawn(TorchFunctionMode):
    """No `normal_`, whose first call on the meta device imports for a second."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        return None if function is nn.init.normal_ else function(*args, **(kwargs or {}))


def _require_fit(weights: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Raise a `ValueError` unless the weights are a model's own by name, shape, and type, which
    torch would convert in silence."""
    if odd := weights.keys() ^ own.keys():
        raise ValueError(f"{min(odd)} is {'missing' if min(odd) in own else 'unknown'}")
    for name, tensor in own.items():
        if weights[name].shape != tensor.shape:
            found, wanted = tuple(weights[name].shape), tuple(tensor.shape)
            raise ValueError(f"{name} is of shape {found} and not {wanted}")
        if weights[name].dtype != tensor.dtype:
            raise ValueError(f"{name} is {weights[name].dtype} and not {tensor.dtype}")


def _typed(values: dict[str, Any], config_class: type) -> Any:
    """The config of these values as read from JSON.

    Raises:
        ValueError: one is missing, unknown, or of another type.
    """
    from pydantic import TypeAdapter

    known = {field.name for field in dataclasses.fields(config_class)}
    if unknown := values.keys() - known:
        raise ValueError(f"config.json: {min(unknown)} is unknown")
    return TypeAdapter(config_class).validate_json(json.dumps(values), strict=True)


def not_finite(weights: dict[str, Tensor]) -> str | None:
    """The first weight with a value that is NaN or infinite."""
    floats = {k: v for k, v in weights.items() if v.is_floating_point()}
    return next((name for name, w in floats.items() if not w.isfinite().all()), None)
