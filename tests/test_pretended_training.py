"""Training as on a GPU (`tests.pretended`): nothing lies on another device, every generator is the
device's, no step waits for it but where that is said here, and the losses are a CPU's."""

from types import SimpleNamespace

import pytest
import torch

from pipeline.classifier import Classifier
from pipeline.perceptual import open_perceptual
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.training.classifier import ClassifierTask
from pipeline.training.loop.finite import FiniteLosses
from pipeline.training.tokenizer import TokenizerTask
from pipeline.training.transformer import TransformerTask
from pipeline.weights.configs import tokenizer_config
from tests.images import image_batches
from tests.pretended import Pretended, pretended_device
from tests.test_train_classifier import CONFIG
from tests.transformer_task import CLASSES

CPU = torch.device("cpu")


def assert_as_on_a_cpu(
    make_task, gpu: Pretended, steps: range, waits: int = 0, tolerance: float = 1e-5
) -> None:
    """Steps of a task on both devices: the same losses, to the order of their sums, and how often a
    GPU waits in each."""
    here, there = make_task(CPU), make_task(pretended_device())
    assert {p.device for p in there.model.parameters()} == {pretended_device()}
    for step in steps:
        gpu.waits.clear()
        torch.manual_seed(step)
        losses = there.step(step)
        assert len(gpu.waits) == waits, gpu.waits
        torch.manual_seed(step)
        for name, loss in here.step(step).items():
            mine = losses[name].cpu().float()
            torch.testing.assert_close(mine, loss.float(), rtol=tolerance, atol=tolerance)
    assert there.evaluate(9) == pytest.approx(here.evaluate(9), rel=100 * tolerance)


@pytest.mark.parametrize("task", [TransformerTask, AutoregressiveTask])
@pytest.mark.parametrize("spike_factor, waits", [(None, 0), (3.0, 1)])
@pytest.mark.parametrize("bf16, tolerance", [(False, 1e-5), (True, 2e-2)])
def test_a_transformers_step(gpu, tiny, tokens_dir, task, spike_factor, waits, bf16, tolerance):
    """Leaving out spikes looks at each step's loss and gradient norm, once."""
    params = tiny(spike_factor=spike_factor, label_drop=0.2, bf16=bf16)

    def make_task(device):
        return task(params, tokens_dir, CLASSES, seed=3, device=device)

    assert_as_on_a_cpu(make_task, gpu, range(3), waits, tolerance)


def test_a_look_at_the_losses_waits_once_for_ten_steps(gpu, tiny, tokens_dir):
    """Between checkpoints nothing else does."""
    task = TransformerTask(tiny(), tokens_dir, CLASSES, seed=3, device=pretended_device())
    finite = FiniteLosses(SimpleNamespace(average=lambda row: row), "training", 0)
    gpu.waits.clear()
    for step in range(20):
        finite.note(step, task.step(step))
    assert gpu.waits == ["copy off", "copy off"]


def classifier_on(
    device, make_params, bf16: bool, config=CONFIG, batches=image_batches
) -> ClassifierTask:
    params = make_params(classifier={"steps": 6, "batch_size": 6, "bf16": bf16}).classifier
    return ClassifierTask(config, params, batches, batches(10_000), 0, device)


@pytest.mark.parametrize("bf16, tolerance", [(False, 1e-4), (True, 5e-2)])
def test_a_classifiers_step(gpu, make_params, bf16, tolerance):
    def make_task(device):
        return classifier_on(device, make_params, bf16)

    assert_as_on_a_cpu(make_task, gpu, range(3), tolerance=tolerance)


def tokenizer_on(
    device, make_params, perceptual: str = "classifier", batches=image_batches, **changes
) -> TokenizerTask:
    """Whose discriminator joins at the second step and pays R1 at every second one, and whose codes
    are revived."""
    values = {"filters": 32, "multipliers": [1, 1], "res_blocks": 1, "embedding_dim": 4}
    values |= {"codebook_size": 64, "discriminator_filters": 4, "r1_every": 2}
    values |= {"adversarial_start": 1, "revive_after": 2}
    params = make_params(data={"image_size": 32}, tokenizer=values | changes)
    torch.manual_seed(0)
    classifier = Classifier(CONFIG).to(device).eval().requires_grad_(False)
    return TokenizerTask(
        tokenizer_config(params),
        params.tokenizer,
        open_perceptual(perceptual, classifier, device),
        batches,
        batches(99)[0],
        seed=1,
        device=device,
    )


TOKENIZERS = [
    ({"discriminator": "patch", "adaptive_weight": False, "bf16": False}, 3e-3),
    ({"discriminator": "stylegan", "adaptive_weight": True, "bf16": False}, 3e-3),
    ({"discriminator": "patch", "adaptive_weight": False, "bf16": True}, 0.1),
]


@pytest.mark.parametrize("changes, tolerance", TOKENIZERS)
def test_a_tokenizers_step(gpu, make_params, changes, tolerance):
    assert_as_on_a_cpu(
        lambda device: tokenizer_on(device, make_params, **changes),
        gpu,
        range(5),
        tolerance=tolerance,
    )
