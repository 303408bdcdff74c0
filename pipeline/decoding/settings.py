"""Decoding settings. This module does not import torch, because importing torch takes a second."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, Literal, get_args

from pipeline.decoding.samplers import SAMPLERS
from pipeline.decoding.samplers.guidance import GUIDANCE
from pipeline.runtime.errors import ArgumentError
from pipeline.runtime.limits import LARGEST, SMALLEST
from pipeline.schedules import SCHEDULES

Rounding = Literal["floor", "ceil"]
RANGES: dict[str, tuple[float, float]] = {
    "choice_temperature": (0, LARGEST),
    "guidance_scale": (0, LARGEST),
    "remasking": (0, 1),
    "softmax_temperature": (SMALLEST, LARGEST),
    "softmax_temperature_end": (SMALLEST, LARGEST),
    "top_p": (SMALLEST, 1),
}


@dataclass(frozen=True)
class DecodingSettings:
    """Settings of MaskGIT's iterative decoding. Raises an `ArgumentError` if a value is not
    allowed."""

    iterations: int  # T
    schedule: str  # name of the mask schedule γ
    choice_temperature: float  # scale of the Gumbel noise on the confidence, annealed linearly to 0
    guidance_scale: float = 0.0  # s of classifier-free guidance; 0 (as in the paper) turns it off
    bf16: bool | Literal["force"] = False  # bfloat16 where that is faster; "force": always
    rounding: Rounding = "floor"  # how to round the number of tokens to mask; "ceil" in the paper
    # Settings beyond the paper; their default values give the paper's decoding:
    sampler: str = "confidence"  # name of the rule that chooses the tokens to mask again
    remasking: float = 0.05  # η, how often the samplers `remask_…` mask generated tokens again
    guidance_schedule: str = "constant"  # name in `GUIDANCE`: the scale's course over iterations
    softmax_temperature: float = 1.0  # divides the logits before tokens are drawn
    softmax_temperature_end: float | None = None  # value at the end, reached linearly; None: same
    top_k: int = 0  # draw from the k most probable codes; 0: all codes
    top_p: float = 1.0  # draw from the fewest codes with a total probability of at least p

    def __post_init__(self):
        for name, least in (("iterations", 1), ("top_k", 0)):
            if type(given := getattr(self, name)) is not int or given < least:
                raise ArgumentError(name, f"{given} is invalid", f"use an integer ≥ {least}")
        if self.bf16 not in (True, False, "force"):
            raise ArgumentError("bf16", f"{self.bf16} is unknown", "use true, false or 'force'")
        names: dict[str, Iterable[str]] = {"schedule": SCHEDULES, "rounding": get_args(Rounding)}
        names |= {"sampler": SAMPLERS, "guidance_schedule": GUIDANCE}
        for name, allowed in names.items():
            if not isinstance(given := getattr(self, name), str) or given not in allowed:
                way_out = f"use one of {', '.join(allowed)}"
                raise ArgumentError(name, f"'{given}' is unknown", way_out)
        for name, (low, high) in RANGES.items():
            if (given := getattr(self, name)) is None and name == "softmax_temperature_end":
                continue
            if not isinstance(given, int | float) or not low <= given <= high:  # also NaN
                way_out = f"use a number {'>' if low else '≥'} 0"
                way_out += f" and ≤ {high:g}" if high < LARGEST else ""
                raise ArgumentError(name, f"{given} is not allowed", way_out)

    def temperature(self, progress: float) -> float:
        """The softmax temperature in iteration t (0-based) of T; `progress` is (t + 1) / T."""
        first, last = self.softmax_temperature, self.softmax_temperature_end
        return first if last is None else first + progress * (last - first)

    @property
    def passes(self) -> int:
        """Number of forward passes per image; an iteration with guidance needs two passes."""
        share = GUIDANCE[self.guidance_schedule]
        guided = [self.guidance_scale * share(t / self.iterations) for t in range(self.iterations)]
        return self.iterations + sum(scale > 0 for scale in guided)


def expanded(settings: DecodingSettings, grids: Iterable[dict[str, Any]]) -> list[DecodingSettings]:
    """Return the decoding settings for each combination of values in each grid, without duplicates.
    Raises an `ArgumentError` if a name or a value is not allowed.

    Args:
        settings: supplies the values of settings that a grid omits.
        grids: each grid maps a setting's name to a value or a list of values.
    """
    names, found = [field.name for field in fields(settings)], dict[DecodingSettings, None]()
    for grid in grids:
        if unknown := grid.keys() - set(names):
            raise ArgumentError(min(unknown), "not a decoding setting", f"use {', '.join(names)}")
        axes = [each if isinstance(each, list) else [each] for each in grid.values()]
        for values in product(*axes):
            found[replace(settings, **dict(zip(grid, values, strict=True)))] = None
    return list(found)
