"""Features of many images: made in parts, taken up again, and kept on the disk."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.paths import IMAGES
from pipeline.evaluation import feature_files
from pipeline.evaluation import images as image_sets
from pipeline.evaluation.feature_files import (
    Extraction,
    cached_features,
    features_path,
    kept_statistics,
)
from pipeline.evaluation.features import Features
from pipeline.evaluation.images import ArrayImages, CenterCrops
from pipeline.runtime.checksums import note_hash
from tests.damage import empty, flip, no_file
from tests.images import noise_array, save_features
from tests.tiny_project import with_params


class Pixels:
    """The pixels themselves, and two of them as logits; killed when it is shown so many images."""

    name, identity = "pixels", "first"

    def __init__(self, most: int = 10**6):
        self.left = most

    def __call__(self, images: torch.Tensor) -> Features:
        self.left -= len(images)
        if self.left < 0:
            raise KeyboardInterrupt
        pixels = images.flatten(1).float()
        return Features(pixels, pixels[:, :2])


def test_a_worker_that_makes_a_part_hashes_no_image_set(in_tiny_project, monkeypatch):
    """It would read all of the images first, and each worker again."""

    def hashed(*_):
        raise AssertionError("an image set was hashed")

    array = ArrayImages(noise_array(200, 1))
    crops = CenterCrops(IMAGES, "train", with_params().data)
    monkeypatch.setattr(image_sets, "pixel_hash", hashed)
    monkeypatch.setattr(image_sets, "tree_hash", hashed)
    for images in (array, crops):
        sent = pickle.loads(pickle.dumps(images))
        part = Extraction(Pixels(most=10), sent)(3, 13)
        assert torch.equal(part["features"], images.read(3, 13).flatten(1).float())


def test_statistics_are_computed_once_and_again_where_they_are_damaged(tmp_path, monkeypatch):
    images, computed = ArrayImages(noise_array(200, 1)), []

    def counted(features: torch.Tensor):
        computed.append(len(features))
        return plain(features)

    plain = feature_files.statistics
    monkeypatch.setattr(feature_files, "statistics", counted)
    features = cached_features(images, Pixels(), tmp_path).features
    path = features_path(images, Pixels(), tmp_path)
    found = [kept_statistics(path) for _ in range(3)]
    (kept,) = tmp_path.glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:-9])
    found.append(kept_statistics(path))
    assert computed == [200, 200]
    for mu, sigma in found:
        np.testing.assert_allclose(mu, features.double().mean(dim=0), rtol=1e-12)
        np.testing.assert_allclose(sigma, np.cov(features.double().T), rtol=1e-9, atol=1e-9)


COUNT, WIDTH = 200, 35  # of noise_array's images
FEATURES: dict[str, Callable[[Features], Features]] = {
    "half": lambda f: Features(f.features[:100].clone(), f.class_logits[:100].clone()),
    "3": lambda f: Features(f.features[:3].clone(), f.class_logits[:3].clone()),
    "none": lambda f: Features(f.features[:0].clone(), f.class_logits[:0].clone()),
    "no logits": lambda f: Features(f.features.clone()),
    "narrow": lambda f: Features(f.features[:, :9].clone(), f.class_logits.clone()),
    "other logits": lambda f: Features(f.features.clone(), f.features.clone()),
    "NaN": lambda f: Features(f.features * torch.nan, f.class_logits.clone()),
}


@pytest.mark.parametrize("change", FEATURES)
def test_features_that_are_not_of_the_images_are_made_again(tmp_path, capsys, change):
    images = ArrayImages(noise_array(COUNT, 1))
    path = features_path(images, Pixels(), tmp_path)
    whole = cached_features(images, Pixels(), tmp_path)
    before = path.read_bytes()
    save_features(FEATURES[change](whole), path)
    note_hash(path)
    capsys.readouterr()
    found = cached_features(images, Pixels(), tmp_path)
    assert path.read_bytes() == before and found.features.shape == (COUNT, WIDTH)
    lines = capsys.readouterr().out.splitlines()
    assert sum(path.name in line and "is made again" in line for line in lines) == 1


def statistics(path: Path, change: Callable[[dict], dict]) -> None:
    with np.load(path) as archive:
        arrays = change(dict(archive))
    np.savez(path, **arrays)
    note_hash(path)


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def instead(what: str) -> Callable[[Path], object]:
    """Puts what is no file in a file's place."""

    def put(path: Path) -> None:
        path.unlink()
        no_file(what, path)

    return put


DAMAGED: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "empty": empty,
    "dangling": dangle,
    **{what: instead(what) for what in ("folder", "fifo", "zero")},
    "huge": lambda p: statistics(p, lambda a: {k: v * 1e300 for k, v in a.items()}),
    "no sigma": lambda p: statistics(p, lambda a: {"mu": a["mu"]}),
    "complex": lambda p: statistics(p, lambda a: {k: v + 1j for k, v in a.items()}),
    "narrow": lambda p: statistics(p, lambda a: {"mu": a["mu"][:9], "sigma": a["sigma"][:9, :9]}),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_statistics_that_are_damaged_are_made_again_and_a_line_says_so(tmp_path, capsys, damage):
    images = ArrayImages(noise_array(COUNT, 1))
    path = features_path(images, Pixels(), tmp_path)
    cached_features(images, Pixels(), tmp_path)
    wanted = kept_statistics(path)
    (kept,) = tmp_path.glob("*.npz")
    DAMAGED[damage](kept)
    capsys.readouterr()
    found = kept_statistics(path)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    (line,) = capsys.readouterr().out.splitlines()
    assert kept.name in line and "is made again" in line
    assert kept.is_file() and not kept.is_symlink()
