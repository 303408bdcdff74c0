"""Finished networks are measured on all validation data in batches. Several workers give the same
bits as one."""

from functools import partial

import pytest
import torch

from pipeline.autoregressive import token_nll
from pipeline.config.paths import CLASSIFIER, IMAGES, TOKENIZER, TOKENS
from pipeline.config.replicates import NETWORKS, main_replicates
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
    """The tiny project with random validation tokens, measured in small batches."""
    for module in (reconstruction, classifier, likelihood):
        monkeypatch.setattr(module, "BATCH", BATCH)
    if not TOKENS.exists():
        write_tokens()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_likelihood_in_batches_has_the_bits_of_one_pass(network, tmp_path):
    training = {"min_masking_rate": 0.4, "mask_schedule": "logarithmic"}
    params, tokens = with_params(training=training), TokenCache(TOKENS, "val").everything()
    replicate = main_replicates(params, network)[1]
    one = token_nll
    if network == "transformer":
        how = {"schedule": "logarithmic", "min_masking_rate": 0.4}
        one = partial(masked_nll, **how, seed=replicate.seed)
    given = (network, replicate.folder, params, replicate.seed)
    found = likelihood.held_out_nll(*given, tmp_path / "run", ALONE)
    assert found == one(load_model(replicate.folder, network), *tokens, batch_size=BATCH)
    assert list((tmp_path / "run").iterdir()) == []


def test_quality_and_accuracy_in_batches_have_the_bits_of_one_pass(tmp_path):
    params, images = with_params(), ImageShards(IMAGES, "val")
    view = View(images, params.data)
    batches = [view.centers(rows) for rows in torch.arange(len(images)).split(BATCH)]
    tokenizer, model = load_model(TOKENIZER, "tokenizer"), load_model(CLASSIFIER, "classifier")
    total = sum(reconstruction.rebuild(tokenizer, batch, CPU)[1] for batch in batches)
    found = reconstruction.held_out_quality(TOKENIZER, params, tmp_path / "a", ALONE)
    assert found == reconstruction.quality(total)
    found = classifier.held_out_accuracy(CLASSIFIER, params, tmp_path / "b", ALONE)
    assert found == classifier.accuracy(model, batches, torch.from_numpy(images.labels), CPU)
