"""Training by two workers is that by one, but for the order of sums: every network."""

import math
from functools import partial

import pytest
import torch

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.data.ranks import ALONE, Ranks, sum_in_order
from pipeline.perceptual import open_perceptual
from pipeline.runtime.errors import UserError
from pipeline.training.classifier import ClassifierTask, normalize_together
from pipeline.training.tokenizer import TokenizerTask
from pipeline.weights.configs import tokenizer_config
from tests.params import make_params
from tests.several_ranks import with_ranks

CPU = torch.device("cpu")
SMALL = ClassifierConfig("small", channels=1, num_classes=3, width=4)
STEPS = 6


def own_rows(ranks: Ranks, step: int, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """A worker's share of twelve images that differ much from one another."""
    noise = torch.Generator().manual_seed(step)
    images = torch.randint(256, (12, 1, side, side), generator=noise)
    images = images * torch.linspace(0.1, 1, 12)[:, None, None, None]
    return ranks.rows(images.to(torch.uint8)), ranks.rows(torch.arange(12) % 3)


def tokenizer(changes: dict, ranks: Ranks) -> TokenizerTask:
    """The discriminator joins at step 1, R1 comes at 2 and 4, codes are revived from 2 on."""
    values = {"filters": 32, "multipliers": [1, 1], "res_blocks": 1, "embedding_dim": 4}
    values |= {"codebook_size": 64, "bf16": False, "discriminator_filters": 4, "r1_every": 2}
    values |= {"adversarial_start": 1, "revive_after": 2, "batch_size": 12}
    values |= {"entropy_weight": 0.5, "entropy_temperature": 1.0, "adversarial_weight": 2.0}
    params = make_params(data={"image_size": 32}, tokenizer=values | changes)
    torch.manual_seed(0)
    judge = Classifier(SMALL).eval().requires_grad_(False)
    held_out, _ = own_rows(ALONE, 99)
    return TokenizerTask(
        tokenizer_config(params),
        params.tokenizer,
        open_perceptual("classifier", judge, CPU),
        partial(own_rows, ranks),
        held_out,
        seed=1,
        device=CPU,
        ranks=ranks,
    )


def classifier(changes: dict, ranks: Ranks) -> ClassifierTask:
    values = {"steps": STEPS, "batch_size": 12, "bf16": False, "lr": 1e-3}
    params = make_params(classifier=values | changes).classifier
    validation = own_rows(ranks, 99)
    return ClassifierTask(SMALL, params, partial(own_rows, ranks), validation, 0, CPU, ranks)


def trained(make_task, steps: int, ranks: Ranks) -> dict:
    """What a worker is left with, and what it logged."""
    task = make_task(ranks)
    if isinstance(task, TokenizerTask):
        # Adam would divide gradients that are zero, but for rounding, by their own size.
        task.optimizer = torch.optim.SGD(task.model.parameters(), lr=0.03)
        task.d_optimizer = torch.optim.SGD(task.discriminator.parameters(), lr=0.03)
    losses = [task.step(step) for step in range(steps)]
    logged = [{k: ranks.mean(v.detach().double()) for k, v in row.items()} for row in losses]
    return {"logged": logged, "state": task.state_dict(), "measured": task.evaluate(steps)}


def in_float64(make_task, steps: int, ranks: Ranks) -> dict:
    """As `trained`, where sums in another order are the same but for 1e-12. (In float32 they are
    rounded, as each processor's kernels do, and the losses of a discriminator make more of it.)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            return trained(make_task, steps, ranks)
        finally:
            torch.set_default_dtype(torch.float32)


def flat(state, prefix: str = "") -> dict[str, torch.Tensor]:
    """Every number in a state, by its path."""
    if state is None or isinstance(state, str):
        return {}
    if isinstance(state, dict):
        parts = [flat(value, f"{prefix}/{key}") for key, value in state.items()]
    elif isinstance(state, list | tuple):
        parts = [flat(value, f"{prefix}/{number}") for number, value in enumerate(state)]
    else:
        return {prefix: state if isinstance(state, torch.Tensor) else torch.tensor(state)}
    return {key: value for part in parts for key, value in part.items()}


TASKS = {
    "patch": partial(tokenizer, {"discriminator": "patch"}),
    "stylegan, adaptive": partial(
        tokenizer,
        {"discriminator": "stylegan", "adaptive_weight": True, "adversarial_weight": 0.2},
    ),
    "classifier": partial(classifier, {}),
}


# In float32 until what is rounded has grown.
@pytest.mark.parametrize(
    ("train", "steps", "allowed"), [(in_float64, STEPS, 1e-9), (trained, 4, 1e-5)]
)
@pytest.mark.parametrize("name", TASKS)
def test_two_workers_train_as_one(name, train, steps, allowed, tmp_path):
    one = flat(train(TASKS[name], steps, ALONE))
    first, second = map(flat, with_ranks(partial(train, TASKS[name], steps), tmp_path / "r"))
    assert first.keys() == second.keys() == one.keys()
    for key, value in one.items():
        assert torch.equal(first[key], second[key]), key  # they never drift apart
        if value.is_floating_point():
            # What is measured is of images, whose pixels are rounded.
            rounded = train is trained and key.startswith("/measured")
            most = 1e-3 if rounded else allowed
            torch.testing.assert_close(first[key], value, rtol=most, atol=most, msg=key)
        else:
            assert torch.equal(first[key], value), key


def spiking(ranks: Ranks) -> dict:
    """What a worker is left with after a step in which the second one's images are no numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.training.loop.spikes.WARM", 2)
        task = classifier({"spike_factor": 1e6}, ranks)
        for step in range(3):
            task.step(step)
        if ranks.rank == 1:
            first = next(m for m in task.model.modules() if isinstance(m, torch.nn.Conv2d))
            hook = first.register_forward_hook(lambda module, inputs, output: output * math.nan)
        losses = task.step(3)
        if ranks.rank == 1:
            hook.remove()
        again = task.step(4)
    return {"left out": losses, "taken": len(again), "state": task.state_dict()}


def test_what_is_not_finite_on_one_worker_is_left_out_by_all(tmp_path):
    first, second = map(flat, with_ranks(spiking, tmp_path / "r"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert first["/state/guard/skipped"] == 1 and first["/taken"] == 2
    assert not any(key.startswith("/left out") for key in first)


def normalized(x: torch.Tensor, gradient: torch.Tensor, ranks: Ranks) -> dict[str, torch.Tensor]:
    """A step of a layer on a worker's rows: gradients of the mean over all workers."""
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(4))
    torch.nn.init.constant_(network[0].weight, 1.5)
    network = normalize_together(network, ranks, CPU)
    mine = ranks.rows(x).requires_grad_()
    output = network(mine)
    output.backward(ranks.rows(gradient))
    for p in network.parameters():
        p.grad = ranks.total(p.grad)
    weights = {f"gradient of {name}": p.grad for name, p in network.named_parameters()}
    return {"output": output.detach(), "input": mine.grad} | weights | network.state_dict()


def test_channels_that_hardly_vary_are_normalised_as_torch_does(tmp_path):
    """Far from 0, where a difference of squares in float32 has no digit of the variance left."""
    torch.manual_seed(3)
    x = 0.01 * torch.randn(8, 4, 5, 5) + 30
    wanted = normalized(x, torch.ones_like(x), ALONE)["output"]
    parts = with_ranks(partial(normalized, x, torch.ones_like(x)), tmp_path / "ranks")
    mine = torch.cat([part["output"] for part in parts])
    torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype, allowed", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_normalisation_is_torchs_over_the_whole_batch(dtype, allowed, tmp_path):
    """Output, gradients and running statistics, of channels that are not centred."""
    torch.manual_seed(3)
    x = (5 * torch.randn(8, 4, 5, 5) + torch.arange(4)[:, None, None]).to(dtype)
    gradient = torch.randn(8, 4, 5, 5).to(dtype)
    wanted = normalized(x, gradient, ALONE)
    parts = with_ranks(partial(normalized, x, gradient), tmp_path / "ranks")
    for key, value in wanted.items():
        mine = [part[key] for part in parts]
        mine = torch.cat(mine) if key in ("output", "input") else mine[0]
        torch.testing.assert_close(mine, value, rtol=allowed, atol=allowed, msg=key)


def totals(ranks: Ranks) -> list[torch.Tensor]:
    """Of several shapes and dtypes."""
    own = ranks.rank + 1  # 1 and 2, or alone 1
    few, many = torch.tensor([[0.5, 3.0]]), torch.arange(10_000)
    given = [own * values for values in (few.T, few.double(), many, few[0, 0], many[5])]
    before = [values.clone() for values in given]
    found = [ranks.total(values) for values in given]
    assert all(map(torch.equal, given, before))
    return found


def test_totals_are_the_same_bits_for_all_and_of_the_kind_that_was_given(tmp_path):
    one = totals(ALONE)
    for found in with_ranks(totals, tmp_path / "ranks"):
        for total, value in zip(found, one, strict=True):
            assert total.dtype == value.dtype and torch.equal(total, 3 * value)


def test_fewer_images_than_workers_are_refused():
    with pytest.raises(UserError, match=r"ray\.num_workers") as error:
        Ranks(0, 3).rows([1, 2])
    assert error.value.subject == "a batch of 2 images"


def test_a_sum_is_in_order():
    """Beside 10¹⁶ each 1 is lost, unless others were added to it before."""
    ones = [1.0] * 100
    assert sum_in_order(torch.tensor([1e16, *ones], dtype=torch.float64)) == 1e16
    assert sum_in_order(torch.tensor([*ones, 1e16], dtype=torch.float64)) == 1e16 + 100
