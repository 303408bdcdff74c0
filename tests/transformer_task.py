"""The training task of a tiny transformer, and a spy that records the network's calls."""

from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.params import Params
from pipeline.training import transformer
from pipeline.training.transformer import TransformerTask
from tests.images import write_token_cache

CLASSES = 3
CPU = torch.device("cpu")


def tiny_params(make_params, dropout=0.0, **training) -> Params:
    """Return params of a transformer with one layer, 49 tokens and 16 codes."""
    values = {"steps": 4, "batch_size": 8, "warmup_steps": 2, "checkpoint_every": 2}
    return make_params(
        tokenizer={"codebook_size": 16},
        transformer={"layers": 1, "hidden": 16, "heads": 2, "mlp": 16, "dropout": dropout},
        training=values | {"bf16": False} | training,
    )


def random_tokens(folder: Path) -> Path:
    """Write a token cache: 20 training and 6 validation images, with 2 views of 49 tokens each."""
    rng = np.random.default_rng(0)
    counts = {"train": [13, 7], "val": [6]}
    return write_token_cache(
        folder,
        {split: [rng.integers(0, 16, (n, 2, 49)) for n in ns] for split, ns in counts.items()},
        {split: rng.integers(0, CLASSES, sum(ns)) for split, ns in counts.items()},
        codes=16,
    )


class Call(NamedTuple):
    """The inputs of one call of the network."""

    tokens: Tensor
    mask: Tensor
    labels: Tensor
    where: Tensor


class Spy(nn.Module):
    """Replaces the data-parallel module: records each call and passes it on."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.calls = module, []

    def forward(self, *args: Tensor) -> Tensor:
        assert self.training
        self.calls.append(args)
        return self.module(*args)


def transformer_task(
    params: Params, tokens_dir: Path, kind: type[TransformerTask] = TransformerTask, **options
) -> TransformerTask:
    """Make a task whose workers are not connected."""
    with mock.patch.object(transformer, "DistributedDataParallel", lambda model, **_: model):
        return kind(params, tokens_dir, **{"seed": 3, "device": CPU} | options)


def spied(task: TransformerTask) -> TransformerTask:
    task.parallel = Spy(task.model)
    return task


def calls(params, tokens_dir, steps=range(1), **options) -> list[Call]:
    task = spied(transformer_task(params, tokens_dir, **options))
    for step in steps:
        task.step(step)
    return [Call(*call) for call in task.parallel.calls]
