"""The printed intervals of FID against what they promise, on samples of a trained model.

Samples are drawn once, as two independent pools; each report's sets are chosen from the first
without replacement, a twentieth of it, and the second is the large sample that holds the truth.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.exhibits.statistics import half_width, student
from pipeline.config.params import load_params
from pipeline.data.seeds import mix
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.fid import fid
from pipeline.evaluation.metrics import fid_infinity, spreads
from pipeline.runtime.batches import BatchWorkers
from pipeline.runtime.process import cores
from pipeline.sampling import balanced_labels, sampler
from pipeline.tokenizer import tokens_to_images
from pipeline.weights.published import load_model

pytestmark = pytest.mark.slow

DRAWS, SEEDS, SAMPLES = 200, 3, 300  # reports, seeds of each, samples of each
HALVES = 20  # behind an interval over images
POOL = 18_000  # of each of the two
BATCH = 600
CLASSES = 10


class Model:
    """The smoke run's MaskGIT: features of its samples, and the reference statistics."""

    def __init__(self):
        params, device = load_params(), torch.device("cpu")
        self.evaluator = Evaluator(params, BatchWorkers(device))
        self.reference = self.evaluator.statistics
        model = load_model(Path("models/transformer/main/seed0"), "transformer", device)
        self.tokenizer = load_model(Path("models/tokenizer"), "tokenizer", device)
        self.draw = sampler(model, params.decoding_settings())

    def features(self, name: str) -> torch.Tensor:
        """Features (POOL / 10, 10, F) of fresh samples, one of each class after another."""
        found = []
        with torch.inference_mode():
            for number in range(POOL // BATCH):
                tokens = self.draw(balanced_labels(BATCH, CLASSES), mix(0, name, number))
                images = tokens_to_images(self.tokenizer, tokens)
                found.append(self.evaluator.extractor(images).features)
        return torch.cat(found).unflatten(0, (-1, CLASSES))


@pytest.fixture(scope="module")
def drawn(finished):
    """(reports, seeds, samples, F) features, their labels, the reference, FID of the large one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished.folder)
        model = Model()
        torch.set_num_threads(cores())  # these tensors are large
        pool = model.features("draws")
        truth = fid(model.features("large").flatten(0, 1), model.reference)
        torch.set_num_threads(1)
    each, chance = SAMPLES // CLASSES, torch.Generator().manual_seed(0)
    sets = []
    for _ in range(DRAWS):
        # Rows of one class are exchangeable, so that each class may have an order of its own.
        order = torch.rand(pool.shape[:2], generator=chance).argsort(dim=0)[: SEEDS * each]
        sets.append(pool.gather(0, order[..., None].expand(-1, -1, pool.shape[-1])))
    drawn = torch.stack(sets).unflatten(1, (SEEDS, each)).flatten(2, 3)
    return drawn, balanced_labels(SAMPLES, CLASSES), model.reference, truth


@pytest.fixture(scope="module")
def infinite(drawn) -> np.ndarray:
    """FID∞ of each, (reports, seeds)."""
    sets, labels, reference, _ = drawn
    return np.array([[fid_infinity(x, labels, reference, seed=0) for x in s] for s in sets])


def test_intervals_over_seeds_hold_the_fid_of_a_large_sample(drawn, infinite):
    """FID∞'s do: that of the few samples themselves is biased upwards, which Table 1 says."""
    *_, truth = drawn
    assert 0.90 <= np.mean([holds(report, truth) for report in infinite]) <= 0.99


def test_intervals_over_seeds_hold_the_mean_fid_of_as_many_samples(drawn):
    sets, _, reference, _ = drawn
    values = np.array([[fid(x, reference) for x in report] for report in sets])
    truth = values.mean()
    assert 0.90 <= np.mean([holds(report, truth) for report in values]) <= 0.99


def test_intervals_over_images_hold_the_fid_of_a_large_sample(drawn, infinite):
    """FID∞'s do, and those of FID hold the mean FID of as many samples."""
    sets, labels, reference, truth = drawn
    values, widths = [], []
    for x in sets[:, 0]:
        halves = spreads(
            lambda rows, x=x: {"fid": fid(x[rows], reference)}, labels, repeats=HALVES, seed=0
        )
        values.append(fid(x, reference))
        widths.append(student(HALVES) * halves["fid_std"])
    held = np.abs(infinite[:, 0] - truth) <= widths
    assert 0.90 <= held.mean() <= 0.99
    held = np.abs(np.array(values) - np.mean(values)) <= widths
    assert 0.90 <= held.mean() <= 0.99


def holds(values, truth: float) -> bool:
    """Whether the printed interval of a mean over seeds has the truth in it."""
    return abs(np.mean(values) - truth) <= half_width(values)
