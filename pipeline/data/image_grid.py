"""Pictures made of uint8 image batches (B, C, H, W)."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from pipeline.runtime.files import atomic_file

SCALE_TO = 56  # small images are enlarged to at least this many pixels a side
GAP = 2


def grid_picture(images: Tensor, columns: int) -> Image.Image:
    """A picture of the images in rows of `columns` on white; small images are enlarged without
    smoothing."""
    batch, channels, height, width = images.shape
    rows = -(-batch // columns)
    canvas = np.full(
        (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, dtype=np.uint8
    )
    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        top = GAP + (i // columns) * (height + GAP)
        left = GAP + (i % columns) * (width + GAP)
        canvas[top : top + height, left : left + width] = image
    picture = Image.fromarray(canvas[..., 0] if channels == 1 else canvas)
    factor = max(1, -(-SCALE_TO // height))
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )


def save_picture(picture: Image.Image, path: Path | str) -> Path:
    with atomic_file(path) as temporary:
        picture.save(temporary, format="png")
    return Path(path)
