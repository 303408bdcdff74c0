"""Training with `training.compile` is that without it, step by step, alone and with workers."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch

from pipeline.config.params import Params
from pipeline.data.ranks import Ranks
from pipeline.runtime import device
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.training.transformer import TransformerTask, task
from pipeline.training.transformer.job import TransformerRecipe
from tests.runtime.test_ranks import flat
from tests.several_ranks import with_ranks
from tests.transformer_task import CLASSES, CPU, random_tokens, tiny_params

# MaskGIT's head is given a number of rows that differs from step to step: the second graph is for
# any number.
GRAPHS = {TransformerTask: 2, AutoregressiveTask: 1}
STEPS = 4


def compiled_graphs(patch: pytest.MonkeyPatch, **options) -> list[torch.fx.GraphModule]:
    """A list that each graph is added to which `torch.compile` takes from a network. It runs as it
    is, which needs no compiler, in bfloat16 as in the presets that compile."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    patch.setattr(torch, "compile", partial(torch.compile, backend=keep, **options))
    patch.setattr(task, "require_compiler", lambda gpu: None)
    patch.setattr(task, "ROWS", 64)  # of which a tiny batch has one to seven
    patch.setattr(device, "_cpu_multiplies_bfloat16", lambda: True)
    return graphs


def assert_same(state: dict, wanted: dict) -> None:
    mine, wanted = flat(state), flat(wanted)
    assert mine.keys() == wanted.keys()
    assert all(torch.equal(mine[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("kind", GRAPHS)
def test_losses_and_checkpoints_are_the_same(tiny, tokens_dir, monkeypatch, kind):
    graphs = compiled_graphs(monkeypatch, fullgraph=True)  # a break is an error

    def task(compile: bool) -> TransformerTask:
        params = tiny(compile=compile, bf16=True)
        return kind(params, tokens_dir, CLASSES, seed=3, device=CPU)

    compiled, plain, resumed = task(True), task(False), task(False)
    for step in range(STEPS):
        assert compiled.step(step) == plain.step(step)
        assert compiled.evaluate(step + 1) == plain.evaluate(step + 1)
    assert len(graphs) == GRAPHS[kind]
    assert_same(compiled.state_dict(), plain.state_dict())
    resumed.load_state_dict(copy.deepcopy(compiled.state_dict()))
    assert resumed.step(STEPS) == plain.step(STEPS)


def trained(params: Params, tokens_dir: Path, ranks: Ranks) -> dict[str, dict]:
    """What a worker is left with by each kind of task, and how many graphs there were after each
    step."""
    import ray.train.torch

    found = {}
    with pytest.MonkeyPatch.context() as patch:
        graphs = compiled_graphs(patch)
        # As on a GPU, and buckets of gradients so small that the network fills several.
        parallel = partial(torch.nn.parallel.DistributedDataParallel, bucket_cap_mb=0.004)
        patch.setattr(torch.distributed, "_DEFAULT_FIRST_BUCKET_BYTES", 1024)
        patch.setattr(ray.train.torch, "prepare_model", parallel)
        for kind in GRAPHS:
            recipe = TransformerRecipe(kind, params.model_dump(), str(tokens_dir), CLASSES, 0)
            task, counts = recipe(ranks, CPU), []
            graphs.clear()
            for step in range(STEPS):
                task.step(step)
                counts.append(len(graphs))
            found[kind.__name__] = {"state": task.state_dict(), "counts": counts}
    return found


def test_two_workers_are_left_with_the_same(make_params, tmp_path):
    """Where parts of a batch exchange nothing, and gradients are bfloat16. A graph is split where a
    bucket is full, so that it is sent while the backward pass goes on."""
    tokens_dir, found = random_tokens(tmp_path / "tokens"), []
    for compile in (False, True):
        changes = {"compile": compile, "accumulate": 2, "bf16_gradients": True}
        params = tiny_params(make_params, **changes, bf16=True)
        found += with_ranks(partial(trained, params, tokens_dir), tmp_path / f"ranks {compile}")
    plain, _, *compiled = found
    for kind, graphs in GRAPHS.items():
        for worker in found:
            assert_same(worker[kind.__name__]["state"], plain[kind.__name__]["state"])
        for worker in compiled:
            split, *later = worker[kind.__name__]["counts"]
            assert split > 1 and later == [graphs * split] * (STEPS - 1)
