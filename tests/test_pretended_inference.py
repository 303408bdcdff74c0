"""Decoding, editing, coding and features as on a GPU (`tests.pretended`): nothing lies on another
device, every generator is the device's, nothing waits for it but what is listed here, and the
numbers are a CPU's."""

import copy

import pytest
import torch

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive, token_nll
from pipeline.classifier import Classifier
from pipeline.decoding import DecodingSettings, generate
from pipeline.editing import center_mask, edit
from pipeline.evaluation.features import ClassifierExtractor, extract
from pipeline.evaluation.reconstruction import Reconstruction
from pipeline.masking import masked_nll
from pipeline.tokenizer import tokens_to_images
from pipeline.transformer import MaskGitTransformer
from tests.editing_inputs import DECODING, F_PIXELS, models, random_images
from tests.images import image_batches
from tests.pretended import Pretended, pretended_device
from tests.test_train_classifier import CONFIG
from tests.tiny_networks import inputs, spread

CPU = torch.device("cpu")


def moved(network, gpu: Pretended):
    """On the device; what was waited for up to here is forgotten."""
    network.to(pretended_device())
    gpu.waits.clear()
    return network


def back(gpu: Pretended) -> list[str]:
    """What was waited for but inputs, which go to the device where a batch begins."""
    return [wait for wait in gpu.waits if wait != "copy on"]


@pytest.mark.parametrize("mistake", ["two devices", "a generator of another device"])
def test_the_device_finds_mistakes(gpu, mistake):
    noise, device = torch.Generator().manual_seed(0), pretended_device()
    with pytest.raises(RuntimeError, match=mistake):
        if mistake == "two devices":
            torch.ones(3, device=device) + torch.ones(3)
        else:
            torch.rand(3, generator=noise, device=device)


def test_the_device_notes_what_it_is_waited_for(gpu):
    device = pretended_device()
    x = torch.ones(3, device=device)
    waits = [x.sum().item, x.cpu, lambda: torch.ones(3).to(device), x.nonzero, lambda: x[x > 0]]
    for number, wait in enumerate(waits, start=1):
        wait()
        assert len(gpu.waits) == number
    torch.ones(3).to(device, non_blocking=True)
    assert gpu.waits[:3] == ["look", "copy off", "copy on"] and len(gpu.waits) == 5


@pytest.mark.parametrize("guidance_scale", [0.0, 1.5])
def test_decoding(gpu, guidance_scale):
    """A GPU is waited for at the beginning, by the labels, and at the end, by the look at whether
    all logits were finite."""
    settings = DecodingSettings(4, "logarithmic", 4.5, guidance_scale=guidance_scale)
    model, labels = spread(MaskGitTransformer), torch.arange(4)
    here = generate(model, labels, settings, seed=2)
    there = generate(moved(model, gpu), labels, settings, seed=2, device=pretended_device())
    assert gpu.waits == ["copy on", "look"]
    for mine, wanted in zip(there, here, strict=True):
        assert torch.equal(mine.sampled.cpu(), wanted.sampled)
        assert torch.equal(mine.masked.cpu(), wanted.masked)


@pytest.mark.parametrize("cache", [False, True])
def test_autoregressive_decoding(gpu, cache):
    model, labels = spread(AutoregressiveTransformer), torch.arange(4)
    here = generate_autoregressive(model, labels, seed=2, cache=cache)
    model, device = moved(model, gpu), pretended_device()
    there = generate_autoregressive(model, labels, seed=2, cache=cache, device=device)
    assert gpu.waits == ["copy on", "look"]
    assert torch.equal(there.cpu(), here)


def test_decoding_in_bfloat16(gpu):
    """Its casts are CUDA's, and so its samples not a CPU's; it waits as seldom."""
    labels, device = torch.arange(4), pretended_device()
    settings = DecodingSettings(4, "cosine", 4.5, bf16=True, guidance_scale=1.0)
    model = moved(spread(MaskGitTransformer), gpu)
    tokens = generate(model, labels, settings, seed=2, device=device)[-1].sampled
    assert gpu.waits == ["copy on", "look"] and tokens.device == device
    model = moved(spread(AutoregressiveTransformer), gpu)
    tokens = generate_autoregressive(model, labels, seed=2, bf16=True, device=device)
    assert gpu.waits == ["copy on", "look"] and tokens.device == device


def test_likelihoods(gpu):
    """One look a batch."""
    tokens, _, labels = inputs(size=5)
    for network, measure, options in (
        (MaskGitTransformer, masked_nll, {"schedule": "cosine", "seed": 1}),
        (AutoregressiveTransformer, token_nll, {}),
    ):
        model = spread(network)
        here = measure(model, tokens, labels, batch_size=3, **options)
        model, options = moved(model, gpu), options | {"device": pretended_device()}
        there = measure(model, tokens, labels, batch_size=3, **options)
        assert there == pytest.approx(here, rel=1e-6) and back(gpu) == ["look", "look"]


def test_coding_and_editing(gpu):
    """Images and tokens come back once a call."""
    transformer, tokenizer = copy.deepcopy(models(5))
    side = 5 * F_PIXELS
    images, labels = random_images(0, 3, 3, side, side), torch.arange(3) % 3
    mask = center_mask((side, side), 0.5)
    here = edit(transformer, tokenizer, images, mask, labels, DECODING, seed=1)
    coded = Reconstruction(tokenizer, CPU)
    rebuilt = coded(images)
    moved(transformer, gpu), moved(tokenizer, gpu)
    there = edit(transformer, tokenizer, images, mask, labels, DECODING, seed=1)
    assert all(torch.equal(x, y) for x, y in zip(there, here, strict=True))
    # Are logits and pixels numbers? Then both results.
    assert back(gpu) == ["look", "look", "copy off", "copy off"]
    gpu.waits.clear()
    coding = Reconstruction(tokenizer, pretended_device())
    assert torch.equal(coding(images), rebuilt) and coding.metrics() == coded.metrics()
    assert back(gpu) == ["look", "copy off", "copy off"]
    tokens = tokenizer.encode(images.to(pretended_device()) / 255)
    assert tokens_to_images(tokenizer, tokens.flatten(1)).device == CPU


def test_features(gpu):
    torch.manual_seed(0)
    classifier = Classifier(CONFIG).eval().requires_grad_(False)
    images = [image_batches(step)[0] for step in range(2)]
    here = extract(ClassifierExtractor(classifier, CPU), images)
    extractor = ClassifierExtractor(moved(classifier, gpu), pretended_device())
    there = extract(extractor, images)
    torch.testing.assert_close(there.features, here.features)
    torch.testing.assert_close(there.logits, here.logits)
    assert back(gpu) == ["copy off"] * 4  # features and logits of each batch
