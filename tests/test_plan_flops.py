"""`plan`'s FLOPs of a step or a pass against closed forms and those of real ones."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.classifier import Classifier
from pipeline.config.presets import preset_params
from pipeline.data.seeds import generator
from pipeline.discriminator import r1_penalty
from pipeline.masking import sample_training_mask
from pipeline.schedules import SCHEDULES
from pipeline.tokenizer import Tokenizer
from pipeline.tools.plan import costs
from pipeline.tools.plan.networks import plan_networks
from pipeline.training.transformer.task import ROWS
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import tokenizer_config, transformer_config
from tests.planned import DIGITS, default_task, network


def test_transformer_step_at_the_papers_size_is_the_closed_form():
    config = transformer_config(preset_params("imagenet256"), 1000)
    model = costs.on_meta(lambda: MaskGitTransformer(config))
    batch, rows, s, d, vocabulary = 4, 700, 257, 768, 2025
    counted = costs.training_flops(lambda: costs.transformer_forward(model, batch, rows))
    linear = 24 * (4 * d * d + 2 * d * 3072)
    attention = 24 * 2 * s * d  # queries × keys, weights × values: multiply-adds for one position
    forward = 2 * (batch * s * (linear + attention) + rows * (d * d + d * vocabulary))
    assert counted == 3 * forward


def counted_step(task, step: int) -> int:
    return costs.count_flops(lambda: task.step(step))


def test_training_flops_are_those_of_real_steps(make_params, digit_tokens):
    params = make_params(ray={"num_workers": 1}, training={"batch_size": 40})
    networks = plan_networks(params, DIGITS)
    for name, tolerance in (("transformer", 0.05), ("autoregressive", 1e-9), ("classifier", 1e-9)):
        if name == "classifier":
            params = make_params(classifier={"batch_size": 4})
            networks = plan_networks(params, DIGITS)
        task = default_task(name, params, digit_tokens)
        measured = np.mean([counted_step(task, step) for step in range(1, 7)])
        assert network(networks, name).step_flops == pytest.approx(measured, rel=tolerance), name


def test_a_worker_more_does_not_change_the_flops_of_the_baselines_step(make_params):
    steps = [
        network(plan_networks(make_params(ray={"num_workers": n}), DIGITS), "autoregressive")
        for n in (1, 4)
    ]
    assert steps[0].step_flops == steps[1].step_flops
    assert steps[0].memory > 2 * steps[1].memory  # each holds its share of the batch


@pytest.mark.parametrize(
    "changes",
    [{}, {"adaptive_weight": True}, {"discriminator": "stylegan", "adaptive_weight": True}],
    ids=["patch", "adaptive", "stylegan"],
)
def test_tokenizer_flops_are_those_of_real_steps(changes, make_params, digit_tokens, monkeypatch):
    side = 32 if "discriminator" in changes else 28
    tokenizer = {"batch_size": 4, "r1_every": 2, "adversarial_start": 0}
    params = make_params(data={"image_size": side}, tokenizer=tokenizer | changes)
    networks = plan_networks(params, DIGITS)
    planned = sum(network(networks, name).step_flops for name in ("tokenizer", "discriminator"))
    judge = Classifier(costs.classifier_of(params, 10).config).requires_grad_(False)
    task = default_task("tokenizer", params, digit_tokens)
    task.perceptual = lambda a, b: costs.classifier_distance(judge, a, b)
    task.params = params.tokenizer
    # The counter's hooks on modules cannot take the leaf whose gradient R1 is, but a view of it.
    monkeypatch.setattr(
        "pipeline.training.tokenizer.r1_penalty",
        lambda network, real: r1_penalty(lambda x: network(x.view_as(x)), real),
    )
    measured = np.mean([counted_step(task, step) for step in (1, 2, 3, 4)])
    assert planned == pytest.approx(measured, rel=1e-6)


def test_coding_flops_are_those_of_every_convolution():
    config = tokenizer_config(preset_params("cifar10"))
    grid, batch = 8, 3
    total = {"encoder": 0, "decoder": 0}
    model = Tokenizer(config)
    for part in total:
        for module in getattr(model, part).modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(
                    lambda m, _, y, part=part: total.__setitem__(
                        part, total[part] + 2 * y.numel() * m.weight[0].numel()
                    )
                )
    images = torch.rand(batch, 3, grid * config.downsampling, grid * config.downsampling)
    model.decode(model.encode(images))
    nearest = 2 * batch * grid**2 * config.codebook_size * config.embedding_dim
    wanted = (total["encoder"] + nearest, total["decoder"])
    assert costs.tokenizer_coding(config, grid, batch) == wanted


def test_cached_sampling_is_the_sum_over_all_positions(make_params):
    config = dataclasses.replace(transformer_config(make_params(), 10), num_tokens=16, layers=1)
    each = [costs.next_token(config, 2, n, cache=True) for n in range(config.num_tokens)]
    assert costs.autoregressive_sampling(config, 2) == sum(each)
    whole = [costs.next_token(config, 2, n, cache=False) for n in (0, 10)]
    assert whole[0] == each[0] and whole[1] > 5 * each[10]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_head_rows_are_those_of_drawn_masks(schedule, make_params):
    params = make_params(training={"min_masking_rate": 0.2})
    noise = generator("masks", schedule)
    masks = sample_training_mask(20_000, params.num_tokens, schedule, noise, 0.2)
    masked = masks.sum() / len(masks)
    rows = costs.head_rows(params, schedule, batch=100)
    assert rows - ROWS / 2 == pytest.approx(100 * masked.item(), rel=0.01)


@pytest.mark.parametrize("side", [32, 40, 60, 64])
@pytest.mark.parametrize("name", ["lpips_alex", "lpips_vgg", "lpips_squeeze"])
def test_lpips_is_counted_for_every_side_that_it_takes(name, side, make_params):
    """AlexNet has a last pooling, for which such images are too small and which LPIPS lacks."""
    params = make_params(data={"image_size": side}, tokenizer={"perceptual": name})
    assert network(plan_networks(params, DIGITS), "tokenizer").step_flops > 0


def test_a_network_whose_share_is_one_image_is_counted(make_params):
    one, four = (
        plan_networks(
            make_params(
                classifier={"architecture": "torchvision:resnet18", "batch_size": 4},
                tokenizer={"batch_size": batch},
                training={"batch_size": 4},
                ray={"num_workers": workers},
            ),
            DIGITS,
        )
        for batch, workers in ((4, 4), (4, 1))
    )
    for name in ("classifier", "tokenizer"):
        assert network(one, name).step_flops == network(four, name).step_flops
