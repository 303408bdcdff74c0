"""Edits of pictures by a model: regenerating a part, filling a hole, going beyond the border."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import starmap
from typing import Any, Unpack

import torch
from torch import Tensor

from pipeline.api import pictures as convert
from pipeline.api.defaults import Decoding
from pipeline.api.labels import Classes, labels_of
from pipeline.api.networks import Networks
from pipeline.api.numbers import elements, shown, whole
from pipeline.api.pictures import Box, Mask, Pictures
from pipeline.data.seeds import mix
from pipeline.editing import Side, edit, outpaint_beyond
from pipeline.runtime.errors import ArgumentError
from pipeline.runtime.limits import SIDE


class Editor(Networks):
    """The networks, editing."""

    def edit(
        self,
        pictures: Pictures,
        classes: Classes,
        *,
        box: Box | None = None,
        mask: Mask | None = None,
        seed: int = 0,
        **decoding: Unpack[Decoding],
    ) -> Tensor:
        """Make a part of pictures anew as a class, and blend it into them (section 4.3, Figure 6).

        Args:
            classes: one for all pictures, or one for each.
            box: (left, top, right, bottom) of the part, in pixels of the pictures as given.
            mask: in place of the box, a picture of their size, light where they are made anew, or
                an array or tensor (H, W) of bool. With neither, the centred box of half the sides.

        Returns:
            (B, C, H, W) uint8, of the model's size; what is neither in the part nor next to it is
            kept.
        """
        batches = self.edit_batches(pictures, classes, box=box, mask=mask, seed=seed, **decoding)
        return torch.cat([*batches])

    def edit_batches(
        self,
        pictures: Pictures,
        classes: Classes,
        *,
        box: Box | None = None,
        mask: Mask | None = None,
        seed: int = 0,
        **decoding: Unpack[Decoding],
    ) -> Iterator[Tensor]:
        """Make the images of `edit`, of `defaults.batch_size` at once, and yield each batch as it
        is made."""
        networks = self._ready()
        images, sizes = convert.as_batch(pictures, self.channels, self.image_size)
        where = convert.pixel_mask(box, mask, sizes, self.image_size)
        labels = labels_of(classes, len(images), self.classes)
        settings = self.defaults.settings(self.num_tokens, decoding, edit=True)
        seed = whole("seed", seed)
        return (
            edit(
                *networks,
                chunk,
                where,
                own,
                settings,
                seed=mix(seed, "edit", number),
                dilate=self.defaults.dilate,
                feather=self.defaults.feather,
            ).composite
            for number, chunk, own in self._batches(images, labels)
        )

    def inpaint(
        self,
        pictures: Pictures,
        classes: Classes,
        *,
        box: Box | None = None,
        mask: Mask | None = None,
        seed: int = 0,
        **decoding: Unpack[Decoding],
    ) -> Tensor:
        """Fill a hole in pictures, given their own class: `edit`, with a box or mask of the hole.
        The result does not depend on what lies in it (Table 2, Figure 7)."""
        if box is None and mask is None:
            raise ArgumentError("box or mask: give one of them: the part that is to be filled")
        return self.edit(pictures, classes, box=box, mask=mask, seed=seed, **decoding)

    def outpaint(
        self,
        pictures: Pictures,
        classes: Classes,
        *,
        sides: Side | Sequence[Side] = "right",
        pixels: int | None = None,
        seed: int = 0,
        **decoding: Unpack[Decoding],
    ) -> Tensor:
        """Extend pictures beyond their sides, one side after the other (Figures 6 and 7).

        Args:
            sides: of "left", "right", "top" and "bottom"; either the first two or the last two.
            pixels: how far at each side; half of the model's size if None.

        Returns:
            (B, C, H, W) uint8, higher or wider than the model's images by what was added.
        """
        batches = self.outpaint_batches(
            pictures, classes, sides=sides, pixels=pixels, seed=seed, **decoding
        )
        return torch.cat([*batches])

    def outpaint_batches(
        self,
        pictures: Pictures,
        classes: Classes,
        *,
        sides: Side | Sequence[Side] = "right",
        pixels: int | None = None,
        seed: int = 0,
        **decoding: Unpack[Decoding],
    ) -> Iterator[Tensor]:
        """Extend the pictures of `outpaint`, `defaults.batch_size` at once, and yield each batch as
        it is made."""
        networks, several = self._ready(), _several(sides)
        images, _ = convert.as_batch(pictures, self.channels, self.image_size)
        pixels = whole("pixels", self.image_size // 2 if pixels is None else pixels)
        seed = whole("seed", seed)
        if not 1 <= pixels <= SIDE:
            raise ArgumentError(f"pixels: {pixels} cannot be added; give 1 to {SIDE}")
        labels = labels_of(classes, len(images), self.classes)
        settings = self.defaults.settings(self.num_tokens, decoding, edit=True)

        def extended(number: int, images: Tensor, labels: Tensor) -> Tensor:
            for side in several:
                images = outpaint_beyond(
                    *networks,
                    images,
                    labels,
                    settings,
                    side=side,
                    pixels=pixels,
                    overlap=self.image_size // 2,
                    seed=mix(seed, side, number),
                    dilate=self.defaults.dilate,
                    feather=self.defaults.feather,
                )
            return images

        return starmap(extended, self._batches(images, labels))

    def _batches(self, images: Tensor, labels: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Batches of pictures and labels, with their numbers, which their seeds come from."""
        size = self.defaults.batch_size
        pairs = zip(images.split(size), labels.split(size), strict=True)
        return ((number, *pair) for number, pair in enumerate(pairs))


def _several(given: Side | Sequence[Side]) -> list[Side]:
    """The sides, of one direction: windows are as high or as wide as the model's images, so that
    the other cannot grow."""
    one = isinstance(given, str) or not isinstance(given, Iterable)
    sides: list[Any] = [given] if one else elements("sides", given, ordered=False)
    allowed = (["left", "right"], ["top", "bottom"])
    named = all(isinstance(side, str) for side in sides)
    known = named and any(all(side in pair for side in sides) for pair in allowed)
    if not sides or not known or len(set(sides)) < len(sides):
        raise ArgumentError(
            f"sides: {', '.join(map(shown, sides)) or 'none'}; use left, right or both, or top, "
            f"bottom or both"
        )
    return sides
