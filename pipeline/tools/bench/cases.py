"""The cases: training step, decoding, autoregressive sampling, tokenizer, token loader."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.autoregressive import (
    AutoregressiveTransformer,
    generate_autoregressive,
    next_token_logits,
)
from pipeline.data.order import BatchOrder
from pipeline.data.tokens import TokenCache
from pipeline.decoding import DecodingSettings, generate
from pipeline.sampling import balanced_labels
from pipeline.tokenizer import Tokenizer
from pipeline.tools.bench.subjects import (
    EncoderLayerTask,
    EncoderLayerTransformer,
    Size,
    write_synthetic_cache,
)
from pipeline.tools.bench.timing import Timing, measure, precisions
from pipeline.tools.plan import costs
from pipeline.training.transformer import TransformerTask
from pipeline.transformer import MaskGitTransformer, with_bfloat16_linears
from pipeline.weights.configs import tokenizer_config

SCHEDULE = "cosine"
ITERATIONS = 8  # T of the decoding
POSITIONS = (
    16  # tokens that are sampled, where autoregressive sampling without a cache would take too long
)
LOADER_BATCH = 256
MODEL, LAYERS = "MaskGIT", "EncoderLayer"


@dataclass(frozen=True)
class Result:
    """One case, timed."""

    case: str
    network: str
    precision: str
    timing: Timing  # of one run
    flops: int  # of the matrix products and convolutions of one run; 0 where it has none
    items: int  # how many `unit`s one run processes
    unit: str = "images"
    extrapolated: bool = False


def run_cases(size: Size, device: torch.device, folder: Path) -> Iterator[Result]:
    """Run every case; of a kind the slowest comes last.

    Args:
        folder: an empty folder, for a synthetic token cache.
    """
    write_synthetic_cache(size, folder)
    yield token_loading(size, device, folder)
    yield from tokenizer_coding(size, device)
    quick = precisions(device)
    for precision in quick:
        yield training_step(size, device, folder, TransformerTask, precision)
    yield training_step(size, device, folder, EncoderLayerTask, "float32")
    ours, layers, causal = (
        MaskGitTransformer(size.config).to(device).eval().requires_grad_(False),
        EncoderLayerTransformer(size.config).to(device).eval().requires_grad_(False),
        AutoregressiveTransformer(size.config).to(device).eval().requires_grad_(False),
    )
    for precision in quick:
        yield decoding(size, device, ours, precision)
    yield decoding(size, device, layers, "float32")
    for cache, precision in itertools.product((True, False), quick):
        yield autoregressive(size, device, causal, precision, cache)


def token_loading(size: Size, device: torch.device, folder: Path) -> Result:
    tokens = TokenCache(folder, "train")
    order, steps = BatchOrder(len(tokens), LOADER_BATCH, 0), itertools.count()
    views = np.arange(LOADER_BATCH) % tokens.views
    timing = measure(lambda: tokens.batch(order(next(steps)), views), device, repeats=50)
    return Result("token loading", "", "uint16", timing, 0, LOADER_BATCH, "grids")


def tokenizer_coding(size: Size, device: torch.device) -> Iterator[Result]:
    """Encoding and decoding in float32, as `cache_tokens` and sampling do."""
    config, grid, batch = tokenizer_config(size.params), size.params.grid, size.batch
    model, data = Tokenizer(config).to(device).eval(), size.params.data
    images = torch.rand(batch, data.channels, data.image_size, data.image_size, device=device)
    tokens = torch.zeros(batch, grid, grid, dtype=torch.long, device=device)
    flops = costs.tokenizer_coding(config, grid, batch)
    for case, run, count in (
        ("tokenizer encoding", lambda: model.encode(images), flops[0]),
        ("tokenizer decoding", lambda: model.decode(tokens), flops[1]),
    ):
        yield Result(case, "tokenizer", "float32", measure(run, device, repeats=3), count, batch)


def training_step(
    size: Size, device: torch.device, folder: Path, task_type: type[TransformerTask], precision: str
) -> Result:
    """`TransformerTask.step`: loading, forward, backward, optimizer, averaged weights."""
    changes = {"bf16": precision == "bfloat16", "mask_schedule": SCHEDULE}
    training = size.params.training.model_copy(update=changes)
    params = size.params.model_copy(update={"training": training})
    task = task_type(params, folder, size.classes, seed=0, device=device)
    steps = itertools.count()
    timing = measure(lambda: task.step(next(steps)), device)
    meta = costs.on_meta(lambda: MaskGitTransformer(size.config))
    rows = costs.head_rows(params, SCHEDULE, size.batch)
    flops = costs.training_flops(lambda: costs.transformer_forward(meta, size.batch, rows))
    network = LAYERS if task_type is EncoderLayerTask else MODEL
    return Result("training step", network, precision, timing, flops, size.batch)


def decoding(size: Size, device: torch.device, model: MaskGitTransformer, precision: str) -> Result:
    labels = balanced_labels(size.batch, size.classes)

    settings = DecodingSettings(
        iterations=ITERATIONS,
        schedule=SCHEDULE,
        choice_temperature=size.params.decoding.choice_temperature,
        bf16=precision == "bfloat16",
    )

    def run(settings: DecodingSettings = settings) -> None:
        generate(model, labels, settings, seed=0, device=device)

    flops = ITERATIONS * costs.decoding_pass(size.config, size.batch)
    name = LAYERS if isinstance(model, EncoderLayerTransformer) else MODEL
    run(dataclasses.replace(settings, iterations=1))
    timing = measure(run, device, warm_up=0, repeats=5 if precision == "bfloat16" else 3)
    return Result(f"decoding, T = {ITERATIONS}", name, precision, timing, flops, size.batch)


def autoregressive(
    size: Size, device: torch.device, model: AutoregressiveTransformer, precision: str, cache: bool
) -> Result:
    labels = balanced_labels(size.batch, size.classes)
    bf16, n = precision == "bfloat16", size.config.num_tokens
    cut = size.extrapolate and not cache
    if cut:
        timing = _sampled_positions(model, labels.to(device), bf16, device)
    else:
        timing = measure(
            lambda: generate_autoregressive(
                model, labels, seed=0, bf16=bf16, cache=cache, device=device
            ),
            device,
            warm_up=0,  # it has many steps
            repeats=3,
        )
    if cache:
        flops = costs.autoregressive_sampling(size.config, size.batch)
    else:
        each = (costs.next_token(size.config, size.batch, p, cache=False) for p in positions(n))
        flops = round(n * sum(each) / len(positions(n)))
    case = f"autoregressive, {'with' if cache else 'no'} cache"
    return Result(case, "VQGAN∗", precision, timing, flops, size.batch, extrapolated=cut)


def positions(num_tokens: int) -> list[int]:
    """At most `POSITIONS` positions of the sequence: the middles of as many equal parts."""
    count = min(POSITIONS, num_tokens)
    return [(2 * i + 1) * num_tokens // (2 * count) for i in range(count)]


@torch.no_grad()
def _sampled_positions(
    model: AutoregressiveTransformer, labels: torch.Tensor, bf16: bool, device: torch.device
) -> Timing:
    """Time of all positions, extrapolated from the time of some. Each of these is run once, as in
    sampling, where every step has another length."""
    n = model.config.num_tokens
    model = with_bfloat16_linears(model) if bf16 else model
    ids = model.sequence(torch.zeros(len(labels), n, dtype=torch.long, device=device), labels)

    def run(chosen: list[int]) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for position in chosen:
                next_token_logits(model, ids, position)

    chosen = positions(n)
    run([0])
    timing = measure(lambda: run(chosen), device, repeats=1, warm_up=0)
    return Timing(timing.seconds * n / len(chosen), 1)
