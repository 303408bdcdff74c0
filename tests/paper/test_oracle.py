"""The oracle's exact conditional probabilities, against sums over every row of tokens."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from pipeline.oracle import HiddenMarkovChain, pair_error, sticky_chain, token_entropy
from tests.tiny_networks import seeded

N, K, MANY = 4, 3, 20_000
ROWS = torch.tensor(list(product(range(K), repeat=N)))  # (K^N, N)
# Not symmetric, so that forward and backward messages differ; columns sum to 1.
CHAIN = HiddenMarkovChain(
    torch.tensor([[0.1, 0.7, 0.2], [0.6, 0.1, 0.3], [0.3, 0.2, 0.5]]),
    torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]]),
)


def joint() -> torch.Tensor:
    """Return every row's probability (K^N,), summed over all paths of states."""
    total = torch.zeros(len(ROWS))
    for path in product(range(3), repeat=N):
        steps = [CHAIN.transition[a, b] for a, b in pairwise(path)]
        codes = torch.stack([CHAIN.emission[s][ROWS[:, i]] for i, s in enumerate(path)])
        total += torch.stack(steps).prod() / 3 * codes.prod(dim=0)
    return total


def test_probabilities_are_sums_over_all_paths():
    exact = joint()
    assert exact.sum().item() == pytest.approx(1)
    assert torch.allclose(CHAIN.log_likelihood(ROWS), exact.log(), atol=1e-5)
    for mask in product((False, True), repeat=N):
        masked = torch.tensor(mask).expand(len(ROWS), N)
        logits = CHAIN.predict(ROWS, masked, 0.5)
        fits = ((ROWS[:, None] == ROWS) | masked[:, None]).all(dim=-1) * exact
        codes = torch.nn.functional.one_hot(ROWS, K).float()
        expected = torch.einsum("bg,gnk->bnk", fits / fits.sum(dim=1, keepdim=True), codes)
        assert torch.allclose(logits.softmax(dim=-1)[masked], expected[masked], atol=1e-5)
    pairs = torch.zeros(K, K).index_put_((ROWS[:, 1], ROWS[:, 3]), exact, accumulate=True)
    assert torch.allclose(CHAIN.pairs(2), pairs, atol=1e-6)


def test_samples_have_the_distribution():
    tokens = CHAIN.sample(MANY, N, seeded(1))
    numbers = (tokens * torch.tensor([K**n for n in reversed(range(N))])).sum(dim=1)
    expected = joint().double().numpy()
    counts = numbers.bincount(minlength=K**N).numpy()
    assert chisquare(counts, MANY * expected / expected.sum()).pvalue > 0.01


def test_measures():
    chain = sticky_chain()
    real, alike = chain.sample(2000, 32, seeded(1)), torch.zeros(2000, 32, dtype=torch.long)
    apart = torch.randint(8, (2000, 32), generator=seeded(1))
    assert pair_error(chain, real) < 0.03 < 0.15 < pair_error(chain, apart)
    first = np.mean([1 - chain.pairs(distance)[0, 0].item() for distance in (1, 2, 4, 8)])
    assert pair_error(chain, alike) == pytest.approx(first, abs=1e-6)
    assert token_entropy(alike, 8) == 0
    assert token_entropy(torch.arange(8)[:, None].expand(8, 5), 8) == pytest.approx(np.log(8))
