"""Workers that send each other gradients in bfloat16."""

from functools import partial
from pathlib import Path

import torch

from pipeline.config.params import Params
from pipeline.data.ranks import Ranks
from pipeline.training.transformer import TransformerTask
from pipeline.training.transformer.job import TransformerRecipe
from tests.several_ranks import with_ranks
from tests.transformer_task import CLASSES, CPU, random_tokens, tiny_params


def gradients(params: Params, tokens_dir: Path, ranks: Ranks) -> dict[str, torch.Tensor]:
    """What a worker has after its share of a batch went through the network."""
    import ray.train.torch

    ray.train.torch.prepare_model = torch.nn.parallel.DistributedDataParallel  # as it is on a CPU
    recipe = TransformerRecipe(TransformerTask, params.model_dump(), str(tokens_dir), CLASSES, 0)
    task = recipe(ranks, CPU)
    task._add_gradients(0)
    return {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}


def test_they_are_rounded_and_otherwise_the_same(make_params, tmp_path):
    tokens_dir, found = random_tokens(tmp_path / "tokens"), {}
    for bf16 in (False, True):
        params = tiny_params(make_params, bf16_gradients=bf16)
        first, second = with_ranks(partial(gradients, params, tokens_dir), tmp_path / str(bf16))
        assert all(torch.equal(first[name], second[name]) for name in first)
        found[bf16] = first
    largest = max(value.abs().max().item() for value in found[False].values())
    for name, exact in found[False].items():
        rounded = found[True][name]
        assert torch.equal(rounded, rounded.bfloat16().float())
        torch.testing.assert_close(rounded, exact, rtol=2**-6, atol=largest * 2**-8)
    assert not all(torch.equal(found[True][name], exact) for name, exact in found[False].items())
