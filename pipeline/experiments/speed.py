"""Figure 4: time per image against the number of tokens (paper, section 4.2), from label to tokens.
The tokenizer's time is the same for all methods and left out."""

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive
from pipeline.config.params import Params
from pipeline.data.seeds import mix
from pipeline.decoding import generate
from pipeline.experiments.rows import Row
from pipeline.runtime.device import seconds_of, worker_device
from pipeline.runtime.files import read_json, write_json
from pipeline.transformer import MaskGitTransformer, TokenTransformer, TransformerConfig
from pipeline.weights.configs import transformer_config


@dataclass(frozen=True)
class SpeedJob:
    """All timings. It may travel to a worker."""

    params: Params
    num_classes: int
    folder: Path  # its run directory, absolute
    name = "timing"

    @property
    def folders(self) -> list[Path]:
        return [self.folder]


def run_speed(job: SpeedJob) -> list[Row]:
    """Time every grid on this process's device, except those that a killed run has timed on one
    of that name with as many threads; returns all rows.

    Raises:
        UserError: `ray.use_gpu`, and there is no GPU here.
    """
    device, rows = worker_device(job.params.ray.use_gpu), []
    name = re.sub(r"\W+", "-", device_name(device))
    for grid in job.params.speed.grids:
        # Times are compared within a grid, so that all of them are of one process.
        file = job.folder / f"{name}-{torch.get_num_threads()}-{grid}.json"
        if not file.exists():
            write_json(file, speed_rows(job.params, grid, job.num_classes, device))
        rows += read_json(file)
    return rows


@dataclass(frozen=True)
class Method:
    """A way to generate tokens."""

    network: TokenTransformer
    iterations: int  # forward passes per image
    draw: Callable[[Tensor], Tensor]  # labels (B,) → tokens (B, N)


def methods(params: Params, config: TransformerConfig, device: torch.device) -> dict[str, Method]:
    """MaskGIT, and the autoregressive baseline with and without its key-value cache. Their weights
    are random, since the time does not depend on them.

    All compute in bfloat16 if both `decoding.bf16` and `autoregressive.bf16` are set, else in
    float32, in which the baseline draws the same tokens with and without its cache.
    """
    torch.manual_seed(mix(params.seed, "speed", config.num_tokens))
    maskgit = MaskGitTransformer(config).to(device).eval().requires_grad_(False)
    baseline = AutoregressiveTransformer(config).to(device).eval().requires_grad_(False)
    bf16 = params.decoding.bf16 and params.autoregressive.bf16
    iterations = min(params.decoding.iterations, config.num_tokens)
    settings = replace(params.decoding_settings(iterations=iterations), bf16=bf16)
    common: dict[str, Any] = {"seed": params.seed, "device": device}

    def parallel(labels: Tensor) -> Tensor:
        return generate(maskgit, labels, settings, **common)[-1].sampled

    def one_by_one(cache: bool) -> Callable[[Tensor], Tensor]:
        return lambda labels: generate_autoregressive(
            baseline, labels, bf16=bf16, cache=cache, **common
        )

    return {
        "maskgit": Method(maskgit, iterations, parallel),
        "ar_cached": Method(baseline, config.num_tokens, one_by_one(cache=True)),
        "ar_uncached": Method(baseline, config.num_tokens, one_by_one(cache=False)),
    }


def speed_rows(params: Params, grid: int, num_classes: int, device: torch.device) -> list[Row]:
    """A row for every batch size and method at grid² tokens: median, minimum and maximum time per
    image in seconds, over `speed.repeats` rounds after a warm-up.

    A round times every method once, so that other work on the machine slows all of them alike.
    """
    config = replace(transformer_config(params, num_classes), num_tokens=grid**2)
    timed, rows = methods(params, config, device), []
    for batch_size in params.speed.batch_sizes:
        labels = torch.arange(batch_size) % num_classes
        rounds = [
            [
                seconds_of(partial(method.draw, labels), device) / batch_size
                for method in timed.values()
            ]
            for _ in range(1 + params.speed.repeats)
        ]
        for (name, method), times in zip(timed.items(), zip(*rounds[1:], strict=True), strict=True):
            row = {"method": name, "tokens": config.num_tokens, "batch_size": batch_size}
            row |= {"iterations": method.iterations}
            row |= {"seconds_per_image": statistics.median(times)}
            row |= {"low": min(times), "high": max(times), "repeats": len(times)}
            row |= {"parameters": sum(p.numel() for p in method.network.parameters())}
            row |= {"threads": torch.get_num_threads(), "device": device_name(device)}
            rows.append(row)
            print(
                f"speed: {config.num_tokens} tokens, batch {batch_size}, {name}: "
                f"{row['seconds_per_image']:.4f} s per image",
                flush=True,
            )
    return rows


def device_name(device: torch.device) -> str:
    """The name of the GPU, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
