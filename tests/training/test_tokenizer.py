"""The tokenizer's training task: the loss of a step, and which weights it trains."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.data.ranks import ALONE
from pipeline.evaluation.reconstruction import quality, rebuild
from pipeline.perceptual import open_perceptual
from pipeline.tokenizer.discriminator import discriminator_loss, generator_loss, r1_penalty
from pipeline.tokenizer.quantizer import entropy_loss
from pipeline.training import tokenizer
from pipeline.training.tokenizer import TokenizerTask
from pipeline.weights.configs import tokenizer_config
from tests.images import banded_batches, image_batches
from tests.interruption import weight_bytes

CPU = torch.device("cpu")


def tokenizer_task(
    make_params, batches=image_batches, device=CPU, validation=None, ranks=ALONE, **changes
) -> TokenizerTask:
    values = {"filters": 32, "multipliers": [1, 1], "res_blocks": 1, "embedding_dim": 4}
    values |= {"codebook_size": 256, "bf16": False, "discriminator_filters": 4}
    values |= {"adversarial_start": 1, "r1_every": 2, "revive_after": 2}
    params = make_params(data={"image_size": 32}, tokenizer=values | changes)
    torch.manual_seed(0)
    classifier = Classifier(ClassifierConfig("small", 1, 3, 4)).to(device).eval()
    return TokenizerTask(
        tokenizer_config(params),
        params.tokenizer,
        open_perceptual("classifier", classifier.requires_grad_(False), device),
        batches,
        batches(99)[0] if validation is None else validation,
        seed=1,
        device=device,
        ranks=ranks,
    )


# Weights that no other number could be taken for; the adversarial one is large, for a discriminator
# fresh from its initialisation has gradients that are small.
WEIGHTS = {"perceptual_weight": 0.7, "commitment_weight": 0.31, "entropy_weight": 0.23}
WEIGHTS |= {"adversarial_weight": 43.0, "r1_weight": 0.9}


@pytest.fixture(
    params=[(1, "patch"), (2, "patch"), (3, "patch"), (6, "patch"), (3, "stylegan")],
    ids=lambda param: f"step {param[0]}, {param[1]}",
)
def one_step(request, make_params, monkeypatch):
    """Take one step of a task and return its state before and after. The adversarial weight is 1/2
    at step 2 and 1 from step 3 on; R1 applies at every third step."""
    step, discriminator = request.param
    monkeypatch.setattr(tokenizer, "ENTROPY_TEMPERATURE", 0.4)
    changes = WEIGHTS | {"adversarial_start": 2, "r1_every": 3, "revive_after": 1000}
    task = tokenizer_task(make_params, discriminator=discriminator, **changes)
    before = SimpleNamespace(
        model=copy.deepcopy(task.model), discriminator=copy.deepcopy(task.discriminator)
    )
    losses = task.step(step)
    images = image_batches(step)[0].float() / 255
    return SimpleNamespace(step=step, task=task, losses=losses, before=before, images=images)


def assert_same_gradients(module: torch.nn.Module, other: torch.nn.Module) -> None:
    largest = max(p.grad.abs().max().item() for p in other.parameters())
    for mine, wanted in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=1e-3, atol=1e-5 * largest)


def test_a_step_descends_the_weighted_sum_of_its_losses(one_step):
    step, model, images = one_step.step, one_step.before.model, one_step.images
    z = model.encoder(images)
    nearest = torch.cdist(z.movedim(1, -1), model.quantizer.codebook).argmin(dim=-1)
    codes = model.quantizer.codebook[nearest].movedim(-1, 1)
    reconstruction = model.decoder(z + (codes - z).detach())
    wanted = {
        "reconstruction": (reconstruction - images).square().mean(),
        "perceptual": one_step.task.perceptual(images, reconstruction).mean(),
        "commitment": (z - codes.detach()).square().mean(),
        "codebook": (z.detach() - codes).square().mean(),
        "entropy": entropy_loss(model.quantizer.distances(z), 0.4),
    }
    weight = {"reconstruction": 1, "perceptual": 0.7, "commitment": 0.31, "codebook": 1}
    weight |= {"entropy": 0.23, "adversarial": 43 / 2 if step == 2 else 43}
    if step >= 2:
        logits = one_step.before.discriminator(reconstruction)
        wanted["adversarial"] = generator_loss(logits)
    assert set(one_step.losses) - {"discriminator"} == set(wanted)
    for name, loss in wanted.items():
        assert one_step.losses[name].item() == pytest.approx(loss.item(), rel=1e-4), name
        assert abs(loss.item()) > 1e-6, name  # a term that says something
    sum(weight[name] * loss for name, loss in wanted.items()).backward()
    assert_same_gradients(one_step.task.model, model)


def test_discriminator_descends_its_loss_and_lazily_r1(one_step):
    """R1 applies at every third step, with three times its weight."""
    step, images = one_step.step, one_step.images
    discriminator, trained = one_step.before.discriminator, one_step.task.discriminator
    if step < 2:
        assert "discriminator" not in one_step.losses
        assert weight_bytes(trained) == weight_bytes(discriminator)
        return
    with torch.no_grad():
        fake = one_step.before.model(images)[0]
    loss = discriminator_loss(discriminator(images), discriminator(fake))
    assert one_step.losses["discriminator"].item() == pytest.approx(loss.item(), rel=1e-5)
    penalty = 3 * 0.9 * r1_penalty(discriminator, images) if step % 3 == 0 else 0
    (loss + penalty).backward()
    assert_same_gradients(trained, discriminator)
    assert weight_bytes(trained) != weight_bytes(discriminator)


def test_reconstruction_improves(make_params):
    """It starts worse than each image's mean grey and ends well above it. Uses autocast where it is
    quick; the discriminator joins half-way."""
    changes = {"adversarial_start": 15, "revive_after": 5, "ema_decay": 0.8, "bf16": True}
    task = tokenizer_task(make_params, banded_batches, **changes)
    images = task.validation / 255
    flat = (images - images.mean(dim=(2, 3), keepdim=True)).square().mean().item()
    before = task.evaluate(0)["psnr"]
    first, *_, last = [task.step(step)["reconstruction"].item() for step in range(30)]
    assert before < -10 * math.log10(flat) < task.evaluate(30)["psnr"] - 5
    assert last < first / 4


def test_averaged_weights_are_those_of_all_steps_and_are_what_is_measured(make_params):
    task = tokenizer_task(make_params, banded_batches, ema_decay=0.4)
    wanted = task.model.decoder.out.bias.detach().clone()
    for step in range(6):
        task.step(step)
        decay = min(0.4, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * task.model.decoder.out.bias.detach()
    published = task.average.module
    torch.testing.assert_close(published.decoder.out.bias.detach(), wanted)
    assert not published.training and not any(p.requires_grad for p in published.parameters())
    averaged, trained = (rebuild(m, task.validation, CPU)[1] for m in (published, task.model))
    assert task.evaluate(6) == quality(averaged) != quality(trained)


def test_codes_are_revived_after_their_time(make_params):
    task = tokenizer_task(make_params, revive_after=2, lr=1e-8)
    task.step(0)
    idle = task.idle == 1
    assert idle.any()
    before = task.model.quantizer.codebook.detach().clone()
    task.step(1)
    moved = (task.model.quantizer.codebook - before).abs().amax(dim=1) > 1e-5
    assert not moved.any()
    dead = task.idle == 2
    assert dead.any()
    task.step(2)
    moved = (task.model.quantizer.codebook - before).abs().amax(dim=1) > 1e-5
    assert torch.equal(moved, dead)
    assert task.idle[dead].max() == 1  # they have their time again
