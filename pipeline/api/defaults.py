"""What a model is used with unless a call says otherwise: the values of the run that made it."""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypedDict

from pydantic import Field, PositiveInt

from pipeline.api.numbers import real, truth, whole
from pipeline.config.params import Params
from pipeline.decoding import DecodingSettings
from pipeline.runtime import limits
from pipeline.runtime.errors import ArgumentError


class Decoding(TypedDict, total=False):
    """How a call decodes; what is left out is the model's own."""

    iterations: int  # T, from 1 to the number of tokens of an image
    schedule: str  # name of the mask schedule γ
    temperature: float  # choice temperature
    guidance: float  # s of classifier-free guidance; 0 is none
    rounding: str  # of the number of tokens to mask: "floor" as released, "ceil" as in the paper
    bf16: bool  # bfloat16 autocast of the network, where the device is quick in it


FIELDS = {"temperature": "choice_temperature", "guidance": "guidance_scale"}


def _scale(name: str, given: Any) -> float:
    """A number up to the largest that there may be. Raises: ArgumentError: it is none."""
    scale = real(name, given)
    if scale > limits.LARGEST:
        raise ArgumentError(
            f"{name}: {scale} is more than the limit of {limits.LARGEST:g} (docs/limits.md); use "
            f"less"
        )
    return scale


KINDS: dict[str, Callable[[str, Any], Any]] = {
    "iterations": whole,
    "schedule": lambda _, name: str(name),
    "temperature": _scale,
    "guidance": _scale,
    "rounding": lambda _, name: str(name),
    "bf16": truth,
}


@dataclass(frozen=True)
class Defaults:
    decoding: DecodingSettings
    editing_iterations: PositiveInt  # T of edits
    dilate: Annotated[int, Field(ge=0, le=limits.GRID)]  # tokens by which an edit's mask is grown
    feather: Annotated[int, Field(ge=0, le=limits.SIDE)] | None  # width of the blend, in pixels
    batch_size: PositiveInt  # images decoded at once
    guided: bool  # trained without the class now and then, as guidance needs it

    def __post_init__(self) -> None:
        if (scale := self.decoding.guidance_scale) and not self.guided:
            raise ArgumentError(f"decoding.guidance_scale: {scale} of a model that is not guided")

    @classmethod
    def of(cls, params: Params) -> "Defaults":
        return cls(
            decoding=params.decoding_settings(),
            editing_iterations=params.editing.iterations,
            dilate=params.editing.dilate,
            feather=params.editing.feather,
            batch_size=params.decoding.batch_size,
            guided=params.training.label_drop > 0 or params.transformer.pretrained is not None,
        )

    def too_wide(self, num_tokens: int, downsampling: int) -> str | None:
        """What they ask for and no image of so many tokens has, if anything."""
        most = max(self.decoding.iterations, self.editing_iterations)
        side = math.isqrt(num_tokens)
        if most > num_tokens:
            return f"{most} iterations of {num_tokens} tokens"
        if self.dilate > side:
            return f"dilate: {self.dilate}, of a grid of {side} tokens a side"
        if (feather := self.feather or 0) > side * downsampling:
            return f"feather: {feather}, of images of {side * downsampling} pixels a side"
        return None

    def settings(self, num_tokens: int, given: Decoding, *, edit: bool = False) -> DecodingSettings:
        """The settings with what a call gave in their place.

        Raises:
            ArgumentError: a name or a value is not allowed.
        """
        if unknown := given.keys() - Decoding.__annotations__.keys():
            raise ArgumentError(_unknown(min(unknown)))
        own: dict[str, Any] = {"iterations": self.editing_iterations} if edit else {}
        for name, value in given.items():
            if value is not None:
                own[FIELDS.get(name, name)] = KINDS[name](name, value)
        try:
            settings = replace(self.decoding, **own)
        except ArgumentError as error:
            raise ArgumentError(
                str(error)
                .replace("choice_temperature:", "temperature:")
                .replace("guidance_scale:", "guidance:")
            ) from None
        if settings.iterations > num_tokens:
            raise ArgumentError(
                f"iterations: {settings.iterations} are more than an image has tokens; use 1 to "
                f"{num_tokens}"
            )
        if settings.guidance_scale and not self.guided:
            raise ArgumentError(
                f"guidance: {settings.guidance_scale} needs a model trained with "
                f"training.label_drop, which this one was not; use 0"
            )
        return settings


def _unknown(name: str) -> str:
    known = list(Decoding.__annotations__)
    close = difflib.get_close_matches(name, known, n=1)
    return f"no setting '{name}'; " + (
        f"did you mean {close[0]}?" if close else f"use {', '.join(known)}"
    )
