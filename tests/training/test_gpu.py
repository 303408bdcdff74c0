"""Tests on a GPU: `pytest -m gpu`. They are skipped without one."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._triton import has_triton

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.data.ranks import ALONE, Ranks
from pipeline.decoding.settings import DecodingSettings
from pipeline.runtime.device import pick_device
from pipeline.sampling import sample_tokens
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.training.transformer import TransformerTask
from pipeline.transformer import MaskGitTransformer
from tests.editing_inputs import F_PIXELS, models, random_images
from tests.params import make_params as params_of
from tests.several_ranks import with_ranks
from tests.tiny_networks import spread
from tests.training.test_classifier import classifier_task
from tests.training.test_tokenizer import tokenizer_task
from tests.training.test_workers import own_rows
from tests.transformer_task import tiny_params

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

CPU = torch.device("cpu")
TASKS = {
    "transformer": (TransformerTask, {}),
    "autoregressive": (AutoregressiveTask, {}),
    "classifier": (classifier_task, {}),
    "tokenizer, patch": (tokenizer_task, {"discriminator": "patch"}),
    "tokenizer, stylegan": (tokenizer_task, {"discriminator": "stylegan"}),
}


@pytest.fixture
def device():
    yield pick_device()
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_steps_have_the_losses_of_a_cpu_and_do_not_wait(device, tiny, tokens_dir, name, bf16):
    """After two steps that prepare, the CPU must not wait for the GPU in the next three."""
    kind, changes = TASKS[name]
    if isinstance(kind, type):
        make = partial(kind, tiny(label_drop=0.2, bf16=bf16), tokens_dir, seed=3)
    else:
        make = partial(kind, params_of, bf16=bf16, **changes)
    here, there, losses = make(device=CPU), make(device=device), []
    for step in range(5):
        torch.manual_seed(step)
        losses.append(there.step(step))
        if step == 1:
            torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")
    tolerance = (0.1 if bf16 else 1e-2) if "tokenizer" in name else (5e-2 if bf16 else 1e-3)
    for step, mine in enumerate(losses):
        torch.manual_seed(step)
        for key, loss in here.step(step).items():
            torch.testing.assert_close(
                mine[key].cpu().float(), loss.float(), rtol=tolerance, atol=tolerance
            )


def test_tokens_are_a_cpus(device):
    """Tokens may differ where an encoder output is halfway between two codes."""
    _, tokenizer = models(5)
    images = random_images(0, 200, 3, 5 * F_PIXELS, 5 * F_PIXELS) / 255
    here = tokenizer.encode(images)
    try:
        there = tokenizer.to(device).encode(images.to(device)).cpu()
    finally:
        tokenizer.to(CPU)
    assert (here == there).float().mean() > 0.999


def test_training_and_samples_repeat_to_the_last_bit(device, tiny, tokens_dir):
    """A task restored from a checkpoint repeats too. Another seed gives other samples."""
    tasks = [TransformerTask(tiny(), tokens_dir, seed=3, device=device) for _ in range(3)]
    straight, killed, resumed = tasks
    for step in range(4):
        for task in (straight, killed if step < 2 else resumed):
            task.step(step)
        if step == 1:
            resumed.load_state_dict(killed.state_dict())
    pairs = zip(straight.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(mine, other) for mine, other in pairs)
    settings, labels = DecodingSettings(4, "cosine", 4.5, bf16=True), torch.arange(64) % 4
    for network in (MaskGitTransformer, AutoregressiveTransformer):
        model = spread(network).to(device)
        first, again, other = (sample_tokens(model, settings, labels, seed) for seed in (1, 1, 2))
        assert torch.equal(first, again) and not torch.equal(first, other)


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()


def gradient(model: nn.Module) -> torch.Tensor:
    """Join the gradients of all parameters, since that of a key bias alone is only rounding."""
    return torch.cat([p.grad.flatten() for p in model.parameters()]).float().cpu()


@pytest.mark.parametrize("task", [TransformerTask, AutoregressiveTask])
@pytest.mark.parametrize("bf16, tolerance", [(False, 1e-3), (True, 5e-2)])
def test_a_compiled_step_is_that_without(device, tiny, tokens_dir, task, bf16, tolerance):
    if not has_triton() or not shutil.which("gcc"):
        pytest.skip("there is no Triton for this GPU, or no C compiler")
    torch._dynamo.reset()
    compiled, plain = (
        task(tiny(compile=compile, bf16=bf16), tokens_dir, seed=3, device=device)
        for compile in (True, False)
    )
    for step in range(2):  # of which the second begins with the first one's weights
        mine, wanted = compiled.step(step)["loss"], plain.step(step)["loss"]
        assert mine.item() == pytest.approx(wanted.item(), rel=tolerance)
        if step == 0:  # before Adam divides gradients by their size
            assert relative(gradient(compiled.model), gradient(plain.model)) < tolerance


def gradients(network: str, tokens_dir: Path, ranks: Ranks) -> list[torch.Tensor]:
    """Return the gradients of three steps in which weights hardly change, averaged by
    `DistributedDataParallel`, or by `Ranks.average_gradients` and `SyncBatchNorm`."""
    if network == "transformer":
        params = tiny_params(params_of, lr=1e-9)
        task = TransformerTask(params, tokens_dir, seed=3, device=pick_device(), ranks=ranks)
    else:
        values = {"steps": 4, "batch_size": 12, "bf16": False, "lr": 1e-9}
        batches = partial(own_rows, ranks)
        task = classifier_task(params_of, batches, pick_device(), ranks, **values)
    found = []
    for step in range(3):
        task.step(step)
        found.append(gradient(task.model))
    return found


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs here")
@pytest.mark.parametrize("network", ["transformer", "classifier"])
def test_two_gpus_have_the_gradients_of_one(device, tokens_dir, tmp_path, network):
    train = partial(gradients, network, tokens_dir)
    first, second = with_ranks(train, tmp_path / "ranks", backend="nccl")
    for mine, other, wanted in zip(first, second, train(ALONE), strict=True):
        assert torch.equal(mine, other)
        assert relative(mine, wanted) < 1e-3
