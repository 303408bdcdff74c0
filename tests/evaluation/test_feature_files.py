"""Features of image sets in files: made in parts, which a killed run finds again, and never in
memory all at once."""

import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.paths import FEATURES, IMAGES
from pipeline.evaluation.feature_files import (
    compute_part,
    reference_features,
    reference_statistics,
    stored_tensors,
)
from pipeline.evaluation.image_sets import ArrayImages, CenterCrops
from pipeline.runtime.batches import Maker
from pipeline.runtime.errors import UserError
from tests.images import noise_array
from tests.project import ROOT
from tests.tiny_project import ALONE, classified, training_images, with_params

COUNT = 1200  # images, of which a part has 512
ARRAY = noise_array(COUNT, 1)


class Pixels:
    """Returns the pixels, and two of them; killed when it is shown more than `left` images."""

    def __init__(self, left: int = 10**6):
        self.left = left

    def __call__(self, batches) -> dict[str, torch.Tensor]:
        pixels = torch.cat(list(batches)).flatten(1).float()
        self.left -= len(pixels)
        if self.left < 0:
            raise KeyboardInterrupt
        return {"features": pixels, "logits": pixels[:, :2].clone()}


def stored(folder: Path, look: Pixels) -> dict[str, torch.Tensor]:
    part = partial(compute_part, ArrayImages(ARRAY), look)
    return stored_tensors(folder, COUNT, ALONE, Maker(partial, here=part), "pixels")


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


def test_damaged_features_are_named(tmp_path):
    stored(tmp_path / "set", Pixels())
    (tmp_path / "set/features.npy").write_bytes(b"no features")
    with pytest.raises(UserError, match="delete it and run again") as error:
        stored(tmp_path / "set", Pixels())
    assert error.value.subject == str(tmp_path / "set/features.npy")


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


MEASURED = """
import sys, threading
from pathlib import Path
import torch
from functools import partial
from pipeline.evaluation.feature_files import compute_part, stored_tensors
from pipeline.evaluation.image_files import open_images
from pipeline.runtime.batches import BatchWorkers, Maker

def wide(batches):
    return {"features": torch.cat([x[:, 0, 0, :1].float().expand(-1, 2048) for x in batches])}

def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024

images = open_images(sys.argv[1])
before, peak, done = anonymous(), 0.0, threading.Event()
def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, anonymous())
thread = threading.Thread(target=watch)
thread.start()
maker = Maker(partial, here=partial(compute_part, images, wide))
stored_tensors(Path("stored"), len(images), BatchWorkers(torch.device("cpu")), maker, "wide")
done.set()
thread.join()
print(peak - before)
"""
MANY = 20_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_features_of_many_images_are_never_in_memory_at_once(suffix, tmp_path):
    """Those of 20,000 images have 156 MiB."""
    save = np.save if suffix == ".npy" else np.savez_compressed
    shape = (MANY, 3, 2, 2) if suffix == ".npy" else (MANY, 2, 2, 3)
    save(tmp_path / f"set{suffix}", np.zeros(shape, np.uint8))
    command = (sys.executable, "-c", MEASURED, str(tmp_path / f"set{suffix}"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert float(result.stdout.splitlines()[-1]) < 64  # MiB
