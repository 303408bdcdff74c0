"""Named tensors that are made batch by batch, and joined along their first axis."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.runtime.arrays import drop_parts, make_parts, write_files
from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import atomic_file, file_hash
from pipeline.runtime.workers import Alone, Maker


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write named tensors, as safetensors."""
    from safetensors.torch import save

    content = save(tensors)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)  # the library has an error of its own for a full disk


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
    path: Path, workers: Alone, maker: Maker, batches: Sequence[tuple], name: str
) -> dict[str, Tensor]:
    """Make named tensors batch by batch. The batches that are finished lie in the `parts_folder` of
    the path, for a run that goes on after a killed one: to delete them is the caller's.

    Args:
        path: a .safetensors, of which there are parts alone.
        maker: makes the batches.
        batches: the arguments of each, in order.
        name: names the tensors in messages.
    """
    return joined(_alike(make_parts({path: batches}, workers, maker, name, save_tensors)[path]))


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
    weights: Path, folder: Path, workers: Alone, maker: Maker, batches: Sequence[tuple], name: str
) -> dict[str, Tensor]:
    """Make named tensors with a network, and keep nothing of them.

    Args:
        weights: the network's file. What a killed run has made with others is not taken up.
        folder: for the batches that are finished.
    """
    path = folder / f"{file_hash(weights)[:16]}.safetensors"
    tensors = make_tensors(path, workers, maker, batches, name)
    drop_parts(path)
    return tensors


def write_tensors(
    files: Mapping[Path, Sequence[tuple]], workers: Alone, maker: Maker, name: str
) -> dict[Path, dict[str, Tensor]]:
    """Make named tensors of several files and keep them there, as `write_files` does."""
    write_files(files, workers, maker, name, save_tensors, _join)
    return {path: load_tensors(path) for path in files}


def _join(parts: Sequence[Path], path: Path) -> None:
    save_tensors(joined(_alike(parts)), path)


def joined(batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of batches, as if these were one."""
    return {name: torch.cat([each[name] for each in batches]) for name in batches[0]}
