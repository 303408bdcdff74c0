"""The folder of a saved model, on a disk or on the Hub: safetensors and JSON, and nothing that is
executed.

    config.json              classes, the values it decodes with, what was measured
    README.md                the model card
    tokenizer/, transformer/ each with model.safetensors and its config.json
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from pipeline.api.defaults import Defaults
from pipeline.config.schema import Seed, Text
from pipeline.decoding import DecodingSettings
from pipeline.runtime import limits
from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.files import read_file, value_hash
from pipeline.tokenizer import TokenizerConfig
from pipeline.transformer import TransformerConfig

CONFIG = "config.json"
CARD = "README.md"
TOKENIZER_FOLDER, TRANSFORMER_FOLDER = "tokenizer", "transformer"
WEIGHTS = "model.safetensors"
PARTS = ("config.json", WEIGHTS)
AGAIN = "save or download it again"  # the way out where a file of it is damaged
FILES = [CONFIG, CARD, *(f"{d}/{f}" for d in (TOKENIZER_FOLDER, TRANSFORMER_FOLDER) for f in PARTS)]


class Description(BaseModel):
    """config.json of a saved model."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        revalidate_instances="always",  # what is written is what is opened
    )

    format: Literal["maskgit-pipeline 1"]
    classes: Annotated[list[Text], Field(min_length=1, max_length=limits.WIDTH)]
    defaults: Defaults
    preset: Text
    seed: Seed | None
    measured: dict[Text, float]
    # SHA-256 of each part's weights; of models that were saved before there is none.
    weights: dict[Literal["tokenizer", "transformer"], Text] = {}
    measured_with: Text = ""  # `identity` then; of models that were saved before ""


def read_description(path: Path) -> Description:
    """Raises: UserError: the file is missing, or not one that `save_pretrained` wrote."""
    try:
        content = read_file(path, limits.CONFIG_BYTES)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; give a folder that save_pretrained wrote") from error
    try:
        return Description.model_validate_json(content)
    except ValidationError as error:
        raise UserError(
            f"{path} is no {CONFIG} of a saved model ({mistake(error)}); {AGAIN}"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is no {CONFIG} of a saved model ({error}); {AGAIN}") from error


def is_saved(folder: Path) -> bool:
    """Whether the config.json of a folder says that it is a saved model, damaged or not."""
    try:
        values = json.loads(read_file(folder / CONFIG, limits.CONFIG_BYTES))
    except (OSError, ValueError, RecursionError, UserError):
        return False
    return isinstance(values, dict) and str(values.get("format")).startswith("maskgit-pipeline ")


def identity(
    tokenizer: TokenizerConfig,
    transformer: TransformerConfig,
    classes: Iterable[str],
    decoding: DecodingSettings,
) -> str:
    """Hash of what a model's samples depend on besides its weights."""
    values = [asdict(each) for each in (tokenizer, transformer, decoding)]
    return value_hash([*values, list(classes)])[:32]


def weights_hash(*networks: nn.Module) -> str:
    """Of all their weights, names and types."""
    digest = hashlib.blake2b(digest_size=16)
    for network in networks:
        for name, value in network.state_dict().items():
            digest.update(f"{name} {value.dtype} ".encode())
            digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def mistake(error: ValidationError) -> str:
    """The first one of a description: where it is, and what."""
    first = error.errors(include_url=False, include_context=False)[0]
    return f"{one_line('.'.join(map(str, first['loc'])))}: {first['msg']}"
