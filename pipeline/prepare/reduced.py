"""Pictures that are far larger than what networks see of them, stored smaller."""

import io

from PIL import Image

from pipeline.data.images.opening import BadPicture, open_image
from pipeline.prepare.source import Source
from pipeline.runtime.errors import UserError
from pipeline.runtime.limits import PICTURE_FORMATS

# Times the side that networks see. A crop of a fiftieth of the area, less than trainings take, has
# that many pixels still.
TIMES = 8
# Most bytes of a file that is stored as it is. A photograph without compression has ten times as
# many, and stages hold thousands of pictures in memory.
LARGE = 8 * 2**20


class Reduced:
    """A source whose pictures have shorter sides of at most `TIMES` × `size` pixels: larger ones
    are resized to that, as JPEG of quality 95, as files of more than `LARGE` bytes are in their own
    size where it has fewer; all others stay as they are. Every training decodes a picture again and
    again, which takes far longer for a photograph of a camera.

    Args:
        size: of the square images that networks see.
    """

    def __init__(self, source: Source, size: int):
        self._source, self._side = source, TIMES * size
        self.class_names, self.items = source.class_names, source.items

    @property
    def version(self) -> str:
        return self._source.version

    def read(self, index: int) -> bytes:
        """The encoded image of `items[index]`.

        Raises:
            UserError: the picture cannot be used.
        """
        content = self._source.read(index)
        with Image.open(io.BytesIO(content), formats=PICTURE_FORMATS) as opened:
            if min(opened.size) <= self._side and len(content) <= LARGE:
                return content
        try:
            image = open_image(content)
        except BadPicture as error:
            raise UserError(f"data.source: {self.items[index].key} is {error}") from error
        side = min(self._side, *image.size)
        ratio = side / min(image.size)
        width, height = (max(side, round(ratio * length)) for length in image.size)
        smaller = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        smaller.info.clear()  # comments, which JPEG has little room for
        buffer = io.BytesIO()
        smaller.save(buffer, "JPEG", quality=95, subsampling=0)
        stored = buffer.getvalue()
        # A JPEG of low quality would have more bytes.
        return content if ratio == 1 and len(stored) >= len(content) else stored
