"""How quick our training step and our decoding are beside those of networks of the shapes that two
other open reproductions of MaskGIT publish: `python -m tests.speed_of_others [step] [decoding]`, on
a machine with two idle cores; and where our step's time goes: `… profile`.

The others are **rebuilt from libraries' own layers** (`tests/other_networks.py`), and are not the
others' code: TiTok's `ImageBert` is BERT of `transformers`, and is left out where that is not
installed; Halton-MaskGIT's first version is torch's pre-norm encoder. All are of the paper's size,
and under bfloat16 autocast where the processor is quick in it; two threads, or `OMP_NUM_THREADS`.
All clip gradients at 1, which ours does if `training.grad_clip` says so.

They take turns, so that a machine whose speed changes does so for all. Of each the median counts,
and of ratios, which are those of a round, the median and the range: at 1.5 × another takes half as
long again as ours. It needs some 16 GB of memory.
"""

import dataclasses
import gc
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import profile

from pipeline.decoding import DecodingSettings, generate
from pipeline.runtime.device import computing_on, quick_in_bfloat16, seconds_of
from pipeline.runtime.process import THREADS, set_up
from pipeline.sampling import balanced_labels
from pipeline.tools.bench.subjects import Size, open_size, write_synthetic_cache
from pipeline.tools.bench.timing import product_rate, product_shapes
from pipeline.training.transformer import TransformerTask
from pipeline.transformer import MaskGitTransformer
from tests import other_networks as others

CPU = torch.device("cpu")
BATCHES, ROUNDS = (2, 4, 8), 7
ITERATIONS, SCHEDULE = 8, "cosine"
PROFILED = 3  # steps
OURS = "ours"
Runs = dict[str, Callable[[], object]]

# What an operation of torch is part of; of nested ones the outermost counts.
PARTS = {
    "linear layers' products": ("aten::mm", "aten::addmm"),
    "GELU": ("aten::gelu", "aten::gelu_backward"),
    "attention: products and softmax": (
        "aten::bmm",
        "aten::_softmax",
        "aten::_softmax_backward_data",
    ),
    "casts and copies": ("aten::copy_", "aten::cat"),
    "AdamW": ("aten::_fused_adamw_",),
    "averaged weights": ("aten::_foreach_lerp_",),
    "clipping of gradients": ("aten::_foreach_norm", "aten::_foreach_mul_"),
    "dropout (and q / √d)": ("aten::random_", "aten::ge_", "aten::mul", "aten::mul_"),
    "LayerNorm": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
}
PART_OF = {name: part for part, names in PARTS.items() for name in names}
PRODUCTS, REST = "linear layers' products", "rest"


def paper_size(batch: int) -> Size:
    """As `maskgit bench` times it, in bfloat16."""
    size = open_size("paper", CPU)
    changes = {"batch_size": batch, "bf16": True, "grad_clip": 1.0, "mask_schedule": SCHEDULE}
    training = size.params.training.model_copy(update=changes)
    params = size.params.model_copy(update={"training": training})
    return dataclasses.replace(size, params=params, batch=batch)


def our_step(size: Size, folder: Path) -> Callable[[], object]:
    task = TransformerTask(size.params, folder, size.classes, seed=0, device=CPU)
    steps = itertools.count()
    return lambda: task.step(next(steps))


def steps_of_all(batch: int, folder: Path) -> Runs:
    theirs = {
        name: others.training_step(build(), batch) for name, build in others.networks().items()
    }
    return {OURS: our_step(paper_size(batch), folder)} | theirs


def decodings_of_all(batch: int, folder: Path) -> Runs:
    size = paper_size(batch)
    temperature = size.params.decoding.choice_temperature
    settings = DecodingSettings(ITERATIONS, SCHEDULE, temperature, bf16=True)
    model = MaskGitTransformer(size.config).eval().requires_grad_(False)
    labels = balanced_labels(batch, size.classes)
    theirs = {
        name: others.decoding(build(), batch, ITERATIONS, temperature)
        for name, build in others.networks().items()
    }
    return {OURS: lambda: generate(model, labels, settings, seed=0)} | theirs


def in_turns(runs: Runs) -> dict[str, list[float]]:
    """Seconds of each round, after one that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 1):
        for name, run in runs.items():
            seconds[name].append(seconds_of(run, CPU))
    return {name: taken[1:] for name, taken in seconds.items()}


def compare(what: str, prepare: Callable[[int, Path], Runs], folder: Path) -> None:
    """Print a table: a row for each batch."""
    for batch in BATCHES:
        taken = in_turns(prepare(batch, folder))
        gc.collect()  # a batch's networks, with their optimizers, are 10 GB or more
        if batch == BATCHES[0]:
            print_row(f"{what}, batch", *taken)
            print_row(*["---"] * (1 + len(taken)))
        ours = taken.pop(OURS)
        print_row(f"{batch}", f"{statistics.median(ours):.2f} s", *_beside(ours, taken.values()))


def _beside(ours: list[float], theirs: Iterable[list[float]]) -> Iterator[str]:
    for seconds in theirs:
        ratios = sorted(other / own for other, own in zip(seconds, ours, strict=True))
        yield (
            f"{statistics.median(seconds):.2f} s, {statistics.median(ratios):.2f} × "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def part_of(event: FunctionEvent) -> str:
    part = REST
    outer: FunctionEvent | None = event
    while outer is not None:
        part = PART_OF.get(outer.name, part)
        outer = outer.cpu_parent
    return part


def profiled(batch: int, folder: Path) -> tuple[dict[str, float], float]:
    """Seconds of a step by part, and FLOP of its linear layers' products."""
    step = our_step(paper_size(batch), folder)
    step()
    with profile(activities=[torch.profiler.ProfilerActivity.CPU], with_flops=True) as found:
        for _ in range(PROFILED):
            step()
    seconds, flops = dict.fromkeys([*PARTS, REST], 0.0), 0.0
    for event in found.events():
        part = part_of(event)
        seconds[part] += event.self_cpu_time_total / 1e6 / PROFILED
        flops += (event.flops or 0) / PROFILED if part == PRODUCTS else 0
    return seconds, flops


def rate_alone(batch: int) -> float:
    """FLOP/s of a layer's products, each repeated by itself."""
    precision = "bfloat16" if quick_in_bfloat16(CPU) else "float32"
    *shapes, _ = product_shapes(paper_size(batch).config, batch)
    flops = [2 * m * k * n for m, k, n in shapes]
    rates = [product_rate(shape, precision, CPU) for shape in shapes]
    return sum(flops) / sum(flop / rate for flop, rate in zip(flops, rates, strict=True))


def print_profile(folder: Path) -> None:
    """Print a table: a row for each part of our step, a column for each batch."""
    columns, flops = zip(*(profiled(batch, folder) for batch in BATCHES), strict=True)
    print_row("of a training step, by batch", *map(str, BATCHES))
    print_row(*["---"] * (1 + len(BATCHES)))
    for part in (*PARTS, REST):
        print_row(part, *(f"{column[part] / sum(column.values()):.1%}" for column in columns))
    print_row("seconds in all", *(f"{sum(column.values()):.2f}" for column in columns))
    pairs = zip(columns, flops, strict=True)
    rates = [flop / column[PRODUCTS] for column, flop in pairs]
    print_row("GFLOP/s of those products", *(f"{rate / 1e9:.0f}" for rate in rates))
    print_row("of products alone", *(f"{rate_alone(batch) / 1e9:.0f}" for batch in BATCHES))


def main(names: list[str]) -> None:
    set_up()  # as every process of the pipeline
    torch.set_num_threads(int(os.environ.get(THREADS, 2)))
    work = {"step": steps_of_all, "decoding": decodings_of_all}
    if unknown := set(names) - {*work, "profile"}:
        sys.exit(f"{', '.join(sorted(unknown))}: none of {', '.join(work)}, profile")
    print(f"{computing_on()}, threads: {torch.get_num_threads()}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_synthetic_cache(paper_size(BATCHES[0]), Path(folder))
        for name in names or work:
            if name == "profile":
                print_profile(Path(folder))
            else:
                compare(name, work[name], Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
