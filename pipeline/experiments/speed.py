"""Measures how the time per image grows with the number of tokens, for Figure 4 (paper, section
4.2). Only token generation is timed: decoding to pixels takes the same time for all methods."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive
from pipeline.config.params import Params
from pipeline.data.seeds import mix
from pipeline.decoding.iterative import generate
from pipeline.experiments.rows import Row
from pipeline.runtime.device import seconds_of, worker_device
from pipeline.transformer import MaskGitTransformer, TokenTransformer, TransformerConfig
from pipeline.weights.configs import transformer_config


def run_speed(params: Params, num_classes: int) -> list[Row]:
    """Time all methods on this process's device, and return rows for every token grid in
    `speed.grids`. Raises a `UserError` if `ray.use_gpu` is true, but PyTorch finds no GPU."""
    device = worker_device(params.ray.use_gpu)
    grids = params.speed.grids
    return [row for grid in grids for row in speed_rows(params, grid, num_classes, device)]


@dataclass(frozen=True)
class Method:
    """A method of generating tokens: MaskGIT or the autoregressive baseline."""

    network: TokenTransformer
    iterations: int  # forward passes per image
    draw: Callable[[Tensor], Tensor]  # maps labels (B,) to tokens (B, N)


def methods(params: Params, config: TransformerConfig, device: torch.device) -> dict[str, Method]:
    """Create MaskGIT, and the autoregressive baseline with and without a key-value cache. Weights
    are random, since the time does not depend on the weights.

    All methods run in bfloat16 if both `decoding.bf16` and `autoregressive.bf16` are true, else in
    float32. In float32, the baseline draws the same tokens with and without the cache.
    """
    torch.manual_seed(mix(params.seed, "speed", config.num_tokens))
    maskgit = MaskGitTransformer(config).to(device).eval().requires_grad_(False)
    baseline = AutoregressiveTransformer(config).to(device).eval().requires_grad_(False)
    bf16 = params.decoding.bf16 and params.autoregressive.bf16
    iterations = min(params.decoding.iterations, config.num_tokens)
    settings = replace(params.decoding_settings(iterations=iterations), bf16=bf16)

    def parallel(labels: Tensor) -> Tensor:
        return list(generate(maskgit, labels, settings, seed=params.seed))[-1].sampled

    def one_by_one(cache: bool) -> Callable[[Tensor], Tensor]:
        how: dict[str, Any] = {"seed": params.seed, "bf16": bf16, "cache": cache}
        return lambda labels: generate_autoregressive(baseline, labels, **how)

    return {
        "maskgit": Method(maskgit, iterations, parallel),
        "ar_cached": Method(baseline, config.num_tokens, one_by_one(cache=True)),
        "ar_uncached": Method(baseline, config.num_tokens, one_by_one(cache=False)),
    }


def speed_rows(params: Params, grid: int, num_classes: int, device: torch.device) -> list[Row]:
    """Time all methods at grid² tokens. Returns a row for each batch size and method, with median,
    minimum and maximum seconds per image over `speed.repeats` rounds after a warm-up. A round times
    every method once, so that other load on the machine slows all methods equally."""
    config = replace(transformer_config(params, num_classes), num_tokens=grid**2)
    timed, rows = methods(params, config, device), []
    name_of_device = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    for batch_size in params.speed.batch_sizes:
        labels = torch.arange(batch_size) % num_classes
        draws = [partial(method.draw, labels) for method in timed.values()]
        rounds = [
            [seconds_of(draw, device) / batch_size for draw in draws]
            for _ in range(1 + params.speed.repeats)
        ]
        for (name, method), times in zip(timed.items(), zip(*rounds[1:], strict=True), strict=True):
            row = {"method": name, "tokens": config.num_tokens, "batch_size": batch_size}
            row |= {"device": name_of_device, "high": max(times)}
            row |= {"iterations": method.iterations, "low": min(times)}
            row |= {"parameters": sum(p.numel() for p in method.network.parameters())}
            row |= {"repeats": len(times), "seconds_per_image": statistics.median(times)}
            row |= {"threads": torch.get_num_threads()}
            rows.append(row)
            what = f"{config.num_tokens} tokens, batch {batch_size}, {name}"
            print(f"speed: {what}: {row['seconds_per_image']:.4f} s per image", flush=True)
    return rows
