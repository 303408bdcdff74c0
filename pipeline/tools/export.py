"""Writing image sets for the evaluators of other projects: as the ADM suite's `.npz`, or as
PNGs."""

import zipfile
from pathlib import Path

import numpy as np
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.replicates import NetworkName, main_replicate
from pipeline.data.images.pixels import from_chw
from pipeline.data.images.threads import in_threads
from pipeline.evaluation.image_sets import ImageSet, SampleImages, batches
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import atomic_file, atomic_folder, require_new
from pipeline.runtime.provenance import require_current


def export_samples(
    params: Params,
    network: NetworkName,
    path: Path,
    seed: int | None = None,
    everything: bool = False,
) -> int:
    """Write the published samples of a network's replicate as an `.npz` in the ADM suite's layout,
    or as PNGs.

    Args:
        seed: the replicate's; None for the first.
        everything: write those samples too that only CAS is trained on, and not Table 1 measures.

    Returns:
        Number of samples written.

    Raises:
        UserError: there are no samples of that seed, they are out of date, or the path cannot be
            written, or has another suffix.
    """
    form = path.suffix.lower()
    if form not in ("", ".npz"):
        way_out = "use .npz, which the ADM suite reads, or none, for a folder of PNGs"
        raise UserError(str(path), "unsupported suffix", way_out)
    folder = main_replicate(params, network, seed).samples
    require_current("evaluate")
    images = SampleImages(folder, params.data, None if everything else params.evaluation.samples)
    if form == ".npz":
        export_npz(images, images.labels, path)
    else:
        export_pngs(images, path)
    return len(images)


def export_pngs(images: ImageSet, folder: Path | str) -> None:
    """Write `000000.png` …, grey images as grey. The folder appears only when it is complete.

    Raises:
        UserError: the folder exists and is not empty, or it cannot be written.
    """
    folder = Path(folder)
    require_new(folder)
    with atomic_folder(folder) as temporary:

        def save(item: tuple[int, Tensor]) -> None:
            number, image = item
            from_chw(image.numpy()).save(temporary / f"{number:06d}.png")

        first = 0
        for batch in batches(images):
            in_threads(save, enumerate(batch, start=first))
            first += len(batch)
        require_new(folder)  # another process may have made it meanwhile


def export_npz(images: ImageSet, labels: np.ndarray | Tensor | None, path: Path | str) -> None:
    """Write an `.npz` for the ADM suite, batch by batch: `arr_0` (n, H, W, 3) uint8, grey repeated
    to RGB, and, with labels, `arr_1` (n,) int64. The same images give the same bytes.

    Raises:
        UserError: the file cannot be written.
    """
    _, height, width = images.shape
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(images), height, width, 3)}
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as out:
            np.lib.format.write_array_header_1_0(out, header)
            for batch in batches(images):
                rgb_BHWC = batch.permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
                out.write(rgb_BHWC.contiguous().numpy().data)
        if labels is not None:
            with archive.open("arr_1.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array(out, np.asarray(labels, np.int64))
