"""Times the networks on this machine: `python -m benchmarks [PRESET …]`, or `make bench`.

Prints, for each preset, the time and rate of a training step, of decoding and of the tokenizer. For
`maskgit plan --tflops`, divide the GFLOP/s of a training step by 1,000. Close other programs first;
OMP_NUM_THREADS sets the number of threads on a CPU.
"""

import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.benchmark import Timer

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive
from pipeline.config.params import Params
from pipeline.config.presets import preset_params
from pipeline.decoding.iterative import generate
from pipeline.decoding.settings import DecodingSettings
from pipeline.runtime.device import pick_device
from pipeline.runtime.precision import in_bfloat16
from pipeline.runtime.process import set_up
from pipeline.sampling import balanced_labels
from pipeline.tokenizer import Tokenizer
from pipeline.tools.plan import count_flops, data_size
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.configs import tokenizer_config, transformer_config

PRESETS = ("mnist5k", "imagenet256")  # the default, and the paper's size
SECONDS = 2.0  # shortest time to run each case
IMAGES = {"cpu": 4, "cuda": 64}  # largest batch size
ITERATIONS = 8  # T, the number of decoding steps


class Case(NamedTuple):
    """Something to time.

    Args:
        name: label to print.
        run: function to time.
        images: number of images that one call of `run` processes.
    """

    name: str
    run: Callable[[], object]
    images: int


def products(config: TransformerConfig, batch: int, device: torch.device) -> Iterator[Case]:
    """The transformer's largest matrix product, the reference for all other rates."""
    rows = batch * (config.num_tokens + 1)
    x = torch.randn(rows, config.hidden, device=device)
    weight = torch.randn(config.mlp, config.hidden, device=device)
    for dtype in _dtypes(device):
        a, b = x.to(dtype), weight.to(dtype)
        yield Case(f"product, {_name(dtype)}", lambda a=a, b=b: F.linear(a, b), batch)


def training_steps(config: TransformerConfig, batch: int, device: torch.device) -> Iterator[Case]:
    """A training step (forward, backward, AdamW) of MaskGIT's transformer on random tokens."""
    model = MaskGitTransformer(config).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.randint(config.codebook_size, (batch, config.num_tokens), device=device)
    masked, labels = tokens % 2 == 0, balanced_labels(batch, config.num_classes).to(device)

    def step(dtype: torch.dtype) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = model.predict(tokens, masked, labels)
        F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    for dtype in _dtypes(device):
        yield Case(f"training step, {_name(dtype)}", lambda dtype=dtype: step(dtype), batch)


def sampling(config: TransformerConfig, batch: int, device: torch.device) -> Iterator[Case]:
    """MaskGIT's parallel decoding and the baseline's autoregressive decoding of one batch."""
    ours = MaskGitTransformer(config).to(device).eval().requires_grad_(False)
    baseline = AutoregressiveTransformer(config).to(device).eval().requires_grad_(False)
    labels = balanced_labels(batch, config.num_classes)
    for dtype in _dtypes(device):
        bf16 = dtype == torch.bfloat16
        settings = DecodingSettings(ITERATIONS, "cosine", choice_temperature=4.5, bf16=bf16)
        yield Case(
            f"decoding, T = {ITERATIONS}, {_name(dtype)}",
            lambda how=settings: list(generate(ours, labels, how, seed=0)),
            batch,
        )
        yield Case(
            f"autoregressive with cache, {_name(dtype)}",
            lambda bf16=bf16: generate_autoregressive(baseline, labels, seed=0, bf16=bf16),
            batch,
        )


def coding(params: Params, batch: int, device: torch.device) -> Iterator[Case]:
    """The tokenizer's encoder and decoder in float32, the default precision of the pipeline."""
    model = Tokenizer(tokenizer_config(params)).to(device).eval().requires_grad_(False)
    side = params.data.image_size
    images = torch.rand(batch, params.data.channels, side, side, device=device)
    tokens = torch.zeros(batch, params.grid, params.grid, dtype=torch.long, device=device)
    yield Case("tokenizer, encode", lambda: model.encode(images), batch)
    yield Case("tokenizer, decode", lambda: model.decode(tokens), batch)


def cases(name: str, device: torch.device) -> Iterator[Case]:
    params = preset_params(name)
    config = transformer_config(params, data_size(params).classes)
    batch = min(params.training.batch_size, IMAGES[device.type])
    for kind in (products, training_steps, sampling):
        yield from kind(config, batch, device)
    yield from coding(params, batch, device)


def _dtypes(device: torch.device) -> list[torch.dtype]:
    return (
        [torch.bfloat16, torch.float32]
        if in_bfloat16(True, device, "products")
        else [torch.float32]
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main(names: list[str], seconds: float = SECONDS) -> None:
    set_up()  # as in every process of the pipeline
    device, threads = pick_device(), torch.get_num_threads()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{threads} threads"
    print(f"PyTorch {torch.__version__}, {device}, {where}")
    for name in names:
        print(f"\n{name:36} {'time':>10} {'images/s':>10} {'GFLOP/s':>10}")
        for case in cases(name, device):
            flops = count_flops(case.run)  # also warms up
            timer = Timer("run()", globals={"run": case.run}, num_threads=threads)
            median = timer.blocked_autorange(min_run_time=seconds).median
            rate = flops / median / 1e9
            print(
                f"{case.name:36} {median:8.4f} s {case.images / median:10,.1f} {rate:10,.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:] or list(PRESETS))
