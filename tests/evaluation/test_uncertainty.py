"""Standard deviations from random halves, and FID∞, against known values."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipeline.config.params import Params
from pipeline.evaluation import metrics
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.fid import TooFew, fid, statistics


def normal(count: int, dimension: int, seed: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimension, generator=draws, dtype=torch.float64)


def alternating(count: int, classes: int = 10) -> torch.Tensor:
    return torch.arange(count) % classes


def spread(metric: Callable[[torch.Tensor], float | None], labels: torch.Tensor, **how):
    """Return the standard deviation of one metric, estimated from random halves."""
    return metrics.spreads(lambda rows: {"metric": metric(rows)}, labels, **how)["metric_std"]


def test_spread_leaves_out_what_differs_between_classes():
    """Sets that are balanced over classes do not vary in the number of images per class."""
    labels = alternating(400)
    values = labels + 0.1 * normal(400, 1, 33)[:, 0]
    found = spread(lambda rows: values[rows].mean().item(), labels, repeats=500, seed=0)
    assert found == pytest.approx(0.1 / 20, rel=0.15)


def test_spread_keeps_rows_together_and_is_seeded():
    """An accuracy p that is measured on M samples has the standard deviation √(p (1 − p) / M)."""
    labels = torch.arange(300) % 3
    logits = torch.eye(3)[(labels + (torch.arange(300) < 60)) % 3]  # a fifth is wrong

    def metric(rows):
        return metrics.class_accuracy(logits[rows], labels[rows])

    found = spread(metric, labels, repeats=500, seed=1)
    assert found == pytest.approx((0.8 * 0.2 / 300) ** 0.5, rel=0.1)
    assert found == spread(metric, labels, repeats=500, seed=1)
    assert found != spread(metric, labels, repeats=500, seed=2)


def test_spread_is_that_over_fresh_samples():
    fresh, known = normal(300 * 100, 3, 32).reshape(100, 300, 3) + 1, statistics(normal(999, 3, 31))
    true = np.std([fid(samples, known) for samples in fresh])
    labels = torch.zeros(300, dtype=torch.long)
    found = [
        spread(lambda rows, x=x: fid(x[rows], known), labels, repeats=20, seed=0)
        for x in fresh[:10]
    ]
    assert np.mean(found) == pytest.approx(true, rel=1 / 3)


OUTPUTS = ("features", "logits", "class_logits", "second")


class OfFeatures(Evaluator):
    """An evaluator without networks. Both extractors have the same reference features."""

    def __init__(self, params: Params, reference: torch.Tensor):
        self.params, self.extractor = params, "classifier"
        self.reference, self.statistics = reference, statistics(reference)
        self.second_reference, self.second_statistics = reference, self.statistics


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 4])
def test_spread_of_a_set_larger_than_its_manifold_is_that_over_fresh_samples(make_params, times):
    """The standard deviation is that of sets of `manifold_images` images, even if the set is
    larger. Precision and density are means over images, so random halves give the exact value."""
    k, reference = 100, normal(1000, 3, 41)
    settings = {"manifold_images": k, "halves": 50, "kid_subsets": 1, "kid_subset_size": 20}
    params = make_params(evaluation=settings)
    evaluator = OfFeatures(params, reference)
    sets = (normal(10 * times * k, 3, 42) + 1).split(times * k)
    measured = [evaluator.metrics(dict.fromkeys(OUTPUTS, x), None) for x in sets]
    near = metrics.drawn(reference, k, params.seed)
    fresh = [metrics.manifolds(x + 1, near, 3) for x in normal(400 * k, 3, 43).split(k)]
    for kind in ("precision", "density"):
        true = np.std([of[kind] for of in fresh])  # accurate to 3.5%, like `spread`
        for extractor in ("classifier", "random"):
            spread = np.sqrt(np.mean([of[f"{kind}_{extractor}_std"] ** 2 for of in measured]))
            assert spread == pytest.approx(true, rel=0.15), (kind, extractor)


def test_what_a_half_is_too_small_for_has_no_spread():
    def measured(rows):
        return {"size": len(rows) + rows[0].item(), "whole": 1.0 if len(rows) == 20 else None}

    found = metrics.spreads(measured, alternating(20, 2), repeats=4, seed=0)
    assert found["whole_std"] is None and found["size_std"] > 0


def test_fid_infinity_has_not_the_bias_of_fid():
    """The samples have the reference's distribution, so the true distance is 0."""
    reference = statistics(normal(50_000, 16, 36))
    sets = normal(10 * 400, 16, 37).reshape(10, 400, 16)
    plain = np.array([fid(x, reference) for x in sets])
    extrapolated = [metrics.fid_infinity(x, alternating(400), reference, seed=0) for x in sets]
    assert abs(np.mean(extrapolated)) < plain.mean() / 5
    with pytest.raises(TooFew, match="at least 17"):
        metrics.fid_infinity(normal(64, 16, 38), alternating(64), reference, seed=0)


@pytest.mark.parametrize(("count", "size", "sets"), [(1000, 320, 3), (30, 30, 1)])
def test_disjoint_sets_are_balanced_and_share_nothing(count, size, sets):
    labels = alternating(count)
    found = list(metrics.disjoint(labels, size, seed=3))
    assert len(found) == sets
    every = torch.cat(found)
    assert len(every.unique()) == sets * size
    for rows in found:
        counts = labels[rows].bincount(minlength=10)
        assert counts.max() - counts.min() <= 2
