"""NaN is refused where it would be published, decoded or shown."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.evaluation.statistics import load_statistics
from pipeline.runtime.errors import UserError
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import load_model, save_model
from tests.errors import one_line
from tests.pretrained_files import PUBLISHED


def broken(network: torch.nn.Module, name: str, value: float) -> torch.nn.Module:
    """The network with the value in place of a tensor's first weight."""
    with torch.no_grad():
        dict(network.named_parameters())[name].flatten()[0] = value
    return network.eval()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_model_is_published_with_finite_weights_only(tmp_path, value):
    good = MaskGitTransformer(PUBLISHED)
    save_model(tmp_path / "model", "transformer", PUBLISHED, good.state_dict())
    before = (tmp_path / "model/model.safetensors").read_bytes()
    bad = broken(good, "blocks.0.mlp_in.weight", value)
    with pytest.raises(UserError, match=r"blocks\.0\.mlp_in\.weight.*not published") as error:
        save_model(tmp_path / "model", "transformer", PUBLISHED, bad.state_dict())
    one_line(error)
    assert (tmp_path / "model/model.safetensors").read_bytes() == before
    load_model(tmp_path / "model", "transformer")


def covariance(size: int = 6) -> np.ndarray:
    return np.cov(np.random.default_rng(0).normal(size=(40, size)), rowvar=False)


def changed(kind: str) -> dict[str, np.ndarray]:
    mu, sigma = np.zeros(6), covariance()
    if kind in ("nan", "inf"):
        sigma[2, 2] = float(kind)
    elif kind == "nan mean":
        mu[3] = np.nan
    elif kind == "asymmetric":
        sigma[0, 1] += 0.5
    elif kind == "negative variance":
        sigma[4, 4] = -1
    elif kind == "negative direction":  # every variance is positive, and one of a sum is not
        sigma[0, 1] = sigma[1, 0] = 2 * max(sigma[0, 0], sigma[1, 1])
    elif kind == "complex":
        sigma = sigma + 0.1j
    elif kind == "text":
        mu = np.array(["a"] * 6)
    elif kind == "empty":
        mu, sigma = np.zeros(0), np.zeros((0, 0))
    return {"mu": mu, "sigma": sigma}


KINDS = ("nan", "inf", "nan mean", "asymmetric", "negative variance", "negative direction")


@pytest.mark.parametrize("kind", [*KINDS, "complex", "text", "empty"])
def test_statistics_that_are_no_covariance_are_refused(tmp_path, kind):
    path: Path = tmp_path / "statistics.npz"
    np.savez(path, **changed("good"))
    load_statistics(path)
    np.savez(path, **changed(kind))
    with pytest.raises(UserError, match=r"statistics\.npz.*(replace the file|an \.npz with both)"):
        load_statistics(path)


def test_statistics_of_fewer_images_than_dimensions_are_covariances(tmp_path):
    """Rounded to float32 they have tiny negative eigenvalues."""
    sigma = np.cov(np.random.default_rng(0).normal(size=(20, 64)), rowvar=False)
    sigma = sigma.astype(np.float32)
    assert np.linalg.eigvalsh(sigma.astype(np.float64)).min() < 0
    np.savez(tmp_path / "few.npz", mu=np.zeros(64), sigma=sigma)
    assert load_statistics(tmp_path / "few.npz").sigma.shape == (64, 64)
