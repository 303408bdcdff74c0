"""Features of image sets in files, made in parts, which a killed run finds again."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config.paths import FEATURES, IMAGES
from pipeline.evaluation.feature_files import (
    reference_features,
    reference_statistics,
    stored_tensors,
)
from pipeline.evaluation.image_sets import CenterCrops
from pipeline.runtime.batches import Maker
from tests.images import noise_array
from tests.tiny_project import ALONE, classified, training_images, with_params

COUNT = 1200  # images, of which a part has 512
ARRAY = noise_array(COUNT, 1)


class Pixels:
    """Returns the pixels, and two of them; killed when it is shown more than `left` images."""

    def __init__(self, left: int = 10**6):
        self.left = left

    def __call__(self, start: int, stop: int) -> dict[str, Tensor]:
        pixels = torch.from_numpy(ARRAY[start:stop]).flatten(1).float()
        self.left -= len(pixels)
        if self.left < 0:
            raise KeyboardInterrupt
        return {"features": pixels, "logits": pixels[:, :2].clone()}


def stored(folder: Path, look: Pixels) -> dict[str, Tensor]:
    return stored_tensors(folder, COUNT, ALONE, Maker(Pixels, here=look), "pixels")


def test_killed_extraction_goes_on_with_its_part_and_is_done_once(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path / "set", Pixels(left=1100))  # in the third part of 512
    rest = Pixels(left=COUNT - 1024)
    found = stored(tmp_path / "set", rest)
    assert rest.left == 0 and "going on from batch 2 of 3" in capsys.readouterr().out
    np.testing.assert_array_equal(found["features"], ARRAY.reshape(COUNT, -1))
    np.testing.assert_array_equal(found["logits"], ARRAY.reshape(COUNT, -1)[:, :2])
    again = stored(tmp_path / "set", Pixels(left=0))
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert {path.name for path in tmp_path.rglob("*")} == {"set", "features.npy", "logits.npy"}


def test_crops_that_travel_to_a_worker_are_read_from_any_image_on(in_tiny_project):
    images = CenterCrops(IMAGES, "train", with_params().data)
    sent = pickle.loads(pickle.dumps(images))
    assert len(sent) == 60 and torch.equal(sent.read(3, 13), training_images()[3:13])


def test_the_reference_is_of_the_training_images(in_tiny_project):
    features, _ = classified(training_images().numpy())
    np.testing.assert_allclose(reference_features("classifier"), features, rtol=1e-5, atol=1e-5)
    mu, sigma = reference_statistics(with_params())
    np.testing.assert_allclose(mu, features.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(sigma, np.cov(features.T), rtol=1e-4, atol=1e-6)
    assert {path.name for path in FEATURES.iterdir()} == {"classifier", "random"}
