"""Classifier-free guidance, in training (some images lose their class) and in decoding. The paper
does not use it; other reproductions do."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import binomtest

from pipeline.data.seeds import generator
from pipeline.decoding.iterative import decode, generate, predictor
from pipeline.decoding.settings import DecodingSettings
from pipeline.runtime.errors import UserError
from pipeline.sampling import balanced_labels, sample_tokens
from pipeline.transformer import MaskGitTransformer
from tests.tiny_networks import inputs, spread
from tests.transformer_task import CLASSES, calls, random_tokens, tiny_params

PLAIN = DecodingSettings(iterations=3, schedule="linear", choice_temperature=2.0)


@pytest.fixture
def model() -> MaskGitTransformer:
    return spread(MaskGitTransformer)


def test_scale_zero_is_the_plain_model_and_costs_no_more(model, monkeypatch):
    tokens, mask, labels = inputs(size=3)
    sizes, encode = [], model.encode
    monkeypatch.setattr(model, "encode", lambda ids: (sizes.append(len(ids)), encode(ids))[1])
    plain = predictor(model, labels, replace(PLAIN, guidance_scale=0.0))(tokens, mask, 1.0)
    assert torch.equal(plain, model.predict(tokens, mask, labels))
    assert sizes == [3, 3]


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [0, 1 / 4, 1 / 2, 3 / 4]),
        ("power_cosine", [(1 - math.cos(math.pi * (t / 4) ** 4)) / 2 for t in range(4)]),
    ],
)
def test_guidance_follows_its_schedule(model, schedule, shares):
    tokens, mask, labels = inputs(size=3)
    settings = DecodingSettings(4, "linear", 2.0, 3.0, guidance_schedule=schedule)
    predict, plain = predictor(model, labels, settings), model.predict(tokens, mask, labels)
    none = model.predict(tokens, mask, torch.full_like(labels, model.config.num_classes))
    for t, share in enumerate(shares):
        wanted = plain + 3 * share * (plain - none)
        assert torch.allclose(predict(tokens, mask, (t + 1) / 4), wanted, atol=1e-4)
    assert settings.passes == 4 + sum(share > 0 for share in shares)


def test_samples_are_guided_as_the_params_say(model, make_params):
    labels = balanced_labels(8, 4)
    assert labels.tolist() == 2 * [0, 1, 2, 3]

    def by_hand(tokens, mask, progress):
        """(1 + s)·conditional − s·unconditional; [MASK], row 24, stands for a missing class."""
        ids = [torch.full((8, 1), 24), tokens.masked_fill(mask, 24)]
        unconditional = model.code_logits(model.encode(torch.cat(ids, dim=1))[:, 1:])
        ids[0] = 20 + labels[:, None]
        conditional = model.code_logits(model.encode(torch.cat(ids, dim=1))[:, 1:])
        return 3 * conditional - 2 * unconditional

    blank = torch.zeros(8, 9, dtype=torch.long), torch.ones(8, 9, dtype=torch.bool)
    *_, (guided, _) = decode(by_hand, *blank, PLAIN, generator(5, "decode", "linear", 3))
    *_, (plain, _) = generate(model, labels, PLAIN, seed=5)
    assert not torch.equal(plain, guided)
    decoding = {"iterations": 3, "choice_temperature": 2.0, "bf16": False}
    training = {"mask_schedule": "linear", "label_drop": 0.1}
    for scale, wanted in ((2.0, guided), (0.0, plain)):
        params = make_params(decoding=decoding | {"guidance_scale": scale}, training=training)
        assert torch.equal(sample_tokens(model, params.decoding_settings(), labels, 5), wanted)


def test_labels_are_dropped_at_the_rate_by_seed_and_step_and_nothing_else_changes(
    make_params, tmp_path
):
    tokens_dir = random_tokens(tmp_path / "tokens")

    def seen(rate, seed=3):
        params = tiny_params(make_params, label_drop=rate)
        return calls(params, tokens_dir, range(30), seed=seed)

    drops = {}
    for seed in (3, 4):
        drops[seed] = []
        for dropped, plain in zip(seen(0.3, seed), seen(0.0, seed), strict=True):
            assert torch.equal(dropped.tokens, plain.tokens)
            assert torch.equal(dropped.mask, plain.mask)
            kept = dropped.labels != CLASSES  # the label of an image without one
            assert torch.equal(dropped.labels[kept], plain.labels[kept]) and plain.labels.max() < 3
            drops[seed].append(tuple((~kept).tolist()))
        assert binomtest(sum(map(sum, drops[seed])), 30 * 8, 0.3).pvalue > 0.01
    assert len(set(drops[3])) > 20 and drops[3] != drops[4]


def test_guidance_needs_a_model_that_has_seen_images_without_their_class(make_params):
    guided, dropped = {"guidance_scale": 1.5}, {"label_drop": 0.1}
    with pytest.raises(UserError, match=r"decoding\.guidance_scale.*training\.label_drop"):
        make_params(decoding=guided)
    make_params(decoding=guided, training=dropped)
    make_params(decoding=guided, transformer={"pretrained": "weights.safetensors"})
