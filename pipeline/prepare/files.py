"""The files of pictures that data sets consist of."""

from pathlib import Path

from pipeline.data.images.opening import BadPicture, open_image
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_file
from pipeline.runtime.limits import PICTURE_BYTES


def read_picture(path: Path, gone: str = "bring it back, or run again without it") -> bytes:
    """The content of a picture's file, once it is known to open.

    Args:
        gone: the way out where there is no such file any more.

    Raises:
        UserError: there is no such file, or its picture cannot be used (see `open_image`).
    """
    try:
        content = read_file(path, PICTURE_BYTES)
        open_image(content, whole=True)
    except FileNotFoundError as error:
        reason = "is a broken link; delete it"
        if not path.is_symlink():
            reason = f"was there and is no more; {gone}"
        raise UserError(f"data.source: {path} {reason}") from error
    except UserError as error:
        raise UserError(f"data.source: {error}") from error
    except BadPicture as error:
        raise UserError(f"data.source: {path} is {error}") from error
    return content
