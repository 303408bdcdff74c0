"""On a GPU itself: `pytest -m gpu`. Without one all is skipped, and other tests have a device that
pretends to be one (`tests.pretended`)."""

import pytest
import torch

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive
from pipeline.decoding import DecodingSettings, generate
from pipeline.runtime.device import pick_device
from pipeline.sampling import Sampler, sample_batches
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.training.transformer import TransformerTask
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from tests.editing_inputs import F_PIXELS, models, random_images
from tests.test_pretended_training import TOKENIZERS, WORKERS, classifier_on, tokenizer_on
from tests.tiny_networks import spread
from tests.transformer_task import CLASSES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

CPU = torch.device("cpu")


@pytest.fixture
def device():
    yield pick_device()
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def never_waits():
    """Fails where a step waits for the GPU, once the first one has prepared what it needs."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


def assert_as_on_a_cpu(make_task, device, never_waits, tolerance: float) -> None:
    """Five steps: the losses of a CPU, to the tolerance, and no wait after the first two."""
    here, there = make_task(CPU), make_task(device)
    losses = []
    for step in range(5):
        torch.manual_seed(step)
        losses.append(there.step(step))
        if step == 1:
            never_waits()
    torch.cuda.set_sync_debug_mode("default")
    for step, mine in enumerate(losses):
        torch.manual_seed(step)
        for name, loss in here.step(step).items():
            torch.testing.assert_close(
                mine[name].cpu().float(), loss.float(), rtol=tolerance, atol=tolerance
            )


@pytest.mark.parametrize("task", [TransformerTask, AutoregressiveTask])
@pytest.mark.parametrize("bf16, tolerance", [(False, 1e-3), (True, 5e-2)])
def test_a_transformers_step(device, never_waits, tiny, tokens_dir, task, bf16, tolerance):
    params = tiny(label_drop=0.2, bf16=bf16)

    def make_task(device):
        return task(params, tokens_dir, CLASSES, seed=3, device=device)

    assert_as_on_a_cpu(make_task, device, never_waits, tolerance)


@pytest.mark.parametrize("ranks", WORKERS)
@pytest.mark.parametrize("bf16, tolerance", [(False, 1e-3), (True, 5e-2)])
def test_a_classifiers_step(device, never_waits, make_params, bf16, tolerance, ranks):
    def make_task(device):
        return classifier_on(device, make_params, bf16, ranks)

    assert_as_on_a_cpu(make_task, device, never_waits, tolerance)


@pytest.mark.parametrize("changes, tolerance", TOKENIZERS)
def test_a_tokenizers_step(device, never_waits, make_params, changes, tolerance):
    assert_as_on_a_cpu(
        lambda device: tokenizer_on(device, make_params, **changes),
        device,
        never_waits,
        max(tolerance, 1e-2),
    )


@pytest.mark.parametrize("bf16", [False, True])
def test_decoding_is_the_same_again(device, bf16):
    settings = DecodingSettings(4, "cosine", 4.5, bf16=bf16, guidance_scale=1.0)
    labels, maskgit = torch.arange(64) % 4, spread(MaskGitTransformer).to(device)
    baseline = spread(AutoregressiveTransformer).to(device)
    for draw in (
        lambda seed: generate(maskgit, labels, settings, seed=seed, device=device)[-1].sampled,
        lambda seed: generate_autoregressive(baseline, labels, seed=seed, bf16=bf16, device=device),
    ):
        assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


def test_the_baseline_draws_the_same_with_and_without_its_cache(device):
    model, labels = spread(AutoregressiveTransformer).to(device), torch.arange(64) % 4
    with_cache, without = (
        generate_autoregressive(model, labels, seed=1, cache=cache, device=device)
        for cache in (True, False)
    )
    assert (with_cache == without).float().mean() > 0.99


def test_tokens_are_a_cpus(device):
    """But for encoder outputs halfway between two codes."""
    _, tokenizer = models(5)
    images = random_images(0, 200, 3, 5 * F_PIXELS, 5 * F_PIXELS) / 255
    here = tokenizer.encode(images)
    try:
        there = tokenizer.to(device).encode(images.to(device)).cpu()
    finally:
        tokenizer.to(CPU)
    assert (here == there).float().mean() > 0.999


def test_training_goes_on_from_its_checkpoint_with_the_same_bytes(device, tiny, tokens_dir):
    def task():
        return TransformerTask(tiny(), tokens_dir, CLASSES, seed=3, device=device)

    straight, killed, resumed = task(), task(), task()
    for step in range(4):
        straight.step(step)
    for step in range(2):
        killed.step(step)
    resumed.load_state_dict(killed.state_dict())
    for step in range(2, 4):
        resumed.step(step)
    pairs = zip(straight.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(mine, other) for mine, other in pairs)


def test_250_images_of_512_pixels_fit(device):
    """At the paper's sizes, of which two layers stand for 24: none keeps anything."""
    config = TransformerConfig(1024, 1024, 1000, 2, 768, 8, 3072, 0.1)
    tokenizer = Tokenizer(TokenizerConfig(3, 128, (1, 1, 2, 2, 4), 2, 256, 1024))
    tokenizer = tokenizer.to(device).eval()
    model = MaskGitTransformer(config).to(device).eval()
    settings = DecodingSettings(2, "cosine", 4.5, guidance_scale=1.0, bf16=True)
    labels = torch.arange(250)
    torch.cuda.reset_peak_memory_stats(device)
    (batch,) = sample_batches(settings, labels, batch_size=250, seed=0)
    assert Sampler(model, tokenizer)(*batch).shape == (250, 3, 512, 512)
    assert torch.cuda.max_memory_allocated(device) < 12 * 2**30
