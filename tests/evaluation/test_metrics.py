"""Precision, recall, density, coverage, KID and the Inception Score against their definitions."""

import numpy as np
import pytest
import torch
from torchmetrics.image.inception import InceptionScore

from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import class_accuracy, drawn, inception_score, kid, manifolds
from tests.errors import refused


def gaussian(count: int, dimension: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    """Return features (count, dimension) of a Gaussian with a random covariance."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(dimension, dimension))
    return torch.from_numpy(rng.normal(size=(count, dimension)) @ mix + shift).float()


def balls(centres: np.ndarray, points: np.ndarray, k: int) -> np.ndarray:
    """Return whether each centre's ball, up to its k-th nearest other centre, has each point."""
    found = np.zeros((len(centres), len(points)), dtype=bool)
    for i, centre in enumerate(centres):
        radius = sorted(np.linalg.norm(centre - o) for o in np.delete(centres, i, axis=0))[k - 1]
        found[i] = [np.linalg.norm(centre - point) <= radius for point in points]
    return found


@pytest.mark.parametrize("neighbors, block", [(1, 7), (3, 1000), (5, 7)])
def test_neighbours_by_brute_force(monkeypatch, neighbors, block):
    monkeypatch.setattr(metrics, "BLOCK", block)
    samples, reference = gaussian(40, 3, 24) * 0.6, gaussian(60, 3, 25)
    a, b = samples.double().numpy(), reference.double().numpy()
    of_real, of_samples = balls(b, a, neighbors), balls(a, b, neighbors)
    found = manifolds(samples, reference, neighbors)
    assert found["precision"] == pytest.approx(of_real.any(axis=0).mean(), abs=1e-9)
    assert found["recall"] == pytest.approx(of_samples.any(axis=0).mean(), abs=1e-9)
    assert found["density"] == pytest.approx(of_real.sum() / (neighbors * 40), abs=1e-9)
    assert found["coverage"] == pytest.approx(of_real.any(axis=1).mean(), abs=1e-9)
    assert 0 < found["coverage"] < 1


def test_precision_without_recall():
    """The samples cover one of two modes: all are realistic, but half of the data is missing."""
    one_mode = gaussian(60, 2, 28)
    found = manifolds(one_mode, torch.cat([one_mode, one_mode + 1000]), 3)
    assert found["precision"] == 1 and found["recall"] == found["coverage"] == 0.5
    # A ball has its centre and three other points, the last one on its edge (up to rounding).
    # Without the points on the edges, the density would be 1.
    assert 1.2 < found["density"] <= 4 / 3 + 1e-9


def test_samples_that_are_all_one_image_are_of_it():
    """The samples' balls have radius 0, and contain their centres, as in torch-fidelity."""
    reference = gaussian(60, 2, 29)
    found = manifolds(reference[:1].repeat(10, 1), reference, 3)
    assert found["precision"] == 1 and found["recall"] == pytest.approx(1 / 60)


def test_an_outlier_inflates_precision_but_not_density():
    """The ball of one distant real image contains all bad samples (Naeem 2020, figure 3)."""
    real = torch.cat([gaussian(200, 2, 26), torch.full((1, 2), 60.0)])
    bad = gaussian(200, 2, 27) / 10 + 30
    found = manifolds(bad, real, 3)
    assert found["precision"] == 1 and found["density"] == pytest.approx(1 / 3)
    assert found["coverage"] == pytest.approx(1 / 201)


@pytest.mark.parametrize(("samples", "reference"), [(3, 10), (10, 3)])
def test_too_few_neighbours_name_the_numbers(samples, reference):
    with refused("evaluation.neighbors", f"{samples} samples and {reference} ref"):
        manifolds(torch.rand(samples, 2), torch.rand(reference, 2), 3)


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased squared MMD under the kernel (x·y / F + 1)³."""

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    off_diagonal = ~np.eye(len(x), dtype=bool)
    within = [kernel(z, z)[off_diagonal].mean() for z in (x, y)]
    return sum(within) - 2 * kernel(x, y).mean()


def test_kid_is_the_unbiased_squared_mmd_over_seeded_subsets():
    samples, reference = gaussian(80, 4, 22) / 4, gaussian(80, 4, 23) / 4
    whole = kid(samples, reference, subsets=1, subset_size=80, seed=0)
    wanted = squared_mmd(samples.double().numpy(), reference.double().numpy())
    assert whole == pytest.approx(wanted, rel=1e-9)
    means = [kid(samples, reference, subsets=20, subset_size=20, seed=seed) for seed in range(20)]
    assert abs(np.mean(means) - whole) < 4 * np.std(means) / 20**0.5
    assert means[0] == kid(samples, reference, subsets=20, subset_size=20, seed=0) != means[1]


@pytest.mark.parametrize("counts", [(19, 50), (50, 19)])
def test_kid_of_too_few_images_names_the_param(counts):
    with refused("evaluation.kid_subset_size"):
        kid(*(torch.rand(count, 4) for count in counts), subsets=2, subset_size=20, seed=0)


# torchmetrics warns about its buffer, and about the standard deviation of a single split.
@pytest.mark.filterwarnings(
    "ignore:Metric `InceptionScore` will save all:UserWarning", "ignore:std\\(\\):UserWarning"
)
def test_inception_score_is_torchmetrics():
    logits = 2 * gaussian(300, 7, 3)
    metric = InceptionScore(feature=torch.nn.Identity(), splits=1)
    metric.update(logits.double())
    wanted, _ = metric.compute()
    assert inception_score(logits, 1, seed=0) == pytest.approx(wanted.item(), rel=1e-9)


def test_inception_score_extremes_and_seed():
    sure = 200 * torch.eye(5).repeat(20, 1)
    assert inception_score(sure, 1, seed=0) == pytest.approx(5, rel=1e-6)
    assert inception_score(torch.zeros(50, 5), 1, seed=0) == pytest.approx(1, rel=1e-6)
    assert inception_score(gaussian(3, 5, 4), 10, seed=0) == pytest.approx(1)  # 1 per split
    logits, state = gaussian(200, 7, 4), torch.random.get_rng_state()
    one = inception_score(logits, 10, seed=1)
    assert one == inception_score(logits, 10, seed=1) != inception_score(logits, 10, seed=2)
    assert torch.equal(state, torch.random.get_rng_state())  # the global generator is not used


def test_class_accuracy():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 9.0]])
    assert class_accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75


def test_rows_are_drawn_in_order_and_the_same_again():
    features = torch.arange(100.0)[:, None]
    part = drawn(features, 10, seed=1)
    assert len(part) == 10 and (part.diff(dim=0) > 0).all()
    assert torch.equal(part, drawn(features, 10, seed=1))
    assert not torch.equal(part, drawn(features, 10, seed=2))
    assert drawn(features, 100, seed=1) is features
