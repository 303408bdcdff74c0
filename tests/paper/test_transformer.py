"""The transformer against values of the authors' code; its size and its loss."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.released.checkpoint import load_pretrained
from tests.release import FOLDER, expected
from tests.tiny_networks import TINY, inputs

RELEASED = TransformerConfig(
    num_tokens=16, codebook_size=64, num_classes=10, layers=3, hidden=32, heads=4, mlp=64, dropout=0
)


def test_logits_match_the_release():
    model = load_pretrained(FOLDER / "transformer_tiny_checkpoint", RELEASED)
    arrays = expected()
    ids = torch.from_numpy(arrays["ids"]).long()
    assert (ids == -1).any()
    with torch.no_grad():
        logits = model.logits(model.encode(ids.where(ids >= 0, RELEASED.mask_id)))
        labels, mask = ids[:, 0] - RELEASED.codebook_size, ids[:, 1:] == -1
        predicted = model.predict(ids[:, 1:], mask, labels)
    wanted = torch.from_numpy(arrays["logits"])
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(predicted, wanted[:, 1:, :64], atol=1e-4, rtol=0)


def test_parameter_count_at_the_papers_size():
    with torch.device("meta"):
        model = MaskGitTransformer(TransformerConfig(256, 1024, 1000, 24, 768, 8, 3072, 0.1))
    assert sum(p.numel() for p in model.parameters()) == 172_457_193


def test_initialization():
    torch.manual_seed(0)
    model = MaskGitTransformer(replace(TINY, hidden=96, codebook_size=200)).eval()
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            assert not value.any(), name
        elif "norm" not in name:
            assert value.abs().max() <= 0.04 and 0.015 < value.std() < 0.02, name
    tokens, mask, labels = inputs(model.config, 16)
    where = mask.flatten().nonzero()[:, 0]
    logits = model(tokens, mask, labels, where)
    loss = F.cross_entropy(logits, tokens.flatten()[where]).item()
    assert loss == pytest.approx(math.log(model.config.vocabulary), abs=0.1)
