"""Precision, recall, density and coverage against a brute-force search of neighbours."""

import numpy as np
import pytest
import torch

from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import manifolds
from pipeline.runtime.errors import UserError
from tests.gaussians import gaussian


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


@pytest.mark.parametrize("block", [7, 1000])
@pytest.mark.parametrize("neighbors", [1, 3, 5])
def test_precision_and_recall_by_brute_force(monkeypatch, neighbors, block):
    monkeypatch.setattr(metrics, "BLOCK", block)
    samples, reference = gaussian(40, 3, 5) * 0.6, gaussian(60, 3, 6)
    a, b = samples.double().numpy(), reference.double().numpy()
    found = manifolds(samples, reference, neighbors)
    assert found.precision == pytest.approx(inside(a, b, neighbors), abs=1e-6)
    assert found.recall == pytest.approx(inside(b, a, neighbors), abs=1e-6)


def test_precision_without_recall():
    """Samples of one mode out of two: each is realistic, half of the data is never made."""
    one_mode = gaussian(60, 2, 7)
    reference = torch.cat([one_mode, one_mode + 1000])
    found = manifolds(one_mode, reference, 3)
    assert found.precision == 1 and found.recall == pytest.approx(0.5)


@pytest.mark.parametrize("block", [7, 1000])
@pytest.mark.parametrize("neighbors", [1, 3, 5])
def test_density_and_coverage_by_brute_force(monkeypatch, neighbors, block):
    monkeypatch.setattr(metrics, "BLOCK", block)
    samples, reference = gaussian(40, 3, 24) * 0.6, gaussian(60, 3, 25)
    balls = np.zeros((60, 40), dtype=bool)  # whether a sample lies in a real image's ball
    for i, real in enumerate(reference.double().numpy()):
        others = np.delete(reference.double().numpy(), i, axis=0)
        radius = sorted(np.linalg.norm(real - other) for other in others)[neighbors - 1]
        balls[i] = [np.linalg.norm(real - s) <= radius for s in samples.double().numpy()]
    found = manifolds(samples, reference, neighbors)
    assert found.density == pytest.approx(balls.sum() / (neighbors * 40), abs=1e-9)
    assert found.coverage == pytest.approx(balls.any(axis=1).mean(), abs=1e-9)
    assert 0 < found.coverage < 1


def test_an_outlier_inflates_precision_but_not_density():
    """Naeem 2020, figure 3: one real image far off has a ball that holds samples of no merit."""
    real = torch.cat([gaussian(200, 2, 26), torch.full((1, 2), 60.0)])
    bad = gaussian(200, 2, 27) / 10 + 30
    found = manifolds(bad, real, 3)
    assert found.precision == 1 and found.density == pytest.approx(1 / 3)
    assert found.coverage == pytest.approx(1 / 201)


def test_samples_of_one_mode_cover_half():
    one_mode = gaussian(60, 2, 28)
    found = manifolds(one_mode, torch.cat([one_mode, one_mode + 1000]), 3)
    # A ball holds its centre and three others, the last on its edge, but for the rounding of
    # distances; without the edge the density would be 1.
    assert 1.2 < found.density <= 4 / 3 + 1e-9 and found.coverage == 0.5


def test_samples_that_are_all_one_image_are_of_it():
    """Their balls are points, which hold what lies on them, as torch-fidelity's do."""
    reference = gaussian(60, 2, 29)
    found = manifolds(reference[:1].repeat(10, 1), reference, 3)
    assert found.precision == 1 and found.recall == pytest.approx(1 / 60)


@pytest.mark.parametrize(("samples", "reference"), [(3, 10), (10, 3)])
def test_too_few_neighbours_name_the_numbers(samples, reference):
    with pytest.raises(UserError, match=r"evaluation\.neighbors") as error:
        manifolds(torch.rand(samples, 2), torch.rand(reference, 2), 3)
    assert f"there are {samples} and {reference}" in str(error.value)
    assert "\n" not in str(error.value)
