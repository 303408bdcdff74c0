"""The Halton order of a token grid (Besnier et al., Halton-MaskGIT, 2025)."""

import math
from functools import cache
from typing import TYPE_CHECKING

from pipeline.decoding.samplers.iteration import Iteration

if TYPE_CHECKING:
    from torch import Tensor


def halton_order(i: Iteration) -> "Tensor":
    """Select the `mask_len` masked tokens that come last in the Halton order, as (B, N) bool. The
    order of each image is shifted cyclically by a random offset."""
    count = i.masked.shape[-1]
    rank = i.mask_len.new_tensor(halton_rank(count))
    return i.least(-(rank + (i.offset * count).long()).remainder(count).to(i.log_prob.dtype))


@cache
def halton_rank(num_tokens: int) -> list[int]:
    """The rank of each token of a square grid in the Halton order: the order in which the Halton
    sequence (base 2 for rows, 3 for columns) first reaches the tokens. The ranks are listed row by
    row of the grid."""
    from scipy.stats import qmc  # takes half a second to import

    side, order = math.isqrt(num_tokens), dict[int, int]()
    sequence = qmc.Halton(2, scramble=False)
    while len(order) < num_tokens:
        for row, column in (side * sequence.random(num_tokens)).astype(int).tolist():
            order.setdefault(row * side + column, len(order))
    return [order[token] for token in range(num_tokens)]
