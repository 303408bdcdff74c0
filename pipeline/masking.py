"""Mask schedules γ and the masks of Masked Visual Token Modeling (paper, sections 3.1 and 3.3)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

# γ(r, n): r in [0, 1] is the progress of decoding, n the number of maskable tokens. Adding a
# schedule is adding one line here; its name is then valid everywhere in params.yaml.
SCHEDULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "exponential": lambda r, n: 1 - torch.exp2(-torch.log2(n) * (1 - r)),
    "cubic": lambda r, n: 1 - r**3,
    "square": lambda r, n: 1 - r**2,
    "cosine": lambda r, n: torch.cos(r * (math.pi / 2)),
    "arccos": lambda r, n: torch.arccos(r) * (2 / math.pi),
    "linear": lambda r, n: 1 - r,
    "square_root": lambda r, n: 1 - r.sqrt(),
    "logarithmic": lambda r, n: -torch.log2(r) / torch.log2(n),
}

# The seven of the paper's Table 3, in its order (arccos is other reproductions' addition).
PAPER_SCHEDULES = tuple(name for name in SCHEDULES if name != "arccos")


def mask_ratio(schedule: str, r: Tensor | float, num_tokens: Tensor | int) -> Tensor:
    """γ(r): the fraction of tokens to mask at progress r, clipped to [1e-6, 1] as in the release.

    Args:
        schedule: a key of `SCHEDULES`.
        r: progress in [0, 1], any shape.
        num_tokens: number of maskable tokens N, broadcast against r (the logarithmic and
            exponential schedules depend on it).
    """
    r = torch.as_tensor(r, dtype=torch.float64)
    n = torch.as_tensor(num_tokens, dtype=torch.float64)
    # log2(1) = 0: with a single maskable token the logarithmic quotient is 0/0, so N is at least 2.
    return SCHEDULES[schedule](r, n.clamp(min=2)).clamp(1e-6, 1.0)


def sample_training_mask(
    batch_size: int,
    num_tokens: int,
    schedule: str,
    generator: torch.Generator,
    min_masking_rate: float = 0.0,
) -> Tensor:
    """Draw masks as in section 3.1: r ~ U[0, 1), then ⌈γ(r)·N⌉ positions uniformly at random.

    Args:
        min_masking_rate: lower bound on the mask ratio; the paper has none, the release 0.5.

    Returns:
        (batch_size, num_tokens) bool, True where the token becomes [MASK]; at least one a row.
    """
    r = torch.rand(batch_size, generator=generator, dtype=torch.float64)
    ratio = mask_ratio(schedule, r, num_tokens).clamp(min=min_masking_rate)
    count = torch.ceil(ratio * num_tokens).long().clamp(1, num_tokens)
    # Ranks of i.i.d. noise are a uniform permutation; masking the ranks below `count` masks a
    # uniformly drawn subset of that size.
    noise = torch.rand(batch_size, num_tokens, generator=generator)
    rank = noise.argsort(dim=1).argsort(dim=1)
    return rank < count[:, None]
