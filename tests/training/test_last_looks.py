"""The look at all validation data of a network that is finished, shared over workers: the bits of
one process that looks at all."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.autoregressive import token_nll
from pipeline.config.paths import CLASSIFIER, IMAGES, TOKENIZER, TOKENS
from pipeline.config.replicates import main_replicates
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import View
from pipeline.data.tokens import TokenCache
from pipeline.evaluation import reconstruction
from pipeline.masking import masked_nll
from pipeline.runtime.batches import BatchWorkers
from pipeline.training import classifier, likelihood
from pipeline.weights.published import load_model
from tests.images import write_token_cache
from tests.tiny_project import ALONE, CLASSES, CODES, CPU, GRID, with_params

BATCH = 7  # images of a batch here, so that there are several
SPLIT = 23  # validation tokens


@pytest.fixture(autouse=True)
def project(tiny_project, tmp_path, monkeypatch) -> Path:
    """A copy of the tiny project with validation tokens of noise, looked at in small batches."""
    folder = shutil.copytree(tiny_project, tmp_path / "project")
    monkeypatch.chdir(folder)
    for module in (reconstruction, classifier, likelihood):
        monkeypatch.setattr(module, "BATCH", BATCH)
    shutil.rmtree(TOKENS, ignore_errors=True)
    noise, labels = np.random.default_rng(0), np.arange(SPLIT) % CLASSES
    splits = {k: [noise.integers(0, CODES, (SPLIT, 1, GRID**2))] for k in ("train", "val")}
    write_token_cache(TOKENS, splits, dict.fromkeys(splits, labels), CODES)
    return folder


def images() -> View:
    return View(ImageShards(IMAGES, "val"), with_params().data)


def quality_of_one() -> dict[str, float]:
    model, batches = load_model(TOKENIZER, "tokenizer"), images().batches(BATCH)
    return reconstruction.quality(
        sum(reconstruction.rebuild(model, batch, CPU)[1] for batch in batches)
    )


def accuracy_of_one() -> tuple[float, float]:
    model, labels = load_model(CLASSIFIER, "classifier"), torch.from_numpy(images().images.labels)
    return classifier.accuracy(model, images().batches(BATCH), labels, CPU)


def nll_of_one(network: str) -> float:
    replicate, tokens = main_replicates(with_params(), network)[1], TokenCache(TOKENS, "val")
    given = (load_model(replicate.folder, network), *tokens.everything())
    if network == "autoregressive":
        return token_nll(*given, batch_size=BATCH)
    schedule = with_params().training.mask_schedule
    return masked_nll(*given, schedule=schedule, batch_size=BATCH, seed=replicate.seed)


def nll_of(network: str, parts: Path, workers: BatchWorkers) -> float:
    replicate, params = main_replicates(with_params(), network)[1], with_params()
    given = (network, replicate.folder, params, replicate.seed)
    return likelihood.held_out_nll(*given, parts, workers)


def quality_of(*where) -> dict[str, float]:
    return reconstruction.held_out_quality(TOKENIZER, with_params(), *where)


LOOKS: dict[str, tuple[Callable, Callable]] = {
    "tokenizer": (quality_of_one, quality_of),
    "classifier": (
        accuracy_of_one,
        lambda *where: classifier.held_out_accuracy(CLASSIFIER, with_params(), *where),
    ),
    "transformer": (
        lambda: nll_of_one("transformer"),
        lambda *where: nll_of("transformer", *where),
    ),
    "autoregressive": (
        lambda: nll_of_one("autoregressive"),
        lambda *where: nll_of("autoregressive", *where),
    ),
}


@pytest.mark.parametrize("network", LOOKS)
def test_a_look_in_batches_has_the_bits_of_one_pass(network, tmp_path):
    of_one, looked = LOOKS[network]
    parts, wanted = tmp_path / "run", of_one()
    assert looked(parts, ALONE) == wanted
    assert list((tmp_path / "run").iterdir()) == []
