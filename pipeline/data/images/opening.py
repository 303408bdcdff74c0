"""Opening encoded pictures that anyone may have made: as people see them, in 8 bits, within limits.

Only the formats of `PICTURE_FORMATS` are decoded, by the content and not by the file's name: others
start programs (EPS runs Ghostscript) or have decoders that few have looked at.
"""

import contextlib
import ctypes
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

# Formats of the list that Pillow does not know before their modules are imported.
from PIL import Jpeg2KImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401  isort: skip

from pipeline.data.images.costs import WAY_OUT, Costly, Metered, check_costs
from pipeline.data.images.misread import (
    is_vague,
    lacks_colours,
    misread,
    palette_size,
    raw_modes,
    tile_size,
)
from pipeline.data.images.png import lacks_rows, odd_chunks
from pipeline.data.images.tags import TAGS, orientation
from pipeline.data.images.threads import Allowance
from pipeline.runtime.limits import (
    PICTURE_ASPECT,
    PICTURE_FORMATS,
    PICTURE_PIXELS,
    PICTURE_SCANNED,
)

# Pillow warns from a size on that is above our limit, at which the picture is refused.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# What its metadata have wrong is no word to a user: the picture is read, or refused by name.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # errors, of which it raises one too


def _silence_libtiff() -> None:
    """Let the libtiff that Pillow has brought say nothing of a damaged file: it writes to stderr
    what Pillow raises as an error. (It is found on Linux; elsewhere it writes.)"""
    try:
        mapped = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    except OSError:
        return
    paths = {line.split(maxsplit=5)[-1] for line in mapped if "/libtiff" in line}
    for path in paths:
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            with contextlib.suppress(OSError, AttributeError):
                handler = ctypes.CDLL(path)[name]
                handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                handler(None)


_silence_libtiff()

# What is done to a picture to see it upright, by its EXIF orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# Pixels that threads decode at once: one of the most pixels takes 1.5 GB on its way.
DECODING = Allowance(2 * PICTURE_PIXELS)


class BadPicture(ValueError):
    """A picture cannot be used. The message says why, and the way out."""


def picture_suffixes() -> frozenset[str]:
    """Of files' names, with a dot, in lower case."""
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in PICTURE_FORMATS)


def open_image(content: bytes, *, whole: bool = False, opaque: bool = False) -> Image.Image:
    """A picture as people see it: turned as its EXIF data say (or else its XMP), opaque on
    white, the first frame of several; of 8 bits, grey (mode L) or RGB.

    Args:
        whole: look whether a PNG has all of its rows, for which it is inflated twice: of a file
            that is read for the first time.
        opaque: refuse one that is partly transparent.

    Raises:
        BadPicture: it is damaged, of a format that is not read, too large or too narrow, of numbers
            whose range is not known, or would take too long.
    """
    try:
        check_costs(content)
        file = Metered(content)
        image = _opened(file)
        file.begin_pixels()
        _check_size(*image.size)
        with DECODING.of(image.width * image.height):
            seen = as_seen(image, opaque=opaque)
        if reason := odd_chunks(content):  # of which Pillow has read no more than it may
            raise BadPicture(reason)
        if whole and lacks_rows(content):
            raise BadPicture("truncated: its last rows are missing; replace or delete it")
        return seen
    except BadPicture:
        raise
    except Costly as error:
        raise BadPicture(str(error)) from error
    except Image.DecompressionBombError as error:
        raise BadPicture(f"of a frame of more than {PICTURE_PIXELS:,} pixels {WAY_OUT}") from error
    except Image.UnidentifiedImageError as error:
        formats = ", ".join(PICTURE_FORMATS)
        raise BadPicture(f"truncated or not an image of {formats}; convert or delete it") from error
    except Exception as error:  # a damaged file makes its decoder raise nearly anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise BadPicture(f"truncated or not an image ({reason}); replace or delete it") from error


def _opened(file: Metered) -> Image.Image:
    """A picture of which no pixel is decoded yet, of any size."""
    try:
        return Image.open(file, formats=PICTURE_FORMATS)
    except Image.DecompressionBombError:  # which lacks width and height: its plugin knows them
        content = file.getvalue()
        known = (Image.OPEN[name] for name in PICTURE_FORMATS)
        plugin = next(plugin for plugin, accepts in known if accepts and accepts(content[:16]))
        return plugin(Metered(content), "")


def as_seen(image: Image.Image, *, opaque: bool = False) -> Image.Image:
    """A picture of Pillow's as `open_image` gives it.

    Args:
        opaque: as there.

    Raises:
        BadPicture: it is too large or too narrow, would be read as another picture, or is of strips
            that lie upon others.
    """
    _check_size(*image.size)
    if reason := misread(image):
        raise BadPicture(reason)
    _check_strips(image)
    _scale_transparent_value(image)
    colours, vague = palette_size(image), is_vague(image)
    image.load()
    if vague and image.getextrema()[-1] != (255, 255):
        raise BadPicture(
            "of a number more a pixel, of which it does not say what it means; save it anew as PNG"
        )
    if colours is not None and lacks_colours(image, colours):
        raise BadPicture("of colours that its palette lacks; replace or delete it")
    # Pillow turns a TIFF when it loads it.
    turn = TURNS.get(orientation(image.info)) if image.format != "TIFF" else None
    if turn is not None:
        image = image.transpose(turn)
        for name in TAGS:  # or whoever gets it would turn it again
            image.info.pop(name, None)
    image = _opaque(_eight_bits(image), refuse=opaque)
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def decode_image(
    content: bytes, channels: int, *, whole: bool = False, opaque: bool = False
) -> Image.Image:
    """Encoded bytes as a grey or RGB image of 8 bits.

    Args:
        whole, opaque: as `open_image`.

    Raises:
        BadPicture: as `open_image`.
    """
    return open_image(content, whole=whole, opaque=opaque).convert("L" if channels == 1 else "RGB")


def _check_size(width: int, height: int) -> None:
    if width * height > PICTURE_PIXELS:
        raise BadPicture(
            f"{width}×{height} pixels, more than the limit of {PICTURE_PIXELS:,} (docs/limits.md); "
            f"make it smaller or delete it"
        )
    if max(width, height) > PICTURE_ASPECT * min(width, height) or not width:
        raise BadPicture(
            f"{width}×{height} pixels, more than {PICTURE_ASPECT} times as long as wide "
            f"(docs/limits.md); cut or delete it"
        )


def _scale_transparent_value(image: Image.Image) -> None:
    """The grey that is transparent in a PNG of 2 or 4 bits: Pillow scales its pixels alone."""
    clear = image.info.get("transparency")
    scale = {"L;2": 85, "L;4": 17}.get("".join(raw_modes(image)))
    if isinstance(clear, int) and scale:
        image.info["transparency"] = scale * clear


def _check_strips(image: Image.Image) -> None:
    if tile_size(image) > PICTURE_PIXELS:  # all of which is decoded, of however few pixels
        raise BadPicture(f"of tiles of more than {PICTURE_PIXELS:,} pixels {WAY_OUT}")
    strips: Sequence[ImageFile._Tile] = getattr(image, "tile", ())
    boxes = (strip[1] or (0, 0, 0, 0) for strip in strips)  # by name only in newer Pillows
    area = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    tiles = len(getattr(image, "tag_v2", {}).get(324, ()))  # which libtiff decodes as one strip
    if (len(strips) > 1 and area > PICTURE_SCANNED) or tile_size(image) * tiles > PICTURE_SCANNED:
        raise BadPicture(f"of more than {PICTURE_SCANNED:,} pixels in all its strips {WAY_OUT}")


def _eight_bits(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)  # of 16 bits, which `convert` would cut off and not scale
    grey = Image.fromarray((values / 257).round().astype(np.uint8))
    if (clear := image.info.get("transparency")) is None:
        return grey
    opaque = np.where(values == clear, 0, 255).astype(np.uint8)
    return Image.merge("LA", (grey, Image.fromarray(opaque)))


def _opaque(image: Image.Image, refuse: bool) -> Image.Image:
    """Transparent pixels on white, or refused. (`convert` alone would show what lies in
    them.)"""
    if not image.has_transparency_data:
        return image
    grey = image.mode in ("1", "L", "LA", "La")
    colours = image.convert("LA") if image.mode == "La" else image
    colours = colours.convert("RGBA")
    if refuse and np.asarray(colours.getchannel("A")).min() < 255:
        raise BadPicture("partly transparent; paint it in black and white alone")
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, colours).convert("L" if grey else "RGB")
