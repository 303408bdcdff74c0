"""Metrics against their formulas, written out with numpy and scipy."""

import numpy as np
import pytest
import scipy.linalg
import torch

from pipeline.errors import UserError
from pipeline.evaluation.features import Features, load_features, save_features
from pipeline.evaluation.metrics import (
    class_accuracy,
    fid,
    inception_score,
    precision_recall,
    sample_metrics,
)

# torchmetrics' notices on its buffer, and on the deviation over a single split.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Metric `InceptionScore` will save all:UserWarning", "ignore:std\\(\\):UserWarning"
)


def gaussian(count: int, dimension: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(dimension, dimension))
    return torch.from_numpy(rng.normal(size=(count, dimension)) @ mix + shift).float()


def test_fid_is_the_frechet_distance():
    samples, reference = gaussian(150, 8, 0), gaussian(210, 8, 1, shift=0.5)
    a, b = samples.double().numpy(), reference.double().numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert fid(samples, reference) == pytest.approx(wanted, rel=1e-6)
    assert fid(samples, reference) == pytest.approx(fid(reference, samples), rel=1e-6)


def test_fid_of_itself_is_zero_and_of_a_shift_its_square():
    features = gaussian(100, 6, 2)
    assert fid(features, features) == pytest.approx(0, abs=1e-4)
    assert fid(features + 3, features) == pytest.approx(6 * 9, rel=1e-4)


@pytest.mark.parametrize(("samples", "reference"), [(8, 50), (50, 8)])
def test_fid_of_too_few_samples_names_the_numbers(samples, reference):
    with pytest.raises(UserError) as error:
        fid(torch.rand(samples, 8), torch.rand(reference, 8))
    message = str(error.value)
    side = "8 samples" if samples == 8 else "8 reference images"
    assert side in message and "at least 9" in message and "\n" not in message


def test_inception_score_of_one_split():
    logits = 2 * gaussian(300, 7, 3)
    p = np.exp(logits.double().numpy())
    p /= p.sum(axis=1, keepdims=True)
    wanted = np.exp((p * (np.log(p) - np.log(p.mean(axis=0)))).sum(axis=1).mean())
    assert inception_score(logits, 1, seed=0) == pytest.approx(wanted, rel=1e-6)


def test_inception_score_extremes_and_seed():
    sure = 200 * torch.eye(5).repeat(20, 1)
    assert inception_score(sure, 1, seed=0) == pytest.approx(5, rel=1e-6)
    assert inception_score(torch.zeros(50, 5), 1, seed=0) == pytest.approx(1, rel=1e-6)
    logits = gaussian(200, 7, 4)
    state = torch.random.get_rng_state()
    one = inception_score(logits, 10, seed=1)
    assert one == inception_score(logits, 10, seed=1)
    assert one != inception_score(logits, 10, seed=2)
    assert torch.equal(state, torch.random.get_rng_state())  # nobody else's randomness is moved


def inside(points: np.ndarray, others: np.ndarray, k: int) -> float:
    """Share of `points` within the distance of some other to its own k-th neighbour."""
    hits = 0
    radius = []
    for i, other in enumerate(others):
        distances = sorted(np.linalg.norm(other - o) for j, o in enumerate(others) if j != i)
        radius.append(distances[k - 1])
    for point in points:
        hits += any(np.linalg.norm(point - o) <= r for o, r in zip(others, radius, strict=True))
    return hits / len(points)


@pytest.mark.parametrize("neighbors", [1, 3, 5])
def test_precision_and_recall_by_brute_force(neighbors):
    samples, reference = gaussian(40, 3, 5) * 0.6, gaussian(60, 3, 6)
    a, b = samples.double().numpy(), reference.double().numpy()
    precision, recall = precision_recall(samples, reference, neighbors)
    assert precision == pytest.approx(inside(a, b, neighbors), abs=1e-6)
    assert recall == pytest.approx(inside(b, a, neighbors), abs=1e-6)


def test_precision_without_recall():
    """Samples of one mode out of two: each is realistic, half of the data is never made."""
    one_mode = gaussian(60, 2, 7)
    reference = torch.cat([one_mode, one_mode + 1000])
    precision, recall = precision_recall(one_mode, reference, 3)
    assert precision == 1 and recall == pytest.approx(0.5)


@pytest.mark.parametrize(("samples", "reference"), [(3, 10), (10, 3)])
def test_too_few_neighbours_name_the_numbers(samples, reference):
    with pytest.raises(UserError, match=r"evaluation\.neighbors") as error:
        precision_recall(torch.rand(samples, 2), torch.rand(reference, 2), 3)
    assert f"there are {samples} and {reference}" in str(error.value)
    assert "\n" not in str(error.value)


def test_metrics_are_named_after_their_extractor():
    features = Features(gaussian(50, 4, 8), gaussian(50, 3, 9))
    values = sample_metrics(features, features, "classifier", neighbors=3, is_splits=1, seed=0)
    assert set(values) == {f"{m}_classifier" for m in ("fid", "is", "precision", "recall")}
    assert values["precision_classifier"] == values["recall_classifier"] == 1


def test_class_accuracy():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 9.0]])
    assert class_accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75


def test_features_round_trip(tmp_path):
    features = Features(gaussian(5, 4, 10), gaussian(5, 3, 11))
    save_features(features, tmp_path / "deep" / "features.safetensors")
    loaded = load_features(tmp_path / "deep" / "features.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(features, loaded, strict=True))
