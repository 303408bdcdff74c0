"""KID against its definition, written out term by term."""

import numpy as np
import pytest
import torch

from pipeline.evaluation.metrics import kid
from pipeline.runtime.errors import UserError
from tests.gaussians import gaussian


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased, under the kernel (x·y / F + 1)³: the definition, term by term."""

    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])
        for z in (x, y)
    ]
    return sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_kid_is_the_unbiased_squared_mmd():
    samples, reference = gaussian(30, 6, 20), gaussian(30, 6, 21, shift=0.3)
    mean, std = kid(samples, reference, subsets=3, subset_size=30, seed=0)
    wanted = squared_mmd(samples.double().numpy(), reference.double().numpy())
    assert mean == pytest.approx(wanted, rel=1e-9)
    assert std == pytest.approx(0, abs=1e-9 * abs(wanted))  # every subset is everything


def test_kid_over_subsets_is_unbiased_and_seeded():
    samples, reference = gaussian(80, 4, 22) / 4, gaussian(80, 4, 23) / 4
    whole, _ = kid(samples, reference, subsets=1, subset_size=80, seed=0)
    mean, std = kid(samples, reference, subsets=400, subset_size=20, seed=0)
    assert abs(mean - whole) < 4 * std / 400**0.5
    assert (mean, std) == kid(samples, reference, subsets=400, subset_size=20, seed=0)
    assert mean != kid(samples, reference, subsets=400, subset_size=20, seed=1)[0]


@pytest.mark.parametrize("counts", [(19, 50), (50, 19)])
def test_kid_of_too_few_images_names_the_param(counts):
    with pytest.raises(UserError, match=r"evaluation\.kid_subset_size: subsets of 20"):
        kid(*(torch.rand(count, 4) for count in counts), subsets=2, subset_size=20, seed=0)
