"""The printed intervals of FID against what they promise, on samples of a trained model.

Samples are drawn once, as two independent pools; each report's sets are chosen from the first
without replacement, a twentieth of it, and the second is the large sample that holds the truth.
"""

import numpy as np
import pytest
import torch

from analysis.exhibits.statistics import half_width, student
from pipeline.config.params import load_params
from pipeline.config.replicates import Replicate
from pipeline.data.seeds import mix
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.fid import fid
from pipeline.evaluation.metrics import fid_infinity, spreads
from pipeline.experiments.rows import open_sampler
from pipeline.runtime.batches import BatchWorkers
from pipeline.sampling import balanced_labels, sample_batches
from tests.tiny_project import CPU

pytestmark = pytest.mark.soak

DRAWS, SEEDS, SAMPLES = 200, 3, 300  # reports, seeds of each, samples of each
HALVES = 20  # behind an interval over images
POOL = 18_000  # of each of the two
BATCH = 600
CLASSES = 10


def fresh(name: str, evaluator: Evaluator) -> torch.Tensor:
    """Features (POOL / 10, 10, F) of samples of the smoke run's MaskGIT, one of each class after
    another."""
    sampler = open_sampler(Replicate("transformer", 0, trained=0), CPU)
    settings, labels = evaluator.params.decoding_settings(), balanced_labels(POOL, CLASSES)
    batches = sample_batches(settings, labels, batch_size=BATCH, seed=mix(0, name))
    found = [evaluator.networks(sampler(*batch))["features"] for batch in batches]
    return torch.cat(found).unflatten(0, (-1, CLASSES))


@pytest.fixture(scope="module")
def drawn(finished):
    """(reports, seeds, samples, F) features, their labels, the reference, FID of the large one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished.folder)
        evaluator = Evaluator(load_params(), BatchWorkers(CPU))
        pool, reference = fresh("draws", evaluator), evaluator.statistics
        truth = fid(fresh("large", evaluator).flatten(0, 1), reference)
    each, chance = SAMPLES // CLASSES, torch.Generator().manual_seed(0)
    sets = []
    for _ in range(DRAWS):
        # Rows of one class are exchangeable, so that each class may have an order of its own.
        order = torch.rand(pool.shape[:2], generator=chance).argsort(dim=0)[: SEEDS * each]
        sets.append(pool.gather(0, order[..., None].expand(-1, -1, pool.shape[-1])))
    drawn = torch.stack(sets).unflatten(1, (SEEDS, each)).flatten(2, 3)
    return drawn, balanced_labels(SAMPLES, CLASSES), reference, truth


@pytest.fixture(scope="module")
def infinite(drawn) -> np.ndarray:
    """FID∞ of each, (reports, seeds)."""
    sets, labels, reference, _ = drawn
    return np.array([[fid_infinity(x, labels, reference, seed=0) for x in s] for s in sets])


def test_intervals_over_seeds_hold_the_fid_of_a_large_sample(drawn, infinite):
    """FID∞'s do: that of the few samples themselves is biased upwards, which Table 1 says."""
    *_, truth = drawn
    held = [abs(np.mean(report) - truth) <= half_width(report) for report in infinite]
    assert 0.90 <= np.mean(held) <= 0.99


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
