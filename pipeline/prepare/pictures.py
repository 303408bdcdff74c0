"""Cleans users' pictures. A clean picture is upright and opaque, and is grey or RGB with 8 bits per
channel. Later stages decode the stored pictures without checks."""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.files import read_file
from pipeline.runtime.limits import PICTURE_ASPECT, PICTURE_BYTES, PICTURE_FORMATS, PICTURE_PIXELS

FORMATS: tuple[str, ...] = PICTURE_FORMATS
with contextlib.suppress(ImportError):  # the extra `heif` may not be installed
    import pillow_heif

    pillow_heif.register_heif_opener()
    FORMATS += ("HEIF",)

HEIF_SUFFIXES = {".heic", ".heif", ".hif"}
HEIF_WAY_OUT = "install the extra heif (`pip install pillow-heif`), or convert to JPEG"
LOSSY = ("JPEG", "MPO", "WEBP", "HEIF")  # stored as JPEG, unless tiny
TINY = 64  # pictures of up to TINY×TINY pixels are stored uncompressed, which decodes faster

# Pillow already warns about large pictures below PICTURE_PIXELS, and about unusual metadata.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def open_picture(path: Path | str, *, opaque: bool = False) -> Image.Image:
    """Open a picture file, and clean the picture (see `clean_picture`). Raises a `UserError` if the
    file is missing or cannot be used; with `opaque`, also if the picture is partly transparent."""
    return _open(path, opaque=opaque)[2]


def stored_file(path: Path, side: int) -> bytes:
    """The bytes to store for a picture file. A JPEG or PNG that `clean_picture` would not change is
    stored as it is if its longer side is above `TINY` and its shorter side is at most `side` (in
    pixels). Other pictures are encoded by `stored_image`. Raises the errors of `open_picture`."""
    content, opened, image = _open(path, least=(side + 1, side + 1))
    clean = image is opened and opened.format in ("JPEG", "PNG")
    if clean and min(image.size) <= side and max(image.size) > TINY:
        return content
    return stored_image(image, side, lossy=opened.format in LOSSY)


def stored_image(image: Image.Image, side: int, *, lossy: bool = False) -> bytes:
    """Encode a picture from `clean_picture`, reducing its shorter side to at most `side` pixels:
    as PPM if the result is tiny (see `TINY`), as JPEG if `lossy` or resized, else as PNG."""
    if (shorter := min(image.size)) > side:
        width, height = (max(side, round(side / shorter * length)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        lossy = True
    image.info.clear()  # comments and colour profiles
    buffer = io.BytesIO()
    if max(image.size) <= TINY:
        image.save(buffer, "PPM")
    elif lossy:
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()


def clean_picture(
    image: Image.Image, name: str, *, opaque: bool = False, least: tuple[int, int] | None = None
) -> Image.Image:
    """Clean a Pillow picture: apply the EXIF orientation, put transparent pixels on white, scale 16
    bits to 8, take the first frame, and convert to mode L or RGB. A picture that is already clean
    is returned as the same object. If `least` (width, height) is given, a JPEG may be decoded at
    1/2, 1/4 or 1/8 of its size, but not below `least`. Raises an `ArgumentError` about
    `name` if the picture is too large or too narrow, or has 32-bit values of an unknown range; with
    `opaque`, also if the picture is partly transparent."""
    size = f"{image.width}×{image.height} pixels"
    if image.width * image.height > PICTURE_PIXELS:
        reason = f"{size}, more than the limit of {PICTURE_PIXELS:,} (docs/limits.md)"
        raise ArgumentError(name, reason, "make the picture smaller, or delete it")
    if max(image.size) > PICTURE_ASPECT * min(image.size):
        reason = f"{size}, more than {PICTURE_ASPECT} times as long as wide"
        raise ArgumentError(name, reason, "crop the picture, or delete it")
    # Pillow opens 16-bit pictures in mode I;16, but 16-bit PPMs in mode I.
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        reason = "its pixels are 32-bit numbers of an unknown range"
        raise ArgumentError(name, reason, "convert the picture to 8 or 16 bits")
    image.draft(None, least)
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data: keep the stored orientation
        orientation = None
    if image.mode.startswith("I"):  # 16 bits; `convert` would clip the values
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        if opaque and np.asarray(colours)[..., 3].min() < 255:
            raise ArgumentError(name, "is partly transparent", "make it opaque")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours)
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if grey else "RGB")
    if orientation in range(2, 9):
        image = image.copy()
        image.info.clear()  # else Pillow rewrites all EXIF data, and fails if they are unusual
        image.getexif()[ExifTags.Base.Orientation] = orientation
        image = ImageOps.exif_transpose(image)
    return image


def _open(path: Path | str, **how: Any) -> tuple[bytes, Image.Image, Image.Image]:
    """Read a picture file, and clean the picture; `how` is passed to `clean_picture`. Returns a
    tuple of the file's bytes, the picture as opened, and the clean picture."""
    name, content = str(path), b""
    try:
        content = read_file(path, PICTURE_BYTES)
        opened = Image.open(io.BytesIO(content), formats=FORMATS)
        return content, opened, clean_picture(opened, name, **how)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(name, "missing", "correct the path, or restore the file") from error
    except Image.UnidentifiedImageError as error:
        reason, way_out = f"not a picture file ({', '.join(FORMATS)})", "convert it to PNG or JPEG"
        if content[4:8] == b"ftyp" and "HEIF" not in FORMATS:
            reason, way_out = "a HEIC picture", HEIF_WAY_OUT
        raise UserError(name, reason, way_out) from error
    except Exception as error:  # a damaged file makes its decoder raise nearly anything
        raise UserError(name, f"damaged ({in_a_line(error)[:120]})", "replace it") from error
