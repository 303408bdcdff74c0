"""Batches that would not fit into memory go through a network in parts, which changes nothing."""

from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torchmetrics.functional.image.lpips import _LPIPS

from pipeline import decoding
from pipeline.autoregressive import AutoregressiveTransformer, token_nll
from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.data import microbatches as parts
from pipeline.decoding import DecodingSettings, decode, generate, predictor
from pipeline.masking import masked_nll
from pipeline.perceptual import pair_bytes
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.training.classifier import accuracy
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from tests.allocations import Allocations
from tests.editing_inputs import F_PIXELS, models, random_images
from tests.tiny_networks import TINY, spread


class Sizes(Allocations):
    """Knows the largest tensor too."""

    largest = 0

    def made(self, size: int) -> None:
        self.largest = max(self.largest, size)


PAPER = TokenizerConfig(3, 128, (1, 1, 2, 2, 4), 2, 256, 1024)
TOKENIZERS = [
    (TokenizerConfig(1, 32, (1, 1, 2), 1, 16, 64), 28),
    (TokenizerConfig(3, 32, (1, 4), 1, 8, 16), 8),
    (TokenizerConfig(1, 32, (1, 1, 1), 1, 4, 4096), 16),
]


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6])
def test_no_part_is_larger_than_memory_allows_and_rows_keep_their_order(monkeypatch, rows):
    monkeypatch.setattr(parts, "TENSOR_BYTES", 10 * rows + 9)
    seen = []

    def double(x, y):
        seen.append(len(x))
        return x + y

    x = torch.arange(5)
    assert torch.equal(parts.in_parts(double, 10, x, x), 2 * x)
    assert max(seen) == min(rows, 5) and sum(seen) == 5


def test_a_row_that_is_too_large_goes_alone():
    x = torch.arange(3)
    assert torch.equal(parts.in_parts(lambda part: part, 2**40, x), x)


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0])
def test_samples_do_not_depend_on_the_parts(monkeypatch, guidance_scale):
    settings = DecodingSettings(4, "cosine", 4.5, guidance_scale=guidance_scale)
    model, labels = spread(MaskGitTransformer), torch.arange(7) % 4
    whole = generate(model, labels, settings, seed=1)[-1].sampled
    monkeypatch.setattr(parts, "TENSOR_BYTES", 4 * TINY.image_bytes)
    assert torch.equal(generate(model, labels, settings, seed=1)[-1].sampled, whole)


@pytest.mark.parametrize(
    ("network", "nll"),
    [
        (MaskGitTransformer, partial(masked_nll, schedule="cosine", seed=1)),
        (AutoregressiveTransformer, token_nll),
    ],
)
def test_the_likelihood_does_not_depend_on_the_parts(monkeypatch, network, nll):
    model, labels, draw = spread(network), torch.arange(7) % 4, torch.Generator().manual_seed(0)
    tokens = torch.randint(TINY.codebook_size, (7, TINY.num_tokens), generator=draw)
    seen = []
    model.register_forward_hook(lambda *call: seen.append(len(call[1][0])))
    monkeypatch.setattr(model, "predict", lambda *inputs: model(*inputs)[..., : TINY.codebook_size])
    whole = nll(model, tokens, labels)
    monkeypatch.setattr(parts, "TENSOR_BYTES", 3 * TINY.image_bytes)
    assert nll(model, tokens, labels) == pytest.approx(whole, rel=1e-6)
    assert seen == [7, 3, 3, 1]


def test_tokens_and_images_do_not_depend_on_the_parts(monkeypatch):
    _, tokenizer = models(5)
    images = random_images(0, 5, 3, 5 * F_PIXELS, 5 * F_PIXELS) / 255
    tokens = tokenizer.encode(images)
    rebuilt = tokenizer.decode(tokens)
    monkeypatch.setattr(parts, "TENSOR_BYTES", 2 * tokenizer.config.image_bytes(5 * F_PIXELS))
    assert torch.equal(tokenizer.encode(images), tokens)
    torch.testing.assert_close(tokenizer.decode(tokens), rebuilt)


@pytest.mark.parametrize(("config", "side"), TOKENIZERS)
def test_the_largest_tensor_of_coding_is_known(config, side):
    tokenizer = Tokenizer(config)
    with torch.no_grad(), Sizes() as seen:
        tokenizer.decode(tokenizer.encode(torch.zeros(1, config.channels, side, side)))
    assert seen.largest == config.image_bytes(side)


@pytest.mark.parametrize(
    ("architecture", "width", "side"),
    [
        ("small", 16, 28),
        ("small", 1, 9),
        ("torchvision:resnet18", 1, 64),
        ("torchvision:resnet50", 1, 96),
        ("torchvision:wide_resnet50_2", 1, 64),
        ("torchvision:resnext101_64x4d", 1, 45),
        ("torchvision:resnet34", 1, 33),
    ],
)
def test_the_largest_tensor_of_a_classifier_is_known(architecture, width, side):
    model = Classifier(ClassifierConfig(architecture, 3, 10, width)).eval()
    with torch.no_grad(), Sizes() as seen:
        model(torch.zeros(2, 3, side, side))
    assert seen.largest == 2 * model.image_bytes(side)


def test_looks_at_validation_images_do_not_depend_on_the_parts(monkeypatch):
    """Of ImageNet's classifier 500 at 512 pixels would need 29 GB."""
    model = spread(Classifier, ClassifierConfig("small", 1, 10, 8))
    images, labels = random_images(0, 7, 1, 12, 12), torch.arange(7) % 10
    whole = accuracy(model, [images], labels, torch.device("cpu"))
    monkeypatch.setattr(parts, "TENSOR_BYTES", 2 * model.image_bytes(12))
    with Sizes() as seen:
        assert accuracy(model, [images], labels, torch.device("cpu")) == whole
    assert seen.largest == 2 * model.image_bytes(12)


@pytest.mark.parametrize("hidden, heads, mlp", [(32, 4, 64), (32, 1, 512), (32, 16, 32)])
def test_the_largest_tensor_of_prediction_is_known(hidden, heads, mlp):
    """Attention that is computed in one piece, as it is here in float32, takes less."""
    config = TransformerConfig(64, 20, 4, layers=1, hidden=hidden, heads=heads, mlp=mlp, dropout=0)
    model = MaskGitTransformer(config).eval()
    blank = torch.zeros(1, 64, dtype=torch.long)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), Sizes() as seen:
        model.predict(blank, blank.bool(), torch.zeros(1, dtype=torch.long))
    assert config.image_bytes / 4 <= seen.largest <= config.image_bytes


def test_250_images_of_512_pixels_need_six_gigabytes(monkeypatch):
    """In one piece the paper's decoder needs 164 GiB, 31 of them for one tensor."""
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)
    monkeypatch.setattr(decoding, "require_finite_logits", lambda total: None)
    settings = DecodingSettings(2, "cosine", 4.5, guidance_scale=1.0, bf16=True)
    with FakeTensorMode(), torch.no_grad():
        blank = torch.zeros(250, 1024, dtype=torch.long)
        config = TransformerConfig(1024, 1024, 1000, 2, 768, 8, 3072, 0.1)
        predict = predictor(MaskGitTransformer(config).eval(), blank[:, 0], settings)
        tokenizer = Tokenizer(PAPER)
        with Allocations() as seen:
            tokens = decode(predict, blank, blank == 0, settings, torch.Generator())[-1].sampled
        assert seen.peak < 6 * 2**30
        with Allocations() as seen:
            tokenizer.decode(tokens.unflatten(1, (32, 32)))
        assert seen.peak < 6 * 2**30


@pytest.mark.parametrize("by_place", [False, True])
@pytest.mark.parametrize("side", [256, 512])
def test_perceptual_distances_of_250_images_need_six_gigabytes(side, by_place):
    """LPIPS keeps all stages of VGG, of both images: in one piece 38 GiB at 256 pixels."""
    with FakeTensorMode(), torch.no_grad():
        network = _LPIPS(pretrained=False, net="vgg", pnet_rand=True, spatial=by_place)
        images = torch.zeros(250, 3, side, side)
        with Allocations() as seen:
            distance = partial(network, normalize=True)
            far = parts.in_parts(distance, pair_bytes(side), images, images)
        assert far.shape == (250, 1, *([side, side] if by_place else [1, 1]))
        assert seen.peak < 6 * 2**30
