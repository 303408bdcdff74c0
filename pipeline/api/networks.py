"""What is opened of a model, and what its tokenizer does by itself."""

import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pipeline.api import pictures as convert
from pipeline.api.numbers import whole
from pipeline.api.opening import Opened
from pipeline.api.pictures import Pictures
from pipeline.api.surroundings import note_process, require_plain_torch
from pipeline.data.image_grid import grid_picture
from pipeline.data.images.pixels import as_float
from pipeline.runtime.errors import ArgumentError
from pipeline.tokenizer import Tokenizer, tokens_to_images
from pipeline.transformer import MaskGitTransformer


class Networks:
    """The tokenizer and the transformer, with what is known about them."""

    def __init__(self, opened: Opened):
        note_process()
        self._opened = opened
        self.tokenizer, self.transformer = opened.tokenizer, opened.transformer
        self.classes, self.defaults = opened.classes, opened.defaults

    @property
    def project(self) -> Path | None:
        """Root of the project that it was opened from, where it was."""
        return self._opened.project

    @property
    def image_size(self) -> int:
        """Side of its images, in pixels."""
        return self.grid * self.tokenizer.config.downsampling

    @property
    def channels(self) -> int:
        """1 grey, 3 RGB."""
        return self.tokenizer.config.channels

    @property
    def grid(self) -> int:
        """Tokens along a side of an image."""
        return math.isqrt(self.num_tokens)

    @property
    def num_tokens(self) -> int:
        return self.transformer.config.num_tokens

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    def _ready(self) -> tuple[MaskGitTransformer, Tokenizer]:
        """The networks, where they compute as they did in the run.

        Raises:
            ArgumentError: what surrounds the call, or their mode, would change what they make.
        """
        require_plain_torch()
        networks = self.transformer, self.tokenizer
        if any(module.training for network in networks for module in network.modules()):
            raise ArgumentError(
                "the model's networks are in training mode, in which they drop values at random; "
                "call .eval() on them"
            )
        return networks

    def encode(self, pictures: Pictures) -> Tensor:
        """Tokens (B, h, w) int64 of pictures, on the CPU."""
        _, tokenizer = self._ready()
        images, _ = convert.as_batch(pictures, self.channels, self.image_size)
        return torch.cat(
            [
                tokenizer.encode(as_float(chunk).to(self.device)).cpu()
                for chunk in images.split(self.defaults.batch_size)
            ]
        )

    def decode(self, tokens: Tensor) -> Tensor:
        """Images (B, C, H, W) uint8 of tokens (B, h, w)."""
        _, tokenizer = self._ready()
        codes, tokens = tokenizer.config.codebook_size, _as_tokens(tokens)
        if tokens.ndim != 3 or tuple(tokens.shape[1:]) != (self.grid, self.grid):
            raise ArgumentError(
                f"tokens: shape {tuple(tokens.shape)}; give (B, {self.grid}, {self.grid})"
            )
        if not bool(((tokens >= 0) & (tokens < codes)).all()):
            raise ArgumentError(f"tokens: not all are whole numbers from 0 to {codes - 1}")
        return torch.cat(
            [
                tokens_to_images(tokenizer, chunk.to(self.device))
                for chunk in tokens.flatten(1).split(self.defaults.batch_size)
            ]
        )

    def reconstruct(self, pictures: Pictures) -> Tensor:
        """Pictures as their tokens keep them, (B, C, H, W) uint8; no sample can be better."""
        return self.decode(self.encode(pictures))

    @staticmethod
    def to_pil(images: Tensor) -> list[Image.Image]:
        """Images (B, C, H, W) uint8 as pictures of Pillow, grey or RGB."""
        return convert.to_pil(images)

    @staticmethod
    def to_grid(images: Tensor, columns: int = 10) -> Image.Image:
        """Images (B, C, H, W) uint8 in rows, as one picture; small ones are enlarged."""
        if (columns := whole("columns", columns)) < 1:
            raise ArgumentError(f"columns: {columns} hold no image; give 1 or more")
        images = convert.as_images(images)
        return grid_picture(images, min(columns, len(images)))


def _as_tokens(given: Tensor) -> Tensor:
    """Tokens of any type of whole numbers as int64."""
    tokens = convert.as_tensor("tokens", given, f"{type(given).__name__} is no tensor")
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise ArgumentError(f"tokens: {tokens.dtype} is no whole number; give int64")
    return tokens.long()
