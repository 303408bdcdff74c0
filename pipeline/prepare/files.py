"""The files of pictures that data sets consist of."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.images.opening import BadPicture, open_image
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_file
from pipeline.runtime.limits import PICTURE_BYTES, PICTURE_FORMATS

WHITE = 255  # the background of `open_image`


def read_picture(path: Path) -> bytes:
    """The content of a picture's file, once it is known to open.

    Raises:
        UserError: there is no such file, or its picture cannot be used (see `open_image`).
    """
    try:
        content = read_file(path, PICTURE_BYTES)
        seen = open_image(content, whole=True)
        if np.asarray(seen).min() == WHITE and _is_clear(content):
            raise BadPicture("transparent everywhere; save it without transparency or delete it")
    except FileNotFoundError as error:
        reason = "is a broken link; delete it"
        if not path.is_symlink():
            reason = "was there and is no more; bring it back, or run again without it"
        raise UserError(f"data.source: {path} {reason}") from error
    except UserError as error:
        raise UserError(f"data.source: {error}") from error
    except BadPicture as error:
        raise UserError(f"data.source: {path} is {error}") from error
    return content


def _is_clear(content: bytes) -> bool:
    """Whether nothing is to be seen of a picture, as where a program left a fourth channel empty
    that others take for transparency."""
    with Image.open(io.BytesIO(content), formats=PICTURE_FORMATS) as image:
        if not image.has_transparency_data:
            return False
        return image.convert("RGBA").getchannel("A").getextrema() == (0, 0)
