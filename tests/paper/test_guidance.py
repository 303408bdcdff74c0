"""Classifier-free guidance: images shown without their class in training, and what decoding makes
of it. (The paper has none; other reproductions do.)"""

from dataclasses import replace

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from pipeline.data.seeds import generator
from pipeline.decoding import DecodingSettings, decode, generate, predictor
from pipeline.runtime.errors import UserError
from pipeline.sampling import sampler
from pipeline.transformer import MaskGitTransformer
from tests.tiny_networks import spread
from tests.transformer_task import CLASSES, calls, random_tokens, tiny_params

NO_CLASS = CLASSES  # the label of an image without one
PLAIN = DecodingSettings(iterations=3, schedule="linear", choice_temperature=2.0)


@pytest.fixture
def model() -> MaskGitTransformer:
    return spread(MaskGitTransformer)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(20, (3, 9), generator=draw)
    return tokens, torch.rand(3, 9, generator=draw) < 0.5, torch.tensor([2, 0, 3])


def logits_by_hand(
    model: MaskGitTransformer, tokens: Tensor, mask: Tensor, first: Tensor
) -> Tensor:
    """With rows `first` of the vocabulary in the place of the class token."""
    ids = torch.cat([first[:, None], tokens.masked_fill(mask, model.config.mask_id)], dim=1)
    return model.code_logits(model.encode(ids)[:, 1:])


# --- decoding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_guided_logits_are_pushed_away_from_those_without_the_class(model, scale):
    """(1 + s)·conditional − s·unconditional; without a class its token is [MASK], row 24."""
    tokens, mask, labels = batch()
    conditional = logits_by_hand(model, tokens, mask, 20 + labels)
    unconditional = logits_by_hand(model, tokens, mask, torch.full((3,), 24))
    assert (conditional - unconditional).abs().mean() > 0.1
    guided = predictor(model, labels, replace(PLAIN, guidance_scale=scale))(tokens, mask)
    wanted = (1 + scale) * conditional - scale * unconditional
    torch.testing.assert_close(guided, wanted, atol=1e-4, rtol=1e-4)


def test_scale_zero_is_the_plain_model_and_costs_no_more(model, monkeypatch):
    tokens, mask, labels = batch()
    sizes, encode = [], model.encode
    monkeypatch.setattr(model, "encode", lambda ids: (sizes.append(len(ids)), encode(ids))[1])
    plain = predictor(model, labels, replace(PLAIN, guidance_scale=0.0))(tokens, mask)
    assert torch.equal(plain, model.predict(tokens, mask, labels))
    assert torch.equal(plain, predictor(model, labels, PLAIN)(tokens, mask))
    assert sizes == [3, 3, 3]


def test_generation_and_sampler_are_guided(model, make_params):
    labels = torch.arange(8) % 4

    def by_hand(tokens, mask):
        conditional = logits_by_hand(model, tokens, mask, 20 + labels)
        return 3 * conditional - 2 * logits_by_hand(model, tokens, mask, torch.full((8,), 24))

    blank = torch.zeros(8, 9, dtype=torch.long), torch.ones(8, 9, dtype=torch.bool)
    noise = generator(5, "decode", "linear", 3)
    wanted = decode(by_hand, *blank, PLAIN, noise)[-1].sampled
    guided = generate(model, labels, replace(PLAIN, guidance_scale=2.0), seed=5)[-1].sampled
    assert torch.equal(guided, wanted)
    plain = generate(model, labels, PLAIN, seed=5)[-1].sampled
    assert not torch.equal(plain, wanted)

    decoding = {"iterations": 3, "choice_temperature": 2.0, "bf16": False}
    training = {"mask_schedule": "linear", "label_drop": 0.1}
    for scale, expected in ((2.0, wanted), (0.0, plain)):
        params = make_params(decoding=decoding | {"guidance_scale": scale}, training=training)
        assert torch.equal(sampler(model, params.decoding_settings())(labels, 5), expected)
    other = sampler(model, params.decoding_settings(iterations=2))(labels, 5)
    wanted = generate(model, labels, replace(PLAIN, iterations=2), seed=5)[-1].sampled
    assert torch.equal(other, wanted)


# --- training -------------------------------------------------------------------------------------


@pytest.fixture
def seen(make_params, tmp_path):
    """What the network is called with in 60 steps of 8 images, at a rate of dropped labels."""
    tokens_dir = random_tokens(tmp_path / "tokens")
    return lambda rate, seed=3: calls(
        tiny_params(make_params, label_drop=rate), tokens_dir, range(60), seed=seed
    )


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_labels_are_dropped_at_the_rate_and_nothing_else_changes(seen, rate):
    dropped = 0
    for with_drop, without in zip(seen(rate), seen(0.0), strict=True):
        assert torch.equal(with_drop.tokens, without.tokens)
        assert torch.equal(with_drop.mask, without.mask)
        assert without.labels.max() < NO_CLASS  # a rate of 0 drops none
        kept = with_drop.labels != NO_CLASS
        assert torch.equal(with_drop.labels[kept], without.labels[kept])
        dropped += (~kept).sum().item()
    assert binomtest(dropped, 60 * 8, rate).pvalue > 0.01


def test_dropped_labels_are_drawn_by_seed_and_step(seen):
    one, same, other = (
        [(call.labels == NO_CLASS).tolist() for call in seen(0.5, seed)] for seed in (3, 3, 4)
    )
    assert one == same != other
    assert len(set(map(tuple, one))) > 40  # of 60 steps


# --- params ---


def test_guidance_needs_a_model_that_has_seen_images_without_their_class(make_params):
    guided, dropped = {"guidance_scale": 1.5}, {"label_drop": 0.1}
    with pytest.raises(UserError, match=r"decoding\.guidance_scale.*training\.label_drop"):
        make_params(decoding=guided)
    assert make_params(decoding=guided, training=dropped).decoding.guidance_scale == 1.5
    make_params(decoding=guided, transformer={"pretrained": "weights.safetensors"})
    make_params(training=dropped)  # trained for guidance, decoded without
