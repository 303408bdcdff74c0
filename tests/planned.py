"""A data set to plan for, and real tasks of the default's networks to compare a plan with."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipeline.data.seeds import generator
from pipeline.tools.plan import costs
from pipeline.tools.plan.networks import DataSize, Network
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.training.classifier import ClassifierTask
from pipeline.training.tokenizer import TokenizerTask
from pipeline.training.transformer import TransformerTask
from pipeline.weights.configs import tokenizer_config
from tests.images import write_token_cache

CPU = torch.device("cpu")
DIGITS = DataSize(train=4000, val=1000, classes=10, origin="test")


def network(networks: list[Network], name: str) -> Network:
    return next(n for n in networks if n.name == name)


def digits(step: int, side: int = 28) -> tuple[torch.Tensor, torch.Tensor]:
    noise = generator("digits", step)
    return torch.randint(256, (4, 1, side, side), generator=noise).to(torch.uint8), torch.arange(4)


def default_task(name: str, params, tokens_dir):
    """A task of the default's networks, small batches."""
    if name == "tokenizer":
        batches = partial(digits, side=params.data.image_size)
        return TokenizerTask(
            tokenizer_config(params),
            params.tokenizer.model_copy(update={"adversarial_start": 0}),
            lambda a, b: (a - b).abs().mean(),
            batches,
            batches(0)[0],
            seed=0,
            device=CPU,
        )
    if name == "classifier":
        config = costs.classifier_of(params, 10).config
        return ClassifierTask(config, params.classifier, digits, digits(0), 0, CPU)
    task_type = AutoregressiveTask if name == "autoregressive" else TransformerTask
    return task_type(params, tokens_dir, 10, seed=0, device=CPU)


def write_digit_tokens(folder: Path) -> Path:
    """A token cache of 80 + 4 images of ten classes, a view of 49 tokens each."""
    rng = np.random.default_rng(0)
    grids = {"train": [rng.integers(0, 64, (80, 1, 49))], "val": [rng.integers(0, 64, (4, 1, 49))]}
    labels = {split: rng.integers(0, 10, len(of[0])) for split, of in grids.items()}
    return write_token_cache(folder, grids, labels, codes=64)
