"""Pictures that Pillow reads as other pictures, without an error."""

import math
import struct

from PIL import Image

from pipeline.data.images.jpeg2000 import (
    lacks_tiles,
    odd_bits,
    odd_channels,
    odd_colours,
    rewound,
)
from pipeline.data.images.tags import as_block, tags_at

_RLE4, _BIT_MASKS = 2, (3, 6)  # a BMP's compressions: run lengths of 4 bits; none, but masks
_MASKED = struct.Struct("<I10xH36xI")  # its second header: bytes of it, bits, transparency's mask
_GRAY_ALPHA_OR_LAB = ("LA", "PA", "LAB")  # modes of which Pillow reads planes that lie apart as one
# A TIFF's compressions of CCITT. Where one breaks off, its decoder goes on without an error,
# and some rows are what lay in memory before.
_FAX = (2, 3, 4, 32771)
# Tags of a TIFF by which its pixels are read. Of one that is there twice Pillow takes the last, and
# libtiff, which decodes for it, the first.
_LAYOUT = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325}
_HEADER = 8  # bytes with which a TIFF begins, and no pixel
_YCBCR = 6  # a TIFF's photometric interpretation


def misread(image: Image.Image) -> str | None:
    """Why Pillow would read a picture as another one, or turn it white or black, with the way out;
    None where it is read right, as far as is known.

    Args:
        image: opened and not loaded; of one that is loaded less is known.
    """
    # Pillow makes these integers of 16 bits in PNG and PPM, and of up to 32 in TIFF.
    integers = image.mode == "I" and image.format not in ("PNG", "PPM")
    if image.mode == "F" or integers or (image.format == "TIFF" and _odd_tiff(image)):
        return (
            "of numbers whose range is not known (float, 32 bits, signed, or 16 bits that are not "
            "all used); convert it to 8 or 16 bits"
        )
    of_format = {"TIFF": _of_tiff, "JPEG2000": _of_jpeg2000, "BMP": _of_bmp}.get(str(image.format))
    if of_format and (reason := of_format(image)):
        return reason
    if image.info.get("transparency") is not None and "RGB;16B" in raw_modes(image):
        # Pillow looks for it in what it has made 8 bits of.
        return "of colours of 16 bits, one of which is transparent; convert it to 8 bits"
    if image.mode in ("P", "PA") and image.palette is None:
        return "of colours whose palette is missing; replace or delete it"
    return None


def palette_size(image: Image.Image) -> int | None:
    """How many colours a palette has; None where there is none.

    Args:
        image: opened and not loaded: Pillow fills the palette up then.
    """
    palette = image.palette if image.mode == "P" else None
    raw = str(getattr(palette, "rawmode", None) or "").partition(";")[0]
    return len(palette.palette) // len(raw) if palette and raw else None


def lacks_colours(image: Image.Image, colours: int) -> bool:
    """Whether pixels have colours beyond a palette's end, which Pillow reads as black.

    Args:
        image: loaded, with a palette.
        colours: that the palette has.
    """
    most = image.getextrema()[1]
    return isinstance(most, int) and most >= colours and most != image.info.get("transparency")


def is_vague(image: Image.Image) -> bool:
    """Whether a TIFF has a number more a pixel than its colours need, and does not say what it is:
    Pillow takes it for transparency, others do not."""
    tags = getattr(image, "tag_v2", {})
    return bool(tags) and image.mode in ("RGBA", "LA") and 338 not in tags


def tile_size(image: Image.Image) -> int:
    """Pixels of each tile of a TIFF; 0 where it has none."""
    tags = getattr(image, "tag_v2", {})
    sides = [tags.get(tag, 0) for tag in (322, 323)]
    return math.prod(side for side in sides) if all(isinstance(s, int) for s in sides) else 0


def raw_modes(image: Image.Image) -> list[str]:
    """How the pixels lie in the file, of each strip that is not decoded yet."""
    return [str(strip[3]) for strip in getattr(image, "tile", ())]


def _of_tiff(image: Image.Image) -> str | None:
    tags = getattr(image, "tag_v2", {})
    if tags and 262 not in tags:
        return "of pixels of which it does not say what they mean; save it anew as PNG"
    if _mixed_planes(image):
        return "of planes that are not read right; save it anew as PNG"
    if _mixed_pixels(image):
        return "of uncompressed YCbCr, which is not read right; save it anew as PNG"
    if _says_twice(image):
        return "of two answers to how its pixels lie; save it anew as PNG, or delete it"
    if tags.get(259) in _FAX:
        return "compressed as a fax, whose damaged rows are read as any others; save it anew as PNG"
    if _lacks_strips(image):
        return "truncated: strips of it are missing; replace or delete it"
    if image.mode in ("P", "PA") and _dark_palette(image):
        return "of a palette of 8 bits, which is read as black; save it anew as PNG"
    return None


def _of_jpeg2000(image: Image.Image) -> str | None:
    if bits := odd_bits(image):
        return f"of {bits} bits a channel, in JPEG 2000; convert it to 8 bits"
    if odd_channels(image):
        return "of channels in an order or of a kind that is not read right; save it anew as PNG"
    if lacks_tiles(image):
        return "truncated: tiles of it are missing; replace or delete it"
    if odd_colours(image):
        return "of a palette or colours that are not read right; save it anew as PNG"
    return None


def _of_bmp(image: Image.Image) -> str | None:
    compression = image.info.get("compression")
    if compression == _RLE4:
        return "of run lengths of 4 bits, which are not read right; save it anew as PNG"
    if compression not in _BIT_MASKS:
        return None
    with rewound(image) as file:
        if file is None:
            return None
        file.seek(14)
        header = file.read(_MASKED.size)
    if len(header) == _MASKED.size:
        size, bits, alpha = _MASKED.unpack(header)
        if size >= _MASKED.size and bits == 16 and alpha:
            return "of 16 bits with transparency, which is not read; save it anew as PNG"
    return None


def _odd_tiff(image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", {})
    if 2 in tags.get(339, ()):  # signed, which Pillow reads as unsigned where they are of 8 bits
        return True
    bits, photometric = tags.get(258, (16,)), tags.get(262, 1)
    # Fewer bits, or 0 is white.
    return image.mode.startswith("I;16") and (bits != (16,) or photometric != 1)


def _dark_palette(image: Image.Image) -> bool:
    """Whether no number of a TIFF's palette, of 16 bits by its standard, is above 255: some
    programs write it in 8 bits."""
    colours = getattr(image, "tag_v2", {}).get(320, ())
    return any(colours) and max(colours) <= 255


def _mixed_planes(image: Image.Image) -> bool:
    """Whether Pillow reads the planes of a TIFF as if all were one; or uncompressed ones as if they
    were of 8 bits and 0 black, though they are of others, 0 is white, or the bits of each byte are
    reversed."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(284) != 2:  # planes apart
        return False
    if image.mode in _GRAY_ALPHA_OR_LAB:
        return True
    if not _uncompressed(image):
        return False
    bits = set(tags.get(258, (1,)))
    return bits not in ({8}, {1}) or tags.get(262) == 0 or tags.get(266) == 2


def _mixed_pixels(image: Image.Image) -> bool:
    """Whether Pillow takes pixels of three bytes for pixels of four."""
    return getattr(image, "tag_v2", {}).get(262) == _YCBCR and _uncompressed(image)


def _lacks_strips(image: Image.Image) -> bool:
    """Whether strips or tiles lie where the file begins, which is read as pixels then; or
    uncompressed ones do not cover the picture, whose rest would be black."""
    tags, strips = getattr(image, "tag_v2", {}), getattr(image, "tile", ())
    if not strips or not _uncompressed(image):
        places = (*tags.get(273, ()), *tags.get(324, ()))
        return any(place in range(_HEADER) for place in places)
    planes = len(image.getbands()) if tags.get(284) == 2 else 1
    boxes = [strip[1] for strip in strips]  # by name only in newer Pillows
    area = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    absent = any(strip[2] < _HEADER for strip in strips)
    return absent or area < planes * image.width * image.height


def _says_twice(image: Image.Image) -> bool:
    with rewound(image) as file:
        if file is None:
            return False
        file.seek(0)
        block = as_block(file.read())
    found = [tag.name for tag in tags_at(block, block.first)] if block else []
    return any(found.count(name) > 1 for name in _LAYOUT)


def _uncompressed(image: Image.Image) -> bool:
    return getattr(image, "tag_v2", {}).get(259, 1) == 1
