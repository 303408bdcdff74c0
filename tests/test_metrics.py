"""Metrics against their formulas, written out with numpy and scipy."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.inception import InceptionScore

from pipeline.evaluation import metrics
from pipeline.evaluation.features import Features
from pipeline.evaluation.metrics import (
    bootstrap,
    class_accuracy,
    density_coverage,
    drawn,
    fid,
    inception_score,
    kid,
    precision_recall,
    sample_metrics,
)
from pipeline.evaluation.statistics import TooFew, load_statistics, statistics
from pipeline.runtime.errors import UserError


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fid_against_published_statistics(tmp_path, dtype):
    samples, reference = gaussian(150, 8, 0), gaussian(210, 8, 1)
    array = reference.double().numpy()
    mu, sigma = array.mean(axis=0).astype(dtype), np.cov(array, rowvar=False).astype(dtype)
    np.savez(tmp_path / "reference.npz", mu=mu, sigma=sigma, mu_s=np.zeros(5))  # as the ADM suite's
    published = load_statistics(tmp_path / "reference.npz")
    assert fid(samples, published) == pytest.approx(fid(samples, reference), rel=1e-4)
    assert fid(samples, statistics(reference)) == fid(samples, reference)


def test_statistics_of_another_extractor_are_refused():
    with pytest.raises(UserError, match="same extractor") as error:
        fid(gaussian(50, 8, 0), statistics(gaussian(50, 5, 1)))
    assert "5-dimensional" in str(error.value) and "8 dimensions" in str(error.value)


def statistics_file(path, kind: str) -> None:
    if kind == "truncated":
        np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "no pair":
        np.savez(path, mu=np.zeros(3))
    elif kind == "two sizes":
        np.savez(path, mu=np.zeros(3), sigma=np.eye(4))
    elif kind == "pickle":
        np.savez(path, mu=np.array([{}], dtype=object), sigma=np.eye(1))
    elif kind == "one array":
        with open(path, "wb") as handle:
            np.save(handle, np.zeros(3))
    elif kind == "text":
        path.write_text("mu 0 sigma 1")


KINDS = ["truncated", "no pair", "two sizes", "pickle", "one array", "text", "missing"]


@pytest.mark.parametrize("kind", KINDS)
def test_bad_statistics_files_give_one_line_that_names_them(tmp_path, kind):
    statistics_file(tmp_path / "statistics.npz", kind)
    with pytest.raises(UserError, match=r"statistics\.npz") as error:
        load_statistics(tmp_path / "statistics.npz")
    assert "\n" not in str(error.value)


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
    density, coverage = density_coverage(samples, reference, neighbors)
    assert density == pytest.approx(balls.sum() / (neighbors * 40), abs=1e-9)
    assert coverage == pytest.approx(balls.any(axis=1).mean(), abs=1e-9)
    assert 0 < coverage < 1


def test_an_outlier_inflates_precision_but_not_density():
    """Naeem 2020, figure 3: one real image far off has a ball that holds samples of no merit."""
    real = torch.cat([gaussian(200, 2, 26), torch.full((1, 2), 60.0)])
    bad = gaussian(200, 2, 27) / 10 + 30
    precision, _ = precision_recall(bad, real, 3)
    density, coverage = density_coverage(bad, real, 3)
    assert precision == 1 and density == pytest.approx(1 / 3) and coverage == pytest.approx(1 / 201)


def test_samples_of_one_mode_cover_half():
    one_mode = gaussian(60, 2, 28)
    density, coverage = density_coverage(one_mode, torch.cat([one_mode, one_mode + 1000]), 3)
    assert density >= 1 and coverage == 0.5


@pytest.mark.parametrize("metric", [precision_recall, density_coverage])
@pytest.mark.parametrize(("samples", "reference"), [(3, 10), (10, 3)])
def test_too_few_neighbours_name_the_numbers(samples, reference, metric):
    with pytest.raises(UserError, match=r"evaluation\.neighbors") as error:
        metric(torch.rand(samples, 2), torch.rand(reference, 2), 3)
    assert f"there are {samples} and {reference}" in str(error.value)
    assert "\n" not in str(error.value)


def test_metrics_are_named_after_their_extractor(make_params):
    features = Features(gaussian(50, 4, 8), gaussian(50, 3, 9))
    settings = make_params(evaluation={"kid_subset_size": 20}).evaluation
    values = sample_metrics(features, features, "classifier", settings, seed=0)
    names = ("fid", "is", "kid", "precision", "recall", "density", "coverage")
    assert set(values) == {f"{name}_classifier" for name in names} | {"kid_classifier_std"}
    assert values["precision_classifier"] == values["recall_classifier"] == 1


def test_metrics_of_few_samples_are_an_error_or_left_out_and_told(make_params, capsys):
    few, many = Features(gaussian(4, 4, 8), gaussian(4, 3, 9)), Features(gaussian(50, 4, 8))
    settings = make_params(evaluation={"kid_subset_size": 20, "neighbors": 2}).evaluation
    with pytest.raises(TooFew, match=r"4 samples .* use at least 5"):
        sample_metrics(few, many, "random", settings, seed=0)
    values = sample_metrics(few, many, "random", settings, seed=0, skip_few=True)
    assert [values[f"{name}_random"] for name in ("fid", "kid", "kid")] == [None] * 3
    assert values["is_random"] >= 1 and values["precision_random"] is not None
    told = capsys.readouterr().out
    assert told.count("not measured: ") == 2 and "kid_subset_size" in told


def test_statistics_are_the_same_whatever_the_blocks(monkeypatch):
    features = gaussian(50, 4, 8).float()
    mu, sigma = features.double().mean(dim=0), torch.cov(features.double().T)
    monkeypatch.setattr("pipeline.evaluation.statistics.BLOCK", 7)
    torch.testing.assert_close(statistics(features).mu, mu)
    torch.testing.assert_close(statistics(features).sigma, sigma)


def test_a_part_is_drawn_in_its_order_and_the_same_again():
    features = torch.arange(100.0)[:, None]
    part = drawn(features, 10, seed=1)
    assert len(part) == 10 and (part.diff(dim=0) > 0).all()
    assert torch.equal(part, drawn(features, 10, seed=1))
    assert not torch.equal(part, drawn(features, 10, seed=2))
    assert drawn(features, 100, seed=1) is features


def test_class_accuracy():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 9.0]])
    assert class_accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75


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
