"""Named tensors that are made batch by batch, and joined along their first axis."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.runtime.arrays import drop_parts, make_parts
from pipeline.runtime.checksums import keep_if_whole, note_hash
from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import atomic_file, file_hash
from pipeline.runtime.workers import Alone, Maker


def save_tensors(tensors: dict[str, Tensor], path: Path, durable: bool = True) -> None:
    """Write named tensors, as safetensors.

    Args:
        durable: as for `atomic_file`.
    """
    from safetensors.torch import save

    content = save(tensors)
    with atomic_file(path, durable) as temporary:
        temporary.write_bytes(content)  # the library has an error of its own for a full disk


def save_part(tensors: dict[str, Tensor], path: Path) -> None:
    """The same of a batch, which is compared with its hash, and made again if need be."""
    save_tensors(tensors, path, durable=False)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `save_tensors` wrote.

    Raises:
        UserError: it holds something else.
    """
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # a damaged file makes its reader raise nearly anything
        require_readable(path, error)
        raise UserError(
            f"{path} is damaged ({one_line(str(error))[:150]}); delete it, run again"
        ) from error


def make_tensors(
    files: Mapping[Path, Sequence[tuple]], workers: Alone, maker: Maker, name: str
) -> dict[Path, dict[str, Tensor]]:
    """Make named tensors of several files, whose batches are shared as if they were one's. The
    batches that are finished lie in the `parts_folder` of each, for a run that goes on after a
    killed one: to delete them is the caller's.

    Args:
        files: the arguments of each batch, in order; .safetensors, of which there are parts alone.
        maker: makes the batches.
        name: names the tensors in messages.
    """
    made = make_parts(files, workers, maker, name, save_part)
    return {path: joined(_alike(parts)) for path, parts in made.items()}


def _alike(parts: Sequence[Path]) -> list[dict[str, Tensor]]:
    """The tensors of parts.

    Raises:
        UserError: one holds others than the first.
    """
    found = [load_tensors(part) for part in parts]
    rows = [{name: (x.shape[1:], x.dtype) for name, x in each.items()} for each in found]
    for part, own in zip(parts, rows, strict=True):
        if own != rows[0] or not own:
            raise UserError(
                f"{part} is damaged: it holds no tensors as the first part's; delete its folder, "
                f"run again"
            )
    return found


def tensors_of(
    weights: Path, folder: Path, batches: Sequence[tuple], workers: Alone, maker: Maker, name: str
) -> dict[str, Tensor]:
    """Make named tensors with a network, and keep nothing of them.

    Args:
        weights: the network's file. What a killed run has made with others is not taken up.
        folder: for the batches that are finished.
        batches: the arguments of each, in order.
    """
    path = folder / f"{file_hash(weights)[:16]}.safetensors"
    tensors = make_tensors({path: batches}, workers, maker, name)[path]
    drop_parts(path)
    return tensors


def write_tensors(
    files: Mapping[Path, Sequence[tuple]], workers: Alone, maker: Maker, name: str
) -> dict[Path, dict[str, Tensor]]:
    """The same, kept in the files: those that are there and whole are not made again."""
    missing = {path: batches for path, batches in files.items() if not keep_if_whole(path)}
    for path, tensors in make_tensors(missing, workers, maker, name).items():
        save_tensors(tensors, path)
        note_hash(path)
    for path in files:
        drop_parts(path)
    return {path: load_tensors(path) for path in files}


def joined(batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of batches, as if these were one."""
    return {name: torch.cat([each[name] for each in batches]) for name in batches[0]}
