"""Whether the printed intervals of FID contain the true FID in about 95% of reports.

Two independent pools of a trained model's samples are drawn once. The sets of each report, a
twentieth of the first pool, are chosen without replacement. The second pool gives the true FID.
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

DRAWS, SEEDS, SAMPLES = 200, 3, 300  # reports, seeds per report, samples per seed
HALVES = 20  # random halves for an interval over images
POOL = 18_000  # samples in each of the two pools
BATCH = 600
CLASSES = 10


def fresh(name: str, evaluator: Evaluator) -> torch.Tensor:
    """Return features (POOL / 10, classes, F) of samples of the smoke run's MaskGIT."""
    sampler = open_sampler(Replicate("transformer", 0, trained=0), CPU)
    settings, labels = evaluator.params.decoding_settings(), balanced_labels(POOL, CLASSES)
    batches = sample_batches(settings, labels, batch_size=BATCH, seed=mix(0, name))
    found = [evaluator.networks(sampler(*batch))["features"] for batch in batches]
    return torch.cat(found).unflatten(0, (-1, CLASSES))


@pytest.fixture(scope="module")
def drawn(finished):
    """Features (reports, seeds, samples, F), labels of a set, the reference, and the true FID."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished.folder)
        evaluator = Evaluator(load_params(), BatchWorkers(CPU))
        pool, reference = fresh("draws", evaluator), evaluator.statistics
        truth = fid(fresh("large", evaluator).flatten(0, 1), reference)
    each, chance = SAMPLES // CLASSES, torch.Generator().manual_seed(0)
    sets = []
    for _ in range(DRAWS):
        # Samples of one class are exchangeable, so each class is shuffled separately.
        order = torch.rand(pool.shape[:2], generator=chance).argsort(dim=0)[: SEEDS * each]
        sets.append(pool.gather(0, order[..., None].expand(-1, -1, pool.shape[-1])))
    drawn = torch.stack(sets).unflatten(1, (SEEDS, each)).flatten(2, 3)
    return drawn, balanced_labels(SAMPLES, CLASSES), reference, truth


def test_intervals_over_seeds_hold_the_fid_of_a_large_sample(drawn):
    """The intervals are of FID∞: the FID of few samples is biased upwards, as Table 1 says."""
    sets, labels, reference, truth = drawn
    reports = [[fid_infinity(x, labels, reference, seed=0) for x in seeds] for seeds in sets]
    held = [abs(np.mean(report) - truth) <= half_width(np.array(report)) for report in reports]
    assert 0.90 <= np.mean(held) <= 0.99


def test_intervals_over_images_hold_the_mean_fid_of_sets_of_the_same_size(drawn):
    sets, labels, reference, _ = drawn
    values, widths = [], []
    for x in sets[:, 0]:
        halves = spreads(
            lambda rows, x=x: {"fid": fid(x[rows], reference)}, labels, repeats=HALVES, seed=0
        )
        values.append(fid(x, reference))
        widths.append(student(HALVES) * halves["fid_std"])
    held = np.abs(np.array(values) - np.mean(values)) <= widths
    assert 0.90 <= held.mean() <= 0.99
