"""Metrics of a classifier's logits: the Inception Score and class accuracy."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric
from torchmetrics.image.inception import InceptionScore

from pipeline.data.seeds import mix
from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import class_accuracy, inception_score
from tests.gaussians import gaussian


def test_inception_score_of_one_split():
    logits = 2 * gaussian(300, 7, 3)
    p = np.exp(logits.double().numpy())
    p /= p.sum(axis=1, keepdims=True)
    wanted = np.exp((p * (np.log(p) - np.log(p.mean(axis=0)))).sum(axis=1).mean())
    assert inception_score(logits, 1, seed=0) == pytest.approx(wanted, rel=1e-6)


# Its notices on its buffer, and on the deviation over a single split.
@pytest.mark.filterwarnings(
    "ignore:Metric `InceptionScore` will save all:UserWarning", "ignore:std\\(\\):UserWarning"
)
def test_inception_score_is_torchmetrics():
    logits = 2 * gaussian(300, 7, 3)
    metric = InceptionScore(feature=torch.nn.Identity(), splits=1)
    metric.update(logits.double())
    wanted, _ = metric.compute()
    assert inception_score(logits, 1, seed=0) == pytest.approx(wanted.item(), rel=1e-9)


@pytest.mark.parametrize("count, splits", [(103, 10), (200, 1), (7, 10)])
def test_inception_score_part_by_part_is_that_of_all_at_once(count, splits):
    logits, parts = gaussian(count, 7, 5), min(splits, count)
    at_once = isc_features_to_metric(logits, parts, rng_seed=mix(3, "is_splits") % 2**32)
    assert inception_score(logits, splits, seed=3) == at_once["inception_score_mean"]


def test_inception_score_block_by_block_is_that_of_all_at_once(monkeypatch):
    logits = 2 * gaussian(103, 7, 5)
    monkeypatch.setattr(metrics, "SCORED", 10)
    at_once = isc_features_to_metric(logits, 1)["inception_score_mean"]
    assert inception_score(logits, 1, seed=3) == pytest.approx(at_once, rel=1e-12)


def test_inception_score_of_a_class_without_any_probability():
    logits = torch.tensor([[0.0, -2000.0, 9.0]]).repeat(4, 1)
    assert inception_score(logits, 1, seed=0) == pytest.approx(1)


def test_inception_score_extremes_and_seed():
    sure = 200 * torch.eye(5).repeat(20, 1)
    assert inception_score(sure, 1, seed=0) == pytest.approx(5, rel=1e-6)
    assert inception_score(torch.zeros(50, 5), 1, seed=0) == pytest.approx(1, rel=1e-6)
    assert inception_score(gaussian(3, 5, 4), 10, seed=0) == pytest.approx(1)  # a split each
    logits = gaussian(200, 7, 4)
    state = torch.random.get_rng_state()
    one = inception_score(logits, 10, seed=1)
    assert one == inception_score(logits, 10, seed=1)
    assert one != inception_score(logits, 10, seed=2)
    assert torch.equal(state, torch.random.get_rng_state())  # nobody else's randomness is moved


def test_class_accuracy():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 9.0]])
    assert class_accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75
