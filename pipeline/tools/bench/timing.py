"""Medians of wall-clock time, and the rate of matrix products, which other rates are compared
with."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pipeline.runtime.device import quick_in_bfloat16, seconds_of
from pipeline.transformer import TransformerConfig

PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
BLOCK = 0.05  # seconds of products that are timed together


@dataclass(frozen=True)
class Timing:
    seconds: float  # the median
    repeats: int


def measure(
    run: Callable[[], object], device: torch.device, *, repeats: int = 5, warm_up: int = 1
) -> Timing:
    """The median time of `repeats` runs after `warm_up` runs; the device has finished each."""
    for _ in range(warm_up):
        run()
    return Timing(statistics.median(seconds_of(run, device) for _ in range(repeats)), repeats)


def product_shapes(config: TransformerConfig, batch: int) -> list[tuple[int, int, int]]:
    """(m, k, n) of the products (m × k)·(k × n) that the transformer consists of, and a large
    square one."""
    m, d, mlp = batch * (config.num_tokens + 1), config.hidden, config.mlp
    return [(m, d, 3 * d), (m, d, d), (m, d, mlp), (m, mlp, d), (2048, 2048, 2048)]


def precisions(device: torch.device) -> list[str]:
    """Those that the networks compute in there."""
    quick = quick_in_bfloat16(device)
    return [name for name in PRECISIONS if quick or name != "bfloat16"]


def product_rate(
    shape: tuple[int, int, int], precision: str, device: torch.device, repeats: int = 9
) -> float:
    """Sustained FLOP/s of one product, over blocks of at least `BLOCK` seconds."""
    m, k, n = shape
    noise = torch.Generator(device).manual_seed(0)
    x, weight = (
        torch.randn(rows, k, generator=noise, device=device).to(PRECISIONS[precision])
        for rows in (m, n)
    )
    once = measure(lambda: F.linear(x, weight), device, repeats=3, warm_up=2).seconds
    count = max(1, round(BLOCK / once))

    def block() -> None:
        for _ in range(count):
            F.linear(x, weight)

    return 2 * m * k * n * count / measure(block, device, repeats=repeats).seconds
