"""The default settings of a model's methods, from the params of the run that trained the model."""

from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, TypedDict

from pydantic import NonNegativeInt, PositiveInt

from pipeline.api.labels import whole
from pipeline.config.params import Params
from pipeline.decoding.settings import DecodingSettings
from pipeline.runtime.errors import ArgumentError


class Decoding(TypedDict, total=False):
    """Decoding options of a method call. A missing option takes the model's default."""

    iterations: int  # T, from 1 to the number of tokens of an image
    schedule: str  # name of the mask schedule γ
    temperature: float  # choice temperature
    guidance: float  # scale s of classifier-free guidance; 0 turns guidance off
    rounding: str  # rounds the number of masked tokens: "floor" (release) or "ceil" (paper)
    bf16: bool  # bfloat16 autocast of the network, on devices with fast bfloat16
    sampler: str  # rule that chooses the tokens to mask again, a key of `SAMPLERS`
    remasking: float  # strength η of the samplers remask_capped and remask_rescaled, 0 to 1
    guidance_schedule: str  # guidance over the iterations: constant, linear or power_cosine
    softmax_temperature: float  # divides the logits of the categorical draw
    softmax_temperature_end: float  # softmax temperature at the last iteration, reached linearly
    top_k: int  # draw from the k most probable codes; 0: from all codes
    top_p: float  # draw from the most probable codes whose probabilities add up to p


@dataclass(frozen=True)
class Defaults:
    decoding: DecodingSettings
    editing_iterations: PositiveInt  # T, the number of decoding iterations, in edits
    dilate: NonNegativeInt  # number of tokens by which an edit's mask grows
    feather: NonNegativeInt  # width of the blend around an edit's mask, in pixels
    batch_size: PositiveInt  # images decoded at once
    guided: bool  # trained with label dropout, which guidance requires

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

    def settings(self, num_tokens: int, given: Decoding, *, edit: bool = False) -> DecodingSettings:
        """Returns the settings of a method call: the options `given`, and the model's defaults for
        all others. If `edit` is true, `iterations` defaults to `editing_iterations`. Raises an
        `ArgumentError` if the name or the value of an option is not allowed."""
        if unknown := given.keys() - (known := Decoding.__annotations__).keys():
            raise ArgumentError(min(unknown), "not a decoding option", f"use {' or '.join(known)}")
        own: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        if edit:
            own.setdefault("iterations", self.editing_iterations)
        if "iterations" in own:
            own["iterations"] = whole("iterations", own["iterations"])
        scales = {"temperature": "choice_temperature", "guidance": "guidance_scale"}
        for name in scales.keys() & own.keys():
            value = own.pop(name)
            own[scales[name]] = float(value) if isinstance(value, Real) else value
        settings = replace(self.decoding, **own)
        if settings.iterations > num_tokens:
            reason = f"{settings.iterations} exceeds the number of tokens of an image"
            raise ArgumentError("iterations", reason, f"use 1 to {num_tokens}")
        if settings.guidance_scale and not self.guided:
            reason = f"{settings.guidance_scale} needs a model trained with training.label_drop"
            raise ArgumentError("guidance", reason, "use 0")
        return settings
