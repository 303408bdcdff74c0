"""Samplers: rules that choose which tokens are masked after an iteration of decoding.

The paper's sampler is `confidence`; later work proposed the others. In each iteration, `decode`
draws a code for every masked token, and then calls the sampler. Importing torch takes a second, so
the modules of this package do not import it (except for `truncation`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.decoding.samplers.halton import halton_order
from pipeline.decoding.samplers.iteration import Iteration
from pipeline.decoding.samplers.remask import remask
from pipeline.decoding.samplers.scores import margin, negative_entropy

if TYPE_CHECKING:
    from torch import Tensor

# Sampler -> function that returns the tokens to mask, (B, N) bool. To add a sampler, add one line
# here; params.yaml, the commands, the demo and the Python API then accept the name.
SAMPLERS: "dict[str, Callable[[Iteration], Tensor]]" = {
    "confidence": lambda i: i.least(i.noisy(i.log_prob)),  # the paper's (section 3.2)
    "entropy": lambda i: i.least(i.noisy(negative_entropy(i.log_probs))),
    "margin": lambda i: i.least(i.noisy(margin(i.log_probs))),
    "random": lambda i: i.least(i.uniform()),  # ancestral sampling (Sahoo et al., MDLM, 2024)
    "halton": halton_order,
    "remask_capped": lambda i: remask(i, rescaled=False),
    "remask_rescaled": lambda i: remask(i, rescaled=True),
}
