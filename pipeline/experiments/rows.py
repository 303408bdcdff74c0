"""The rows of result files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.runtime.batches import BatchWorkers, Maker, drop_parts, make_tensors
from pipeline.runtime.files import read_json, write_json

Row = dict[str, Any]


def measured_row(
    file: Path,
    workers: BatchWorkers,
    maker: Maker,
    batches: Sequence[tuple],
    name: str,
    measure: Callable[[dict[str, Tensor]], Row],
) -> Row:
    """Read the row in a JSON file. If the file does not exist, make the batches, measure them and
    write the file; a killed run resumes after its last batch.

    Args:
        maker: opens a function that makes named tensors from the arguments of a batch, such as
            `Evaluator.on_the_fly`.
        name: names the batches in messages.
        measure: gives the row, from the named tensors of all batches.
    """
    tensors = file.with_suffix(".safetensors")
    if not file.exists():
        row = measure(make_tensors(tensors, workers, maker, batches, name))
        write_json(file, row)
        print(f"{name}: {row['class_accuracy']:.1%} recognised", flush=True)
    drop_parts(tensors)
    return read_json(file)
