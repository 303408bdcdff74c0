"""What a data set is to the pipeline."""

from typing import NamedTuple, Protocol


class Item(NamedTuple):
    key: str  # unique and stable: seeds of the image's crops derive from it
    label: int
    split: str | None  # "train", "val", or None where the source has no split of its own


class Source(Protocol):
    class_names: list[str]
    items: list[Item]

    @property
    def version(self) -> str:
        """Changes whenever the images of the same items may have changed."""

    def read(self, index: int) -> bytes:
        """The encoded image of `items[index]`; several threads call it at once."""
