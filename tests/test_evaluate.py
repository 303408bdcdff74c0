"""The stage of Table 1: what is measured of samples, reconstructions and real images."""

import math

import numpy as np
import pytest
import torch

from pipeline.config.paths import SAMPLES, TOKENIZER, TOKENS
from pipeline.evaluation.reconstruction import Reconstruction
from pipeline.experiments.evaluate import measuring as evaluate
from pipeline.experiments.evaluate.measuring import evaluate_all
from pipeline.weights.published import load_model
from tests.images import write_token_cache
from tests.tiny_project import (
    CLASSES,
    CODES,
    CPU,
    GRID,
    SIDE,
    VAL,
    Dies,
    check_scores,
    frechet,
    validation,
    with_params,
)

COUNT = 40


def params(**evaluation):
    sizes = {"samples": COUNT, "kid_subset_size": 10, "bootstrap": 3}
    return with_params(evaluation=sizes | evaluation, cas={"samples": COUNT})


@pytest.fixture(autouse=True)
def tokens(in_tiny_project):
    """A cache of noise."""
    if not TOKENS.exists():
        noise = np.random.default_rng(0).integers(0, CODES, (VAL, 1, GRID**2))
        labels = np.arange(VAL) % CLASSES
        splits = ("train", "val")
        write_token_cache(TOKENS, {s: [noise] for s in splits}, dict.fromkeys(splits, labels))


def test_every_set_is_measured_in_the_same_way(tmp_path):
    metrics = evaluate_all(params(), tmp_path, CPU)
    assert list(metrics) == ["transformer", "autoregressive", "reconstruction", "real"]
    common = set.intersection(*map(set, metrics.values()))
    assert common == set(metrics["real"]) and len(common) > 10
    for network in ("transformer", "autoregressive"):
        own = set(metrics[network]) - common
        assert own == {"nll", "parameters", "steps"}
        images, labels = (np.load(SAMPLES / network / f"{x}.npy") for x in ("images", "labels"))
        assert images.shape == (COUNT, 1, SIDE, SIDE)
        check_scores(metrics[network], images, torch.from_numpy(labels))
    assert metrics["transformer"]["steps"] == 3 and metrics["autoregressive"]["steps"] == GRID**2
    images, labels = validation(VAL)
    check_scores(metrics["real"], images.numpy(), labels)
    assert all(math.isfinite(value) for row in metrics.values() for value in row.values())


def test_rfid_is_the_distance_of_reconstructions_from_the_images_that_they_are_of(tmp_path):
    """Not from the training images, which FID is against."""
    row = evaluate_all(params(), tmp_path, CPU)["reconstruction"]
    images, labels = validation(VAL)
    rebuilt = Reconstruction(load_model(TOKENIZER, "tokenizer"), CPU)(images).numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "reconstruction.npy"), rebuilt)
    check_scores(row, rebuilt, labels)
    assert row["rfid_classifier"] == pytest.approx(frechet(rebuilt, images.numpy()), rel=1e-3)
    assert row["rfid_classifier"] != pytest.approx(row["fid_classifier"], rel=0.05)


def test_killed_evaluation_makes_no_batch_twice(tmp_path, monkeypatch):
    """Of four batches a network the first three of the first are there after the kill."""
    straight, drawn = evaluate_all(params(), tmp_path / "straight", CPU), []
    sampler = evaluate.sampler

    def run(most: int):
        def dying(*args):
            drawn.append(Dies(sampler(*args), calls=most))
            return drawn[-1]

        with monkeypatch.context() as patch:
            patch.setattr(evaluate, "sampler", dying)
            return evaluate_all(params(), tmp_path / "killed", CPU)

    with pytest.raises(KeyboardInterrupt):
        run(most=3)
    drawn.clear()
    assert run(most=9) == straight
    assert [9 - draw.left for draw in drawn] == [1, 4]
