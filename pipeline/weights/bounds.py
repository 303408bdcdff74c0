"""What the config.json of a published network may say: the bounds of the params that it follows
from (pipeline/config/schema.py), so that no network is built that no params can ask for."""

import math
from typing import Annotated, Any

from pydantic import Field, ValidationError, create_model, model_validator

from pipeline.config import schema
from pipeline.config.schema import Width
from pipeline.runtime.limits import GRID


def _like(section: type[schema.Section], *names: str) -> dict[str, Any]:
    """Fields with the bounds of those of a section of params.yaml."""
    fields = section.model_fields
    return {name: (fields[name].annotation, fields[name]) for name in names}


class _Transformer(schema.Transformer):  # with its check of the heads
    pretrained: None = None
    num_tokens: Annotated[int, Field(ge=1, le=GRID**2)]
    num_classes: Width

    @model_validator(mode="after")
    def _tokens_fill_a_square(self):
        if math.isqrt(self.num_tokens) ** 2 != self.num_tokens:
            raise ValueError(f"num_tokens: {self.num_tokens} tokens fill no square")
        return self


CHANNELS = _like(schema.Data, "channels")
CODES = _like(schema.Tokenizer, "codebook_size")
SIZES = ("filters", "multipliers", "res_blocks", "embedding_dim")
CLASSIFIER = _like(schema.Classifier, "architecture", "width") | {"num_classes": (Width, ...)}
TRANSFORMER = create_model("_TransformerOfCodes", __base__=_Transformer, **CODES)
BOUNDS: dict[str, type[schema.Section]] = {
    "classifier": create_model("_Classifier", __base__=schema.Section, **CHANNELS, **CLASSIFIER),
    "tokenizer": create_model(
        "_Tokenizer",
        __base__=schema.Section,
        **CHANNELS,
        **CODES,
        **_like(schema.Tokenizer, *SIZES),
    ),
    "transformer": TRANSFORMER,
    "autoregressive": TRANSFORMER,
}


def require_bounds(kind: str, values: dict[str, Any], tensors: int) -> None:
    """Look at a config before its network is built.

    Args:
        kind: a key of `BOUNDS`.
        values: as read from JSON.
        tensors: in the file of the weights. Each block has several: within the bounds too, more
            blocks than that would be built for seconds, to fit nothing.

    Raises:
        ValueError: a value is missing, unknown, of another type or not within its param's bounds.
    """
    if missing := BOUNDS[kind].model_fields.keys() - values.keys() - {"pretrained"}:
        raise ValueError(f"config.json: {min(missing)}: missing")
    try:
        BOUNDS[kind].model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = first["msg"].removeprefix("Value error, ")
        raise ValueError(": ".join(filter(None, ["config.json", where, what]))) from error
    blocks = values.get("layers", 0) + values.get("res_blocks", 0) * len(
        values.get("multipliers", ())
    )
    if blocks > tensors:
        raise ValueError(f"config.json: {blocks} blocks, where the weights are {tensors} tensors")
