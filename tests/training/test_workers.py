"""Two workers train as one does, except for the order of sums. Also tests compiled networks."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

from pipeline.config.params import Params
from pipeline.data.ranks import ALONE, Ranks, sum_in_order
from pipeline.training import transformer
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.training.tokenizer import TokenizerTask
from pipeline.training.transformer import TransformerTask
from tests.params import make_params
from tests.several_ranks import with_ranks
from tests.training.test_tokenizer import tokenizer_task
from tests.transformer_task import random_tokens, tiny_params, transformer_task

CPU = torch.device("cpu")
STEPS = 6


def own_rows(ranks: Ranks, step: int, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a worker's share of twelve very different images."""
    noise = torch.Generator().manual_seed(step)
    images = torch.randint(256, (12, 1, side, side), generator=noise)
    images = images * torch.linspace(0.1, 1, 12)[:, None, None, None]
    return ranks.rows(images.to(torch.uint8)), ranks.rows(torch.arange(12) % 3)


def tokenizer(ranks: Ranks, **changes) -> TokenizerTask:
    """The discriminator joins at step 1, R1 applies at 2 and 4, codes are revived from 2 on."""
    values = {"codebook_size": 64, "batch_size": 12, "entropy_weight": 0.5}
    values |= {"adversarial_weight": 2.0} | changes
    validation, batches = own_rows(ALONE, 99)[0], partial(own_rows, ranks)
    return tokenizer_task(make_params, batches, CPU, validation, ranks, **values)


def trained(changes: dict, ranks: Ranks) -> dict:
    """Return a worker's state and history in float64, where sums in another order differ by 1e-12.
    (The losses of a discriminator would amplify float32's rounding.)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        patch.setattr("pipeline.training.tokenizer.ENTROPY_TEMPERATURE", 1.0)
        torch.set_default_dtype(torch.float64)
        try:
            task = tokenizer(ranks, **changes)
            # Adam would divide gradients that are zero, but for rounding, by their own size.
            task.optimizer = torch.optim.SGD(task.model.parameters(), lr=0.03)
            task.d_optimizer = torch.optim.SGD(task.discriminator.parameters(), lr=0.03)
            rows = [task.step(step) for step in range(STEPS)]
            logged = [{k: ranks.mean(v.detach()) for k, v in row.items()} for row in rows]
            measured = task.evaluate(STEPS)
            return {"logged": logged, "state": task.state_dict(), "measured": measured}
        finally:
            torch.set_default_dtype(torch.float32)


def flat(state: dict) -> dict[str, torch.Tensor]:
    """Return every number in a state by its path."""
    leaves = {keystr(path): leaf for path, leaf in tree_flatten_with_path(state)[0]}
    numbers = {k: v for k, v in leaves.items() if not isinstance(v, str | None)}
    return {path: torch.as_tensor(number) for path, number in numbers.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"discriminator": "patch"},
        {"discriminator": "stylegan", "adversarial_weight": 0.2},
    ],
    ids=["patch", "stylegan"],
)
def test_two_workers_train_as_one(changes, tmp_path):
    one = flat(trained(changes, ALONE))
    first, second = map(flat, with_ranks(partial(trained, changes), tmp_path / "r"))
    assert first.keys() == second.keys() == one.keys()
    for key, value in one.items():
        assert torch.equal(first[key], second[key]), key  # they never drift apart
        if value.is_floating_point():
            torch.testing.assert_close(first[key], value, rtol=1e-9, atol=1e-9, msg=key)
        else:
            assert torch.equal(first[key], value), key


def test_a_sum_is_in_order():
    """In float64, adding 1 to 10¹⁶ a hundred times gives 10¹⁶; adding their sum doesn't."""
    ones = [1.0] * 100
    assert sum_in_order(torch.tensor([1e16, *ones], dtype=torch.float64)) == 1e16
    assert sum_in_order(torch.tensor([*ones, 1e16], dtype=torch.float64)) == 1e16 + 100


def gradients(params: Params, tokens_dir: Path, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Return a worker's gradients, averaged over the workers, after a step."""
    task = TransformerTask(params, tokens_dir, seed=0, device=CPU, ranks=ranks)
    task.step(0)
    return {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}


@pytest.mark.slow
def test_two_workers_have_the_gradients_of_one(tmp_path):
    tokens_dir = random_tokens(tmp_path / "tokens")
    params = tiny_params(make_params, grad_clip=None)
    first, second = with_ranks(partial(gradients, params, tokens_dir), tmp_path / "ranks")
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.testing.assert_close(first, gradients(params, tokens_dir, ALONE), rtol=1e-4, atol=1e-6)


# MaskGIT's head is given a number of rows that differs from step to step: the second graph is for
# any number.
GRAPHS = {TransformerTask: 2, AutoregressiveTask: 1}


@pytest.mark.parametrize("kind", GRAPHS)
def test_compiled_losses_and_checkpoints_are_the_same(
    tiny, tokens_dir, in_bfloat16, monkeypatch, kind
):
    """Compiled tasks give the losses and checkpoints of uncompiled ones. `torch.compile` only
    traces the graphs, so the test needs no compiler. Presets with `compile` use bfloat16."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph

    def task(compile: bool) -> TransformerTask:
        return transformer_task(tiny(compile=compile, bf16=True), tokens_dir, kind)

    torch._dynamo.reset()
    compiled = partial(torch.compile, backend=keep, fullgraph=True)  # a break is an error
    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(transformer, "ROWS", 64)  # of which a tiny batch has one to seven
    quick, plain, resumed = task(True), task(False), task(False)
    for step in range(3):
        assert quick.step(step) == plain.step(step)
        assert quick.evaluate(step + 1) == plain.evaluate(step + 1)
    assert len(graphs) == GRAPHS[kind]
    mine, wanted = flat(quick.state_dict()), flat(plain.state_dict())
    assert mine.keys() == wanted.keys()
    assert all(torch.equal(mine[name], value) for name, value in wanted.items())
    resumed.load_state_dict(copy.deepcopy(quick.state_dict()))
    assert resumed.step(3) == plain.step(3)
