"""Tokens and features in bfloat16 (`tokens.bf16`, `evaluation.bf16`), on any CPU."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.config.paths import CLASSIFIER
from pipeline.evaluation.features import extract, open_extractor
from pipeline.evaluation.seen import open_networks
from pipeline.runtime import device
from pipeline.training.tokens import Coder
from pipeline.weights.published import load_model
from tests.tiny_project import CPU, GRID, SIDE, with_params


@pytest.fixture(params=[True, False], ids=["quick", "slow"])
def quick(request, monkeypatch) -> bool:
    """Whether this CPU is quick in bfloat16."""
    monkeypatch.setattr(device, "quick_in_bfloat16", lambda where: request.param)
    return request.param


@pytest.fixture
def images() -> list[Tensor]:
    noise = torch.Generator().manual_seed(0)
    shape = (16, 1, SIDE, SIDE)
    return [torch.randint(256, shape, generator=noise, dtype=torch.uint8) for _ in range(2)]


@pytest.mark.parametrize("name", ["classifier", "random"])
def test_features_in_bfloat16_are_others_by_its_rounding(in_tiny_project, images, quick, name):
    classifier = load_model(CLASSIFIER, "classifier")
    exact, rounded = (
        open_extractor(name, classifier, with_params(evaluation={"bf16": bf16}).evaluation, CPU)
        for bf16 in (False, True)
    )
    ours, theirs = extract(exact, images), extract(rounded, images)
    assert theirs.features.dtype == theirs.class_logits.dtype == torch.float32
    apart = (ours.features - theirs.features).norm() / ours.features.norm()
    assert 1e-4 < apart < 2e-2 if quick else apart == 0
    assert exact.name == rounded.name == name
    assert exact.identity != rounded.identity  # on a cluster's head too, where it may be slow


def test_whoever_looks_while_images_are_made_sees_the_same(in_tiny_project, images, quick):
    """The reference classifier is the main extractor and the judge."""
    params, batch = with_params(evaluation={"bf16": True}), torch.cat(images)
    classifier, evaluation = load_model(CLASSIFIER, "classifier"), params.evaluation
    main, other = (
        extract(open_extractor(name, classifier, evaluation, CPU), [batch])
        for name in (evaluation.extractor, evaluation.second_extractor)
    )
    found = open_networks(params, Path(), True, CPU)(batch)
    assert torch.equal(found["features"], main.features)
    assert torch.equal(found["logits"], main.class_logits)
    assert torch.equal(found["others"], other.features)


@pytest.mark.parametrize("bf16", [True, False])
def test_tokens_are_made_in_bfloat16_where_it_is_asked_for(in_tiny_project, quick, bf16):
    coder, seen = Coder("val", 2, with_params(tokens={"bf16": bf16}), CPU), []

    def encode(pictures: Tensor) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return torch.zeros(len(pictures), GRID, GRID, dtype=torch.long)

    coder.tokenizer.encode = encode
    assert coder(0, 5)["tokens"].shape == (5, 2, GRID**2)
    assert seen == 2 * [bf16 and quick]
