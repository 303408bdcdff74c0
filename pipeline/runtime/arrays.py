"""Files that are made batch by batch, arrays above all, and kept as far as they are made."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.runtime.files import PARTS, atomic_file, remove_temporary
from pipeline.runtime.progress import PAUSE, progress
from pipeline.runtime.workers import Alone, Maker


def join_arrays(parts: Sequence[Path], path: Path) -> None:
    """Join `.npy` files along the first axis, one in memory at a time."""
    mapped = [np.load(part, mmap_mode="r") for part in parts]
    shape = (sum(len(array) for array in mapped), *mapped[0].shape[1:])
    descr = np.lib.format.dtype_to_descr(mapped[0].dtype)
    del mapped
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    with atomic_file(path) as temporary, open(temporary, "wb") as out:
        np.lib.format.write_array_header_1_0(out, header)
        for part in parts:
            out.write(np.load(part))


def save_array(array: Any, path: Path) -> None:
    """Write an array, or a tensor on the CPU, as an .npy."""
    with atomic_file(path) as temporary, open(temporary, "wb") as out:
        np.save(out, np.ascontiguousarray(array))


def write_files(
    files: Mapping[Path, Sequence[tuple]],
    workers: Alone,
    maker: Maker,
    name: str,
    save: Callable[[Any, Path], None] = save_array,
    join: Callable[[Sequence[Path], Path], None] = join_arrays,
) -> None:
    """Make files, unless an earlier run has. Their batches are shared as if they
    were one's.

    Each finished batch is kept in `<path>.parts`, so that a run that was killed goes on after it. A
    process never has more than one batch in memory, unless it joins them so.

    Args:
        files: the arguments of each batch, in order.
        maker: makes the batches: of an .npy arrays or tensors on the CPU.
        name: names the files in messages.
        save: importable; writes a batch to its file, whole or not at all.
        join: writes the file of its batches' files.

    Raises:
        UserError: the files cannot be written, or the maker's.
    """
    missing = {path: batches for path, batches in files.items() if not path.exists()}
    for path, parts in make_parts(missing, workers, maker, name, save).items():
        join(parts, path)
    for path in files:
        drop_parts(path)


def parts_folder(path: Path) -> Path:
    """Where the parts of a file lie until they are joined."""
    return path.with_name(f"{path.name}{PARTS}")


def drop_parts(path: Path) -> None:
    """Delete the parts of a file, if there are any."""
    shutil.rmtree(parts_folder(path), ignore_errors=True)


def make_parts(
    files: Mapping[Path, Sequence[tuple]],
    workers: Alone,
    maker: Maker,
    name: str,
    save: Callable[[Any, Path], None],
) -> dict[Path, list[Path]]:
    """Of each file the files of its batches, in order, in its `parts_folder`; those that are there
    are kept.

    Args:
        save: as for `write_files`.
    """
    parts: dict[Path, list[Path]] = {}
    arguments: dict[Path, tuple] = {}
    for path, batches in files.items():
        folder = parts_folder(path)
        parts[path] = [folder / f"{number:06d}{path.suffix}" for number in range(len(batches))]
        arguments |= zip(parts[path], batches, strict=True)
    for _ in making(arguments, workers, maker, name, save):
        pass
    return parts


def making(
    parts: Mapping[Path, tuple],
    workers: Alone,
    maker: Maker,
    name: str,
    save: Callable[[Any, Path], None],
    before: int = 0,
) -> Iterator[Path]:
    """Make the files of batches, but for those that are there; yields each when it is
    there, in any order, and can do without it then.

    Args:
        parts: the arguments of each batch, by its file.
        save: as for `write_files`.
        before: how many batches are not among them, since nobody needs them again.
    """
    for folder in {part.parent for part in parts}:
        remove_temporary(folder)
    total, missing = before + len(parts), {p: a for p, a in parts.items() if not p.exists()}
    done = total - len(missing)
    if done:
        print(f"{name}: going on from batch {done} of {total}", flush=True)
    with progress(name, done, total, pause=PAUSE) as bar:
        yield from [part for part in parts if part not in missing]
        for number, part in enumerate(workers.make(maker, missing, save), start=done + 1):
            bar(number)
            yield part
