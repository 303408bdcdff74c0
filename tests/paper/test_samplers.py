"""Every sampler, on a small distribution of tokens whose conditionals are known exactly."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from pipeline.decoding.iterative import decode, num_tokens_to_mask
from pipeline.decoding.samplers import SAMPLERS
from pipeline.decoding.samplers.halton import halton_rank
from pipeline.decoding.samplers.remask import remask_probability
from pipeline.decoding.samplers.truncation import truncated
from pipeline.decoding.settings import DecodingSettings
from tests.tiny_networks import seeded

N, K, MANY = 4, 3, 20_000
GRIDS = torch.tensor(list(product(range(K), repeat=N)))  # (K^N, N)
JOINT = torch.from_numpy(np.random.default_rng(3).dirichlet(np.full(K**N, 0.3)))


def exact(tokens: torch.Tensor, mask: torch.Tensor, progress: float) -> torch.Tensor:
    """Return logits (B, N, K): log p of each code, given the known tokens."""
    fits = ((tokens[:, None] == GRIDS) | mask[:, None]).all(dim=-1)  # (B, K^N)
    codes = torch.nn.functional.one_hot(GRIDS, K).double()  # (K^N, N, K)
    return torch.einsum("bg,gnk->bnk", fits * JOINT, codes).clamp(min=1e-30).log()


def decoded(tokens=None, unknown=None, **settings) -> list:
    blank = torch.zeros(MANY, N, dtype=torch.long), torch.ones(MANY, N, dtype=torch.bool)
    given = (blank[0] if tokens is None else tokens, blank[1] if unknown is None else unknown)
    how = DecodingSettings(
        **{"iterations": N, "schedule": "linear", "choice_temperature": 0.0} | settings
    )
    return list(decode(exact, *given, how, seeded(1)))


def counts(steps: list) -> np.ndarray:
    """Return how often each grid was drawn."""
    number = (steps[-1].sampled * torch.tensor([K**n for n in reversed(range(N))])).sum(dim=1)
    return number.bincount(minlength=K**N).numpy()


def likely(steps: list) -> float:
    """Return the mean log-likelihood of the drawn grids."""
    return float(counts(steps) @ JOINT.log().numpy() / MANY)


@pytest.mark.parametrize(
    "how",
    [
        {"sampler": "random"},
        {"sampler": "halton"},
        *({"sampler": f"remask_{kind}", "remasking": 0.0} for kind in ("capped", "rescaled")),
    ],
)
def test_one_token_at_a_time_in_an_order_of_chance_is_the_distribution(how):
    assert chisquare(counts(decoded(**how)), MANY * JOINT.numpy()).pvalue > 0.01


def test_choosing_confident_tokens_first_without_noise_draws_likelier_grids():
    assert likely(decoded(sampler="confidence")) > likely(decoded(sampler="random")) + 0.01
    # Fewer iterations draw tokens that do not fit each other.
    assert likely(decoded(sampler="random", iterations=1)) < likely(decoded(sampler="random")) - 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", ["cosine", "logarithmic"])
def test_known_tokens_stay_and_the_schedule_sets_how_many_are_masked(sampler, schedule):
    given = GRIDS[torch.arange(MANY) % K**N], torch.arange(MANY * N).view(MANY, N) % 5 > 0
    settings = {"sampler": sampler, "schedule": schedule, "remasking": 0.3}
    steps = decoded(*given, **settings, choice_temperature=4.5)
    for step in steps:
        assert torch.equal(step.sampled[~given[1]], given[0][~given[1]])
        assert not (step.masked & ~given[1]).any()
    now = unknown = given[1].sum(dim=1)
    for step, state in enumerate(steps):
        now = num_tokens_to_mask(DecodingSettings(N, schedule, 0), step, unknown, now)
        assert torch.equal(state.masked.sum(dim=1), now.minimum(unknown))
    again = decoded(*given, **settings, choice_temperature=4.5)
    assert torch.equal(steps[-1].sampled, again[-1].sampled)


def test_remasking_has_the_probabilities_of_the_formula():
    """ReMDM: σ = min(η_cap, (1 − α_s)/α_t), or min(η(1 − α_s)/α_t, 1), where α = 1 − γ."""
    ratio, next_ratio = torch.tensor([0.9, 0.5]), torch.tensor([0.6, 0.1])  # quotients 6 and 0.2
    for strength, rescaled, wanted in (
        (0.3, False, [0.3, 0.2]),
        (0.1, True, [0.6, 0.02]),
        (0.3, True, [1.0, 0.06]),
    ):
        found = remask_probability(ratio, next_ratio, strength, rescaled)
        assert found.tolist() == pytest.approx(wanted)
    first, second, *_ = decoded(sampler="remask_capped", remasking=0.2)
    shares = (second.masked & ~first.masked)[~first.masked].double().mean()
    assert shares == pytest.approx(0.2, abs=0.02)


def test_the_halton_order_is_that_of_its_digits():
    """Bases 2 and 3: (0, 0), (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), … on a grid of 4 × 4."""
    order = [halton_rank(16).index(n) for n in range(4)]
    assert order == [0, 2 * 4 + 1, 1 * 4 + 2, 3 * 4 + 0]
    assert sorted(halton_rank(49)) == list(range(49))


def test_truncated_logits_keep_the_likeliest_codes():
    logits = torch.tensor([[0.1, 0.4, 0.3, 0.2]]).log()
    kept = {"top_k": truncated(logits, 1.0, 2, 1.0), "top_p": truncated(logits, 1.0, 0, 0.65)}
    assert {name: x.isfinite().tolist() for name, x in kept.items()} == {
        "top_k": [[False, True, True, False]],
        "top_p": [[False, True, True, False]],
    }
    assert truncated(logits, 1.0, 0, 0.75).isfinite().tolist() == [[False, True, True, True]]
    assert truncated(logits, 1.0, 0, 1.0) is logits
    assert torch.equal(truncated(logits, 0.5, 0, 1.0), 2 * logits)
