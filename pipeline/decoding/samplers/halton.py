"""The Halton order of a token grid (Besnier et al., Halton-MaskGIT, 2025)."""

import math
from functools import cache
from typing import TYPE_CHECKING

from pipeline.decoding.samplers.iteration import Iteration

if TYPE_CHECKING:
    from torch import Tensor


def halton_order(i: Iteration) -> "Tensor":
    """Reveal tokens in the Halton order, rolled by a random offset per image."""
    count = i.masked.shape[-1]
    rank = i.mask_len.new_tensor(halton_rank(count))
    return i.least(-(rank + (i.offset * count).long()).remainder(count).to(i.log_prob.dtype))


@cache
def halton_rank(num_tokens: int) -> list[int]:
    """Position of each token of a square grid, row by row, in the Halton sequence with bases 2
    (rows) and 3 (columns). Later points in a token's cell are skipped."""
    side, order, number = math.isqrt(num_tokens), dict[int, int](), 0
    while len(order) < num_tokens:
        row, column = (int(side * _radical_inverse(number, base)) for base in (2, 3))
        order.setdefault(row * side + column, len(order))
        number += 1
    return [order[token] for token in range(num_tokens)]


def _radical_inverse(number: int, base: int) -> float:
    """The number with its digits mirrored at the point: 6 = 110 in base 2 becomes 0.011 = 3/8."""
    value, unit = 0.0, 1.0
    while number:
        unit /= base
        number, digit = divmod(number, base)
        value += digit * unit
    return value
