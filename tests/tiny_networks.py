"""Tiny networks for tests, and seeded inputs."""

import torch

from pipeline.transformer import TransformerConfig

TINY = TransformerConfig(
    num_tokens=9, codebook_size=20, num_classes=4, layers=2, hidden=32, heads=4, mlp=64, dropout=0.1
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spread(network, config: TransformerConfig = TINY, seed: int = 0):
    """Return a frozen network whose outputs depend strongly on its inputs."""
    torch.manual_seed(seed)
    model = network(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.3)
    return model.eval().requires_grad_(False)


def inputs(config: TransformerConfig = TINY, size: int = 5):
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(config.codebook_size, (size, config.num_tokens), generator=draw)
    mask = torch.rand(size, config.num_tokens, generator=draw) < 0.5
    return tokens, mask, torch.randint(config.num_classes, (size,), generator=draw)
