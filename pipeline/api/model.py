"""A trained MaskGIT for use from Python."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import wraps
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, Unpack

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from PIL import Image
from torch import Tensor

from pipeline.api.card import CARD, FILES
from pipeline.api.defaults import Decoding, Defaults
from pipeline.api.labels import Classes, labels_for, whole
from pipeline.api.opening import Description, Opened, open_model
from pipeline.api.pictures import Box, Mask, Pictures, as_batch, pixel_mask
from pipeline.config.presets import preset_params
from pipeline.data.images.pixels import GREY, as_float, from_chw, grid_picture
from pipeline.data.seeds import mix
from pipeline.decoding.iterative import DecodingStep, generate
from pipeline.editing import SIDES, Side, edit, outpaint_beyond
from pipeline.runtime.device import pick_device, repeatable
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.files import atomic_folder, require_new
from pipeline.sampling import Sampler, sample_batches
from pipeline.tokenizer import Tokenizer, tokens_to_images
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import save_model
from pipeline.weights.released.checkpoint import (
    open_pretrained_tokenizer,
    open_pretrained_transformer,
)

P = ParamSpec("P")
TAGS = ["class-conditional-image-generation", "maskgit", "masked-image-modeling", "vqgan"]


def _joined(batches: Callable[P, Iterator[Tensor]]) -> Callable[P, Tensor]:
    """Convert a method that yields batches to a method that returns one tensor."""

    @wraps(batches)
    def method(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        return torch.cat([*batches(*args, **kwargs)])

    method.__name__ = batches.__name__.removesuffix("_batches")
    return method


class Canvas(NamedTuple):
    """The images of a batch after one iteration of decoding, on the CPU."""

    iteration: int  # 1 to T
    images: Tensor  # (B, C, H, W) uint8: decoded from predictions of all tokens; at T, the result
    masked: Tensor  # (B, H, W) bool: True on pixels of tokens that are masked again

    @property
    def shown(self) -> Tensor:
        """The images (B, C, H, W) uint8, with masked pixels in grey."""
        return self.images.masked_fill(self.masked[:, None], GREY)


class MaskGIT(ModelHubMixin, library_name="maskgit-pipeline", tags=TAGS, model_card_template=CARD):
    """A tokenizer and the transformer that was trained on its tokens.

    Methods return images as uint8 tensors (B, C, H, W) on the CPU; `to_pil` makes Pillow images.
    Pictures are paths, Pillow images, or a tensor (uint8, or float in [0, 1]). Files and Pillow
    images are cut to their centred square and resized; a tensor must have the model's size. Classes
    are given by name or number. On one machine, the same call and seed give identical images.

    Decoding uses the training run's settings (`defaults`), unless keywords (see `Decoding`)
    override them. A value that is not allowed raises a ValueError that names the allowed values.
    """

    def __init__(self, opened: Opened):
        self._opened = opened
        self.tokenizer, self.transformer = opened.tokenizer, opened.transformer
        self.classes, self.defaults = tuple(opened.about.classes), opened.about.defaults
        self.channels = self.tokenizer.config.channels  # 1 grey, 3 RGB
        self.num_tokens = self.transformer.config.num_tokens
        self.grid = math.isqrt(self.num_tokens)  # tokens along a side of an image
        self.image_size = self.grid * self.tokenizer.config.downsampling

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    @classmethod
    def from_pretrained(  # type: ignore[override] # a project is not a repository
        cls,
        source: Path | str | None = None,
        *,
        seed: int | None = None,
        device: torch.device | str | None = None,
        **hub: Any,
    ) -> "MaskGIT":
        """Open a trained, saved or published model.

        Args:
            source: a project's folder or its `models/`, a folder that `save_pretrained` wrote, or
                a repository of the Hugging Face Hub ("owner/name"; a local folder of that name
                takes precedence). None opens the current folder's model or, before training, the
                model that ships with this package (with a warning).
            seed: the model's training seed, one of `evaluation.seeds`; None for the first of them.
            device: the networks' device; None for the GPU if PyTorch finds one, else the CPU.
            hub: options of `huggingface_hub.snapshot_download`, such as `revision` or `token`.

        Raises:
            UserError: the model is missing or damaged, or was not trained with `seed`.
        """
        if source is not None and not os.path.exists(source):
            try:
                source = snapshot_download(str(source), allow_patterns=FILES, **hub)
            except Exception as error:  # wrong names and the network raise many types
                reason = f"found neither as a folder nor on the Hub ({in_a_line(error)[:200]})"
                way_out = "check the name, the network, and `hf auth login`"
                raise UserError(str(source), reason, way_out) from error
        return cls(open_model(None if source is None else Path(source), seed, _device(device)))

    @classmethod
    def from_released(
        cls,
        tokenizer: Path | str,
        transformer: Path | str,
        *,
        preset: str = "release256",
        classes: Sequence[str] | None = None,
        device: torch.device | str | None = None,
    ) -> "MaskGIT":
        """Open released tokenizer and transformer weights (accepted formats: docs/released.md).

        Args:
            preset: a preset with the checkpoints' architecture; its decoding settings become
                the model's defaults.
            classes: class names, by label; None to use the class numbers as names.

        Raises:
            UserError: a file is missing or damaged, or its architecture is not the preset's.
        """
        params, device = preset_params(preset), _device(device)
        network = open_pretrained_transformer(params, device, path=transformer)
        known = list(classes or map(str, range(network.config.num_classes)))
        if len(known) != network.config.num_classes:
            reason = f"{len(known)} names for a model of {network.config.num_classes} classes"
            raise ArgumentError("classes", reason, "give one name for each class")
        defaults = replace(Defaults.of(params), guided=True)
        about = Description(classes=known, defaults=defaults, preset=preset)
        return cls(Opened(open_pretrained_tokenizer(params, device, tokenizer), network, about))

    def save_pretrained(  # type: ignore[override] # returns the folder
        self, save_directory: Path | str, **options: Any
    ) -> Path:
        """Write the model atomically to a new folder: safetensors, JSON, and a model card. The card
        lists metrics if the pipeline has measured this model. `options` are passed to
        `ModelHubMixin.save_pretrained`. Returns the folder.

        Raises:
            UserError: the folder exists and is not empty, or cannot be written.
        """
        folder = Path(save_directory)
        require_new(folder)
        about = self._opened.described()
        card = {"name": str(folder), "opened": self._opened, "about": about}
        options["model_card_kwargs"] = card | (options.get("model_card_kwargs") or {})
        options["config"] = about.model_dump(mode="json")
        with atomic_folder(folder) as temporary:
            super().save_pretrained(temporary, **options)
        return folder

    def _save_pretrained(self, save_directory: Path) -> None:
        for kind, network in (("tokenizer", self.tokenizer), ("transformer", self.transformer)):
            weights = {k: v.cpu() for k, v in network.state_dict().items()}
            save_model(save_directory / kind, kind, network.config, weights)

    def push_to_hub(  # type: ignore[override] # private; the card names the repository
        self, repository: str, *, private: bool = True, **options: Any
    ) -> str:
        """Save the model to a repository of the Hugging Face Hub, which is created if necessary,
        and return the URL of the commit. `options`, such as `token` or `branch`, are passed to
        `ModelHubMixin.push_to_hub`."""
        options["model_card_kwargs"] = {"name": repository}
        return str(super().push_to_hub(repository, private=private, **options))

    def sample_batches(
        self,
        classes: Classes | None = None,
        count: int | None = None,
        *,
        seed: int = 0,
        **decoding: Unpack[Decoding],
    ) -> Iterator[Tensor]:
        """Draw `count` images of the given classes. `sample` returns one tensor (count, C, H, W)
        uint8; `sample_batches` yields batches of at most `defaults.batch_size` images.

        Args:
            classes: class names or numbers, assigned to the images in turn; None for all classes.
            count: number of images; None for one image per class.
        """
        draw = Sampler(*self._networks())
        labels = labels_for(classes, count, self.classes)
        settings = self.defaults.settings(self.num_tokens, decoding)
        size, seed = self.defaults.batch_size, whole("seed", seed)
        return starmap(draw, sample_batches(settings, labels, batch_size=size, seed=seed))

    sample = _joined(sample_batches)

    def sample_steps(
        self,
        classes: Classes | None = None,
        count: int | None = None,
        *,
        seed: int = 0,
        **decoding: Unpack[Decoding],
    ) -> Iterator[Canvas]:
        """Draw one batch of images as `sample` does, and yield the images after each iteration of
        decoding. `count` is at most `defaults.batch_size`."""
        self._networks()
        labels, most = labels_for(classes, count, self.classes), self.defaults.batch_size
        if len(labels) > most:
            reason = f"{len(labels):,} images cannot be decoded at once"
            raise ArgumentError("count", reason, f"use a count from 1 to {most}")
        settings = self.defaults.settings(self.num_tokens, decoding)
        first = mix(whole("seed", seed), "batch", 0)  # the seed of `sample`'s first batch
        steps = generate(self.transformer, labels, settings, seed=first)

        def canvas(iteration: int, step: DecodingStep) -> Canvas:
            again = step.masked & (iteration < settings.iterations)  # after T, no token is masked
            masked = again.unflatten(-1, (self.grid, self.grid)).cpu()
            factor = self.tokenizer.config.downsampling
            pixels = masked.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
            return Canvas(iteration, tokens_to_images(self.tokenizer, step.sampled), pixels)

        return starmap(canvas, enumerate(steps, start=1))

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
        """Fill a region of each picture with content of a class, and blend the region's edges into
        the picture (section 4.3, Figure 6). The model does not see the old content of the region:
        with the picture's own class, the method inpaints (Table 2, Figure 7). `edit` and `inpaint`
        are the same and return one tensor; `edit_batches` yields batches.

        Args:
            classes: one class for all pictures, or one class per picture.
            box: the region (left, top, right, bottom), in pixels of the original pictures. Without
                `box` and `mask`, the region is the centred box of half the height and width.
            mask: the region, instead of `box`: a picture or an array (H, W) of the original size,
                whose pixels are light or True inside the region.

        Returns:
            Images (B, C, H, W) uint8, of the model's size; only the region and its border change.
        """
        networks, first = self._networks(), whole("seed", seed)
        images, sizes = as_batch(pictures, self.channels, self.image_size)
        hole = pixel_mask(box, mask, sizes, self.image_size)
        options = self._edit_options(decoding)

        def edited(number: int, images: Tensor, labels: Tensor) -> Tensor:
            seed = mix(first, "edit", number)
            return edit(*networks, images, hole, labels, seed=seed, **options).composite

        return starmap(edited, self._batches(images, classes))

    edit = inpaint = _joined(edit_batches)

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
        """Extend pictures beyond their sides, one side after the other (Figures 6 and 7).
        `outpaint` returns one tensor; `outpaint_batches` yields batches.

        Args:
            sides: one side ("left", "right", "top" or "bottom") or a list of two opposite sides.
            pixels: number of pixels to add at each side; None for half of the model's size.

        Returns:
            Images (B, C, H, W) uint8, taller or wider than the model's images by the added pixels.
        """
        networks, several = self._networks(), [sides] if isinstance(sides, str) else list(sides)
        # Windows are as high or as wide as the model's images, so images grow along one axis.
        axes = {SIDES[side][0] if side in SIDES else None for side in several}
        if len(axes) != 1 or None in axes:
            reason = f"'{','.join(map(str, several))}' is not an allowed choice"
            raise ArgumentError("sides", reason, "use left and/or right, or top and/or bottom")
        images, _ = as_batch(pictures, self.channels, self.image_size)
        pixels = whole("pixels", self.image_size // 2 if pixels is None else pixels)
        if pixels < 1:
            raise ArgumentError("pixels", f"{pixels} pixels cannot be added", "give 1 or more")
        first, options = whole("seed", seed), self._edit_options(decoding)
        options |= {"pixels": pixels, "overlap": self.image_size // 2}

        def extended(number: int, images: Tensor, labels: Tensor) -> Tensor:
            for side in several:
                seed = mix(first, side, number)
                images = outpaint_beyond(*networks, images, labels, side=side, seed=seed, **options)
            return images

        return starmap(extended, self._batches(images, classes))

    outpaint = _joined(outpaint_batches)

    def _edit_options(self, decoding: Decoding) -> dict[str, Any]:
        settings, own = self.defaults.settings(self.num_tokens, decoding, edit=True), self.defaults
        return {"settings": settings, "dilate": own.dilate, "feather": own.feather}

    def _batches(self, images: Tensor, classes: Classes) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Split pictures into batches. Yields tuples of a batch's number, pictures and labels."""
        labels, size = labels_for(classes, None, self.classes), self.defaults.batch_size
        if len(labels) not in (1, len(images)):
            reason = f"{len(labels)} classes for {len(images)} pictures"
            raise ArgumentError("classes", reason, "give one class, or one class per picture")
        pairs = zip(images.split(size), labels.expand(len(images)).split(size), strict=True)
        return ((number, *pair) for number, pair in enumerate(pairs))

    def encode(self, pictures: Pictures) -> Tensor:
        """Encode pictures as tokens (B, h, w) int64, on the CPU."""
        _, tokenizer = self._networks()
        images, _ = as_batch(pictures, self.channels, self.image_size)
        chunks = images.split(self.defaults.batch_size)
        return torch.cat([tokenizer.encode(as_float(c).to(self.device)).cpu() for c in chunks])

    def decode(self, tokens: Tensor) -> Tensor:
        """Decode tokens (B, h, w) to images (B, C, H, W) uint8."""
        _, tokenizer = self._networks()
        codes, tokens = tokenizer.config.codebook_size, torch.as_tensor(tokens)
        known = not tokens.is_floating_point() and ((tokens >= 0) & (tokens < codes)).all()
        if not known or tokens.shape != (len(tokens), self.grid, self.grid):
            allowed = f"whole numbers from 0 to {codes - 1}, of shape (B, {self.grid}, {self.grid})"
            reason = f"{tokens.dtype} of shape {tuple(tokens.shape)} cannot be decoded"
            raise ArgumentError("tokens", reason, f"give {allowed}")
        chunks = tokens.long().flatten(1).split(self.defaults.batch_size)
        return torch.cat([tokens_to_images(tokenizer, c.to(self.device)) for c in chunks])

    def reconstruct(self, pictures: Pictures) -> Tensor:
        """Encode pictures as tokens, and decode the tokens to images (B, C, H, W) uint8. The same
        decoder draws samples, so samples cannot look better than these reconstructions."""
        return self.decode(self.encode(pictures))

    @staticmethod
    def to_pil(images: Tensor) -> list[Image.Image]:
        """Convert images (B, C, H, W) uint8 to Pillow pictures, grey or RGB."""
        return [from_chw(image) for image in images.cpu().numpy()]

    @staticmethod
    def to_grid(images: Tensor, columns: int = 10) -> Image.Image:
        """Arrange images (B, C, H, W) uint8 in rows on one Pillow picture. Small images are
        enlarged."""
        return grid_picture(images, max(1, min(columns, len(images))))

    def _networks(self) -> tuple[MaskGitTransformer, Tokenizer]:
        """Return the transformer and the tokenizer, in evaluation mode. Raises an `ArgumentError`
        if autocast or PyTorch's default dtype or device would change the results."""
        if any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")):
            raise ArgumentError("torch.autocast", "autocast is on", "use bf16=True instead")
        if torch.get_default_dtype() != torch.float32 or torch.get_default_device().type != "cpu":
            way_out = "set the default dtype to float32 and the default device to cpu"
            raise ArgumentError("PyTorch", "the default dtype or device was changed", way_out)
        return self.transformer.eval(), self.tokenizer.eval()


def _device(given: torch.device | str | None) -> torch.device:
    device = pick_device() if given is None else torch.device(given)
    if device.type == "cuda":
        repeatable()
    return device
