"""Computes rows of result files. Finished rows are stored, so that a killed run can resume."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.config.paths import CURVES, TOKENIZER
from pipeline.config.replicates import Replicate
from pipeline.runtime.batches import BatchWorkers, Maker, drop_parts, make_tensors
from pipeline.runtime.files import read_json, tree_hash, write_json
from pipeline.sampling import Sampler
from pipeline.weights.published import load_model

Row = dict[str, Any]


def measured_row(
    file: Path,
    workers: BatchWorkers,
    maker: Maker,
    batches: Sequence[tuple],
    name: str,
    measure: Callable[[dict[str, Tensor]], Row],
) -> Row:
    """Read a row of results from a JSON file. If the file does not exist, first compute the batches
    and write the file. After an interruption, the next call computes only the missing batches.

    Args:
        maker: creates the function that computes a batch's named tensors (see `Maker`).
        batches: the function's arguments for each batch.
        name: label of the batches in messages.
        measure: computes the row from the named tensors of all batches.
    """
    tensors = file.with_suffix(".safetensors")
    if not file.exists():
        row = measure(make_tensors(tensors, workers, maker, batches, name))
        write_json(file, row)
        print(f"{name}: {row['class_accuracy']:.1%} recognised as their class", flush=True)
    drop_parts(tensors)
    return read_json(file)


def open_sampler(replicate: Replicate, device: torch.device) -> Sampler:
    """Load the model of a training run and the tokenizer, and return a sampler that uses both."""
    model = load_model(replicate.folder, replicate.network, device)
    return Sampler(model, load_model(TOKENIZER, "tokenizer", device))


def curve_hash(schedule: str) -> str:
    """The hash of a mask schedule's tabulated curve. Keys of results include this hash, so that
    results are computed again if the curve changes."""
    return tree_hash(CURVES / f"{schedule}.csv")
