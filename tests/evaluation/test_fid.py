"""FID against the formula of the Fréchet distance, and the statistics that define FID."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_statistics_to_metric

from pipeline.evaluation.fid import fid, load_statistics, statistics
from tests.errors import refused
from tests.evaluation.test_metrics import gaussian


def test_fid_is_the_frechet_distance():
    samples, reference = gaussian(150, 8, 0), gaussian(210, 8, 1, shift=0.5)
    a, b = samples.double().numpy(), reference.double().numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert fid(samples, reference) == pytest.approx(wanted, rel=1e-6)
    assert fid(samples, reference) == pytest.approx(fid(reference, samples), rel=1e-6)
    assert fid(samples, samples) == pytest.approx(0, abs=1e-4)
    assert fid(samples + 3, samples) == pytest.approx(8 * 9, rel=1e-4)


@pytest.mark.parametrize("rank", [3, 8])
def test_fid_is_that_of_torch_fidelity(rank):
    """This also holds for features with a covariance of rank 3 in 8 dimensions."""
    few = gaussian(8, 8, 5).double()[:rank]
    samples, reference = (gaussian(200, rank, seed).double() @ few for seed in (3, 4))
    pair = (statistics(samples), statistics(reference))
    arrays = ({"mu": s.mu.numpy(), "sigma": s.sigma.numpy()} for s in pair)
    wanted = fid_statistics_to_metric(*arrays, verbose=False)["frechet_inception_distance"]
    assert fid(samples, pair[1]) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("samples", "reference"), [(8, 50), (50, 8)])
def test_fid_of_too_few_samples_names_the_numbers(samples, reference):
    with refused(reason="8 images", way_out="at least 9"):
        fid(torch.rand(samples, 8), torch.rand(reference, 8))


def test_fid_against_published_statistics(tmp_path):
    samples, reference = gaussian(150, 8, 0), gaussian(210, 8, 1)
    array = reference.double().numpy()
    mu, sigma = array.mean(axis=0).astype(np.float32), np.cov(array, rowvar=False)
    np.savez(tmp_path / "reference.npz", mu=mu, sigma=sigma, mu_s=np.zeros(5))  # as in ADM's files
    published = load_statistics(tmp_path / "reference.npz")
    assert fid(samples, published) == pytest.approx(fid(samples, reference), rel=1e-4)


ARRAYS = {
    "no pair": {"mu": np.zeros(3)},
    "two sizes": {"mu": np.zeros(3), "sigma": np.eye(4)},
    "pickle": {"mu": np.array([{}], dtype=object), "sigma": np.eye(1)},
    "NaN": {"mu": np.zeros(3), "sigma": np.eye(3) * np.nan},
    "text": {"mu": np.array(["a"] * 3), "sigma": np.eye(3)},
}


@pytest.mark.parametrize("kind", ["missing", "truncated", "one array", *ARRAYS])
def test_bad_statistics_files_are_named(tmp_path, kind):
    path = tmp_path / "statistics.npz"
    if kind == "truncated":
        np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "one array":
        with open(path, "wb") as handle:
            np.save(handle, np.zeros(3))
    elif kind != "missing":
        np.savez(path, **ARRAYS[kind])
    with refused(path):
        load_statistics(path)


def test_statistics_are_the_same_whatever_the_blocks(monkeypatch):
    features = gaussian(50, 4, 8).float()
    mu, sigma = features.double().mean(dim=0), torch.cov(features.double().T)
    monkeypatch.setattr("pipeline.evaluation.fid.BLOCK", 7)
    torch.testing.assert_close(statistics(features).mu, mu)
    torch.testing.assert_close(statistics(features).sigma, sigma)
