"""Finished networks are measured on all validation data in batches, which workers may share: the
bits are those of one pass."""

from pathlib import Path

import pytest
import torch

from pipeline.autoregressive import token_nll
from pipeline.config.paths import CLASSIFIER, IMAGES, TOKENIZER, TOKENS
from pipeline.config.replicates import main_replicates
from pipeline.data.images.shards import ImageShards, View
from pipeline.data.tokens import TokenCache
from pipeline.evaluation import reconstruction
from pipeline.masking import masked_nll
from pipeline.training import classifier, likelihood
from pipeline.weights.published import load_model
from tests.tiny_project import ALONE, CPU, with_params, write_tokens

BATCH = 7  # images of a batch here, so that there are several


@pytest.fixture(autouse=True)
def project(in_tiny_project, monkeypatch) -> None:
    """The tiny project with validation tokens of noise, measured in small batches."""
    for module in (reconstruction, classifier, likelihood):
        monkeypatch.setattr(module, "BATCH", BATCH)
    if not TOKENS.exists():
        write_tokens()


def of_one_pass(network: str):
    images, params = View(ImageShards(IMAGES, "val"), with_params().data), with_params()
    batches = map(images.centers, torch.arange(len(images.images)).split(BATCH))
    if network == "tokenizer":
        model = load_model(TOKENIZER, "tokenizer")
        totals = (reconstruction.rebuild(model, batch, CPU)[1] for batch in batches)
        return reconstruction.quality(sum(totals))
    if network == "classifier":
        model, labels = load_model(CLASSIFIER, "classifier"), torch.from_numpy(images.images.labels)
        return classifier.accuracy(model, batches, labels, CPU)
    replicate, tokens = main_replicates(params, network)[1], TokenCache(TOKENS, "val")
    given = (load_model(replicate.folder, network), *tokens.everything())
    if network == "autoregressive":
        return token_nll(*given, batch_size=BATCH)
    schedule = params.training.mask_schedule
    return masked_nll(*given, schedule=schedule, batch_size=BATCH, seed=replicate.seed)


def in_batches(network: str, parts: Path):
    params = with_params()
    if network == "tokenizer":
        return reconstruction.held_out_quality(TOKENIZER, params, parts, ALONE)
    if network == "classifier":
        return classifier.held_out_accuracy(CLASSIFIER, params, parts, ALONE)
    replicate = main_replicates(params, network)[1]
    given = (network, replicate.folder, params, replicate.seed)
    return likelihood.held_out_nll(*given, parts, ALONE)


@pytest.mark.parametrize("network", ["tokenizer", "classifier", "transformer", "autoregressive"])
def test_a_measurement_in_batches_has_the_bits_of_one_pass(network, tmp_path):
    parts = tmp_path / "run"
    assert in_batches(network, parts) == of_one_pass(network)
    assert list(parts.iterdir()) == []
