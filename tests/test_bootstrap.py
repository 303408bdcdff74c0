"""The bootstrap's spread of a metric against what is known of it."""

import numpy as np
import pytest
import torch

from pipeline.evaluation.metrics import bootstrap, class_accuracy, fid
from pipeline.evaluation.statistics import statistics
from tests.gaussians import gaussian


def test_bootstrap_of_a_mean_is_its_standard_error():
    values = gaussian(400, 1, 30)
    spread = bootstrap(lambda x: x.mean().item(), values, repeats=2000, seed=0)
    # The error of a deviation from 2000 draws is 1 / √(2 · 2000) of it: 1.6%.
    assert spread == pytest.approx(values.std().item() / 20, rel=0.06)


def test_bootstrap_keeps_rows_together_and_is_seeded():
    """An accuracy p of M samples: √(p (1 − p) / M)."""
    labels = torch.arange(300) % 3
    logits = torch.eye(3)[(labels + (torch.arange(300) < 60)) % 3]  # a fifth is wrong
    how = {"repeats": 2000, "seed": 1}
    spread = bootstrap(class_accuracy, logits, labels, **how)
    assert spread == pytest.approx((0.8 * 0.2 / 300) ** 0.5, rel=0.06)
    assert spread == bootstrap(class_accuracy, logits, labels, **how)
    assert spread != bootstrap(class_accuracy, logits, labels, **how | {"seed": 2})


def test_bootstrap_of_fid_is_its_spread_over_fresh_samples():
    reference = statistics(gaussian(5000, 3, 31))
    fresh = gaussian(300 * 400, 3, 32, shift=4).reshape(300, 400, 3)
    true = np.std([fid(samples, reference) for samples in fresh])
    estimate = bootstrap(lambda x: fid(x, reference), fresh[0], repeats=300, seed=0)
    assert estimate == pytest.approx(true, rel=0.2)
