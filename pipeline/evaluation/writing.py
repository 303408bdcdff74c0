"""Writing the images that a model makes, batch by batch."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from pipeline.runtime.files import atomic_file
from pipeline.runtime.progress import PAUSE, progress


def write_images(path: Path, batches: Sequence[Callable[[], Tensor]], name: str) -> None:
    """Make a set of images and write it to `path`. If the file exists, which it does only when it
    is complete, it is read instead.

    Each finished batch is kept in `<path>.parts`, so that a run that was killed goes on after it.
    There is never more than one batch in memory.

    Args:
        path: an .npy, (M, C, H, W) uint8.
        batches: functions that make the batches (B, C, H, W) uint8, on the CPU.
        name: names the set in messages.

    Raises:
        UserError: the files cannot be written.
    """
    folder = path.with_name(f"{path.name}.parts")
    if not path.exists():
        parts = [folder / f"{number:06d}.npy" for number in range(len(batches))]
        _make_parts(parts, batches, name)
        _join(parts, path)
    shutil.rmtree(folder, ignore_errors=True)


def _make_parts(parts: list[Path], batches: Sequence[Callable[[], Tensor]], name: str) -> None:
    made = sum(part.exists() for part in parts)
    if made:
        print(f"{name}: going on from batch {made} of {len(parts)}", flush=True)
    with progress(name, made, len(parts), pause=PAUSE) as bar:
        for number, (part, make) in enumerate(zip(parts, batches, strict=True), start=1):
            if not part.exists():
                images = make().contiguous().numpy()
                with atomic_file(part) as temporary, open(temporary, "wb") as out:
                    np.save(out, images)
                bar(number)


def _join(parts: list[Path], path: Path) -> None:
    shapes = [np.load(part, mmap_mode="r").shape for part in parts]
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with atomic_file(path) as temporary, open(temporary, "wb") as out:
        np.lib.format.write_array_header_1_0(out, header)
        for part in parts:
            out.write(np.load(part))
