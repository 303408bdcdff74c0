"""Mask schedules γ (paper, section 3.3)."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a schedule's name is checked without torch, which takes a second to import
    from torch import Tensor

# γ(r, n): r in [0, 1] is the progress of decoding, n the number of maskable tokens. Both are
# tensors, so write `r.sin()` for the sine. To add a schedule, add one line here; params.yaml then
# accepts the name everywhere.
SCHEDULES: "dict[str, Callable[[Tensor, Tensor], Tensor]]" = {
    "exponential": lambda r, n: 1 - (-n.log2() * (1 - r)).exp2(),
    "cubic": lambda r, n: 1 - r**3,
    "square": lambda r, n: 1 - r**2,
    "cosine": lambda r, n: (r * (math.pi / 2)).cos(),
    "arccos": lambda r, n: r.arccos() * (2 / math.pi),
    "linear": lambda r, n: 1 - r,
    "square_root": lambda r, n: 1 - r.sqrt(),
    "logarithmic": lambda r, n: -r.log2() / n.log2(),
}

POINTS = 1201  # points of a curve, which include every (step + 1) / T for the usual T
SIZES = (1, 2, 4, 8, 16, 64, 256, 1024)  # numbers of tokens N; the last two are the paper's


def mask_ratio(schedule: str, r: "Tensor | float", num_tokens: "Tensor | int") -> "Tensor":
    """The fraction γ(r) of tokens to mask, clipped to [1e-6, 1] as in the authors' code.

    Args:
        schedule: a key of `SCHEDULES`.
        r: progress of decoding in [0, 1], of any shape.
        num_tokens: number N of maskable tokens, broadcast against r. Only the logarithmic and
            exponential schedules depend on N.
    """
    import torch

    r = torch.as_tensor(r, dtype=torch.float64)
    n = torch.as_tensor(num_tokens, dtype=torch.float64)
    # log2(1) = 0: with a single maskable token the logarithmic quotient is 0/0, so N is at least 2.
    return SCHEDULES[schedule](r, n.clamp(min=2)).clamp(1e-6, 1.0)


def curve_csv(schedule: str, num_tokens: int) -> str:
    """Tabulate a mask schedule as CSV text in full precision: a column r, and a column `gamma_<N>`
    for each N in `SIZES` and for N = `num_tokens` (this data set's tokens per image). Other
    stages depend on a file with this text, so they run again if the schedule's function changes."""
    import torch

    r = torch.linspace(0, 1, POINTS, dtype=torch.float64)
    columns = {"r": r.tolist()}
    for n in sorted({num_tokens, *SIZES}):
        columns[f"gamma_{n}"] = mask_ratio(schedule, r, n).tolist()
    lines = [",".join(map(repr, row)) for row in zip(*columns.values(), strict=True)]
    return "\n".join([",".join(columns), *lines]) + "\n"
