"""Features of many images: made in parts, taken up again, and kept on the disk."""

import pickle

import numpy as np
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
from tests.images import noise_array
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


def test_statistics_are_computed_once(tmp_path, monkeypatch):
    images, computed = ArrayImages(noise_array(200, 1)), []

    def counted(features: torch.Tensor):
        computed.append(len(features))
        return plain(features)

    plain = feature_files.statistics
    monkeypatch.setattr(feature_files, "statistics", counted)
    features = cached_features(images, Pixels(), tmp_path).features
    path = features_path(images, Pixels(), tmp_path)
    found = [kept_statistics(path) for _ in range(3)]
    assert computed == [200]
    for mu, sigma in found:
        np.testing.assert_allclose(mu, features.double().mean(dim=0), rtol=1e-12)
        np.testing.assert_allclose(sigma, np.cov(features.double().T), rtol=1e-9, atol=1e-9)
