"""A trained MaskGIT to use from Python."""

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from PIL import Image
from torch import Tensor

from pipeline.api import pictures as convert
from pipeline.api.arguments import require_free, whole
from pipeline.api.card import CARD, FILES, describe
from pipeline.api.defaults import Decoding
from pipeline.api.labels import Classes, class_labels, labels_for
from pipeline.api.opening import ModelWarning, Opened, open_folder, open_here, open_released
from pipeline.api.pictures import Box, Mask, Pictures
from pipeline.data.image_grid import grid_picture
from pipeline.data.images.pixels import as_float
from pipeline.data.seeds import mix
from pipeline.decoding import DecodingSettings, generate_steps
from pipeline.editing import Side, edit, outpaint_beyond
from pipeline.runtime.device import pick_device, repeatable
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.files import atomic_folder
from pipeline.sampling import Sampler, sample_batches
from pipeline.tokenizer import Tokenizer, tokens_to_images
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import save_model

GREY = 128  # the pixels of tokens that are still masked
TAGS = ["class-conditional-image-generation", "maskgit", "masked-image-modeling", "vqgan"]


class Drawing(Decoding, total=False):
    """Options of `sample`."""

    seed: int


class Editing(Drawing, total=False):
    """Options of `edit` and `inpaint`."""

    box: Box | None  # (left, top, right, bottom) of the part, in pixels of the pictures as given
    mask: Mask | None  # in place of the box: a picture of their size, or an array (H, W) of bool


class Outpainting(Drawing, total=False):
    """Options of `outpaint`."""

    sides: Side | Sequence[Side]  # either of "left" and "right", or of "top" and "bottom"
    pixels: int | None  # how far at each side; half of the model's size if None


class Canvas(NamedTuple):
    """The canvas after an iteration of decoding, on the CPU."""

    iteration: int  # 1 to T
    images: Tensor  # (B, C, H, W) uint8: the full sample; the last one is the result
    masked: Tensor  # (B, H, W) bool: the pixels of tokens that are masked again

    @property
    def shown(self) -> Tensor:
        """The images with what is masked in grey."""
        return self.images.masked_fill(self.masked[:, None], GREY)


class MaskGIT(ModelHubMixin, library_name="maskgit-pipeline", tags=TAGS, model_card_template=CARD):
    """A tokenizer and the transformer that was trained on its tokens.

    Methods return images as uint8 tensors (B, C, H, W) on the CPU; `to_pil` converts them. They
    take pictures as Pillow images or paths (cut to their centred square and resized to the model's
    size), or as tensors of the model's size, uint8 or floats in [0, 1]. Classes are names or
    numbers, one or several. The same call with the same seed gives the same bytes on one machine.

    A call decodes as the run did (`defaults`), but for the keywords of `Decoding` that it is given.
    A value that is not allowed raises a ValueError that says which values are.
    """

    def __init__(self, opened: Opened):
        self._opened, self.project = opened, opened.project
        self.tokenizer, self.transformer = opened.tokenizer, opened.transformer
        self.classes, self.defaults = tuple(opened.about.classes), opened.about.defaults
        self.channels = self.tokenizer.config.channels  # 1 grey, 3 RGB
        self.num_tokens = self.transformer.config.num_tokens
        self.grid = math.isqrt(self.num_tokens)  # tokens along a side of an image
        self.image_size = self.grid * self.tokenizer.config.downsampling

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    @classmethod
    def from_pretrained(  # type: ignore[override] # a project is no repository
        cls,
        source: Path | str | None = None,
        *,
        seed: int | None = None,
        device: torch.device | str | None = None,
        **hub: Any,
    ) -> "MaskGIT":
        """Open a model.

        Args:
            source: a project's folder or its `models/`, a folder that `save_pretrained` wrote, or
                a repository of the Hugging Face Hub ("owner/name"; a folder of that name is first).
                None is the current folder or, if no model was trained there, the one that ships
                with this package (a warning says so).
            seed: the one to open of a project's replicates (`evaluation.seeds`); None the first.
            device: the GPU if there is one, if None.
            hub: options of `huggingface_hub.snapshot_download`, such as `revision` or `token`.

        Raises:
            UserError: there is no model, or it is damaged, or has another seed.
        """
        _require_plain_torch()
        seed = None if seed is None else whole("seed", seed)
        if source is not None and not os.path.exists(source):
            try:
                source = snapshot_download(str(source), allow_patterns=FILES, **hub)
            except Exception as error:  # of names and of the network, which have many
                raise _of_hub(str(source), "neither a folder nor on the Hub", error) from error
        device = _device(device)
        if source is None:
            opened = open_here(seed, device)
        else:
            opened = open_folder(Path(source), seed, device)
        for note in opened.notes:
            warnings.warn(note, ModelWarning, stacklevel=2)
        return cls(opened)

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
        """Open checkpoints of the authors' release, or of any other format that the stages accept.

        Args:
            preset: whose architecture and decoding they have.
            classes: their names, by label; their numbers if None.

        Raises:
            UserError: a file is missing, damaged, or holds another architecture.
        """
        _require_plain_torch()
        device = _device(device)
        return cls(open_released(tokenizer, transformer, preset, device, classes))

    def save_pretrained(  # type: ignore[override] # returns the folder
        self, save_directory: Path | str, **options: Any
    ) -> Path:
        """Write the model to a new folder of safetensors and JSON, whole or not at all, with a
        model card that has the run's own numbers if its results are of this model. Weights keep
        their dtype; `model.transformer.half()` halves the file.

        Args:
            options: of `ModelHubMixin.save_pretrained`.

        Raises:
            UserError: the folder is not new, cannot be written, or DVC would delete it.
        """
        folder = Path(save_directory)
        require_free(folder)
        about = describe(self._opened)
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

    def push_to_hub(  # type: ignore[override] # private, and its card names the repository
        self, repository: str, *, private: bool = True, **options: Any
    ) -> str:
        """Save the model to a repository of the Hugging Face Hub, made if need be.

        Args:
            repository: "owner/name".
            options: of `ModelHubMixin.push_to_hub`, such as `token` or `branch`.

        Returns:
            The address of the commit.

        Raises:
            UserError: the Hub cannot be reached, or refuses.
        """
        options["model_card_kwargs"] = {"name": repository}
        try:
            return str(super().push_to_hub(repository, private=private, **options))
        except UserError:
            raise
        except Exception as error:  # of the network, which have many
            raise _of_hub(repository, "the Hub does not take it", error) from error

    def sample(
        self,
        classes: Classes | None = None,
        count: int | None = None,
        **options: Unpack[Drawing],
    ) -> Tensor:
        """Draw images of classes.

        Args:
            classes: all of the model's if None.
            count: of images, which cycle through the classes; one of each if None.

        Returns:
            (count, C, H, W) uint8.
        """
        return torch.cat([*self.sample_batches(classes, count, **options)])

    def sample_batches(
        self,
        classes: Classes | None = None,
        count: int | None = None,
        *,
        seed: int = 0,
        **decoding: Unpack[Decoding],
    ) -> Iterator[Tensor]:
        """Yield the images of `sample` in batches of `defaults.batch_size`."""
        draw = Sampler(*self._networks())
        labels = labels_for(classes, count, self.classes)
        settings = self.defaults.settings(self.num_tokens, decoding)
        batches = sample_batches(
            settings, labels, batch_size=self.defaults.batch_size, seed=whole("seed", seed)
        )
        return starmap(draw, batches)

    def sample_steps(
        self,
        classes: Classes | None = None,
        count: int | None = None,
        *,
        seed: int = 0,
        **decoding: Unpack[Decoding],
    ) -> Iterator[Canvas]:
        """Draw one batch of images as `sample` does, and yield the canvas after each iteration.

        Args:
            count: as that of `sample`, and of one batch (`defaults.batch_size`) at most.
        """
        self._networks()
        labels, most = labels_for(classes, count, self.classes), self.defaults.batch_size
        if len(labels) > most:
            reason = f"{len(labels):,} are more than are decoded at once"
            raise ArgumentError("count", reason, f"give 1 to {most}")
        settings = self.defaults.settings(self.num_tokens, decoding)
        return self._canvases(labels, settings, whole("seed", seed))

    def _canvases(self, labels: Tensor, settings: DecodingSettings, seed: int) -> Iterator[Canvas]:
        first = mix(seed, "batch", 0)  # as `sample_batches` names it
        steps = generate_steps(self.transformer, labels, settings, seed=first, device=self.device)
        factor = self.tokenizer.config.downsampling
        for iteration, step in enumerate(steps, start=1):
            again = step.masked & (iteration < settings.iterations)  # after the last, nothing
            masked = again.unflatten(-1, (self.grid, self.grid)).cpu()
            pixels = masked.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
            yield Canvas(iteration, tokens_to_images(self.tokenizer, step.sampled), pixels)

    def edit(self, pictures: Pictures, classes: Classes, **options: Unpack[Editing]) -> Tensor:
        """Regenerate a part of pictures as a class, and blend it in (section 4.3, Figure 6). With
        the pictures' own class this fills a hole, whose content is not read (Table 2, Figure 7).

        Args:
            classes: one for all pictures, or one for each.
            options: with neither `box` nor `mask`, the centred box of half the sides.

        Returns:
            (B, C, H, W) uint8, of the model's size; pixels that are neither in the part nor next to
            it are unchanged.
        """
        return torch.cat([*self.edit_batches(pictures, classes, **options)])

    inpaint = edit

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
        """Yield the images of `edit` in batches of `defaults.batch_size`."""
        networks, first = self._networks(), whole("seed", seed)
        images, sizes = convert.as_batch(pictures, self.channels, self.image_size)
        hole = convert.pixel_mask(box, mask, sizes, self.image_size)
        options = self._edit_options(decoding)

        def edited(number: int, images: Tensor, labels: Tensor) -> Tensor:
            seed = mix(first, "edit", number)
            return edit(*networks, images, hole, labels, seed=seed, **options).composite

        return starmap(edited, self._batches(images, classes))

    def outpaint(
        self, pictures: Pictures, classes: Classes, **options: Unpack[Outpainting]
    ) -> Tensor:
        """Extend pictures beyond their sides, one side after the other (Figures 6 and 7).

        Returns:
            (B, C, H, W) uint8, higher or wider than the model's images by what was added.
        """
        return torch.cat([*self.outpaint_batches(pictures, classes, **options)])

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
        """Yield the images of `outpaint` in batches of `defaults.batch_size`."""
        networks, several = self._networks(), [sides] if isinstance(sides, str) else list(sides)
        # Windows are as high or as wide as the model's images, so only one direction can grow.
        if not several or not any(set(several) <= set(p) for p in (SIDES[:2], SIDES[2:])):
            reason = f"{', '.join(map(str, several)) or 'none'} cannot be extended together"
            raise ArgumentError("sides", reason, "use left, right or both, or top, bottom or both")
        images, _ = convert.as_batch(pictures, self.channels, self.image_size)
        pixels = whole("pixels", self.image_size // 2 if pixels is None else pixels)
        if pixels < 1:
            raise ArgumentError("pixels", f"{pixels} cannot be added", "give 1 or more")
        first, options = whole("seed", seed), self._edit_options(decoding)
        options |= {"pixels": pixels, "overlap": self.image_size // 2}

        def extended(number: int, images: Tensor, labels: Tensor) -> Tensor:
            for side in several:
                seed = mix(first, side, number)
                images = outpaint_beyond(*networks, images, labels, side=side, seed=seed, **options)
            return images

        return starmap(extended, self._batches(images, classes))

    def _edit_options(self, decoding: Decoding) -> dict[str, Any]:
        settings = self.defaults.settings(self.num_tokens, decoding, edit=True)
        return {
            "settings": settings,
            "dilate": self.defaults.dilate,
            "feather": self.defaults.feather,
        }

    def _batches(self, images: Tensor, classes: Classes) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Batches of pictures and their labels, with the numbers that their seeds come from."""
        labels, size = class_labels(classes, self.classes), self.defaults.batch_size
        if len(labels) not in (1, len(images)):
            reason = f"{len(labels)} of them for {len(images)} pictures"
            raise ArgumentError("classes", reason, "give one for all, or one each")
        pairs = zip(images.split(size), labels.expand(len(images)).split(size), strict=True)
        return ((number, *pair) for number, pair in enumerate(pairs))

    def encode(self, pictures: Pictures) -> Tensor:
        """Tokens (B, h, w) int64 of pictures, on the CPU."""
        _, tokenizer = self._networks()
        images, _ = convert.as_batch(pictures, self.channels, self.image_size)
        chunks = images.split(self.defaults.batch_size)
        return torch.cat([tokenizer.encode(as_float(c).to(self.device)).cpu() for c in chunks])

    def decode(self, tokens: Tensor) -> Tensor:
        """Images (B, C, H, W) uint8 of tokens (B, h, w)."""
        _, tokenizer = self._networks()
        codes, tokens = tokenizer.config.codebook_size, torch.as_tensor(tokens)
        if tokens.ndim != 3 or tokens.shape[1:] != (self.grid, self.grid):
            reason = f"shape {tuple(tokens.shape)}"
            raise ArgumentError("tokens", reason, f"give (B, {self.grid}, {self.grid})")
        if tokens.is_floating_point() or not ((tokens >= 0) & (tokens < codes)).all():
            raise ArgumentError("tokens", f"not all are whole numbers from 0 to {codes - 1}")
        chunks = tokens.long().flatten(1).split(self.defaults.batch_size)
        return torch.cat([tokens_to_images(tokenizer, c.to(self.device)) for c in chunks])

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
        images = convert.as_images(images)
        return grid_picture(images, max(1, min(columns, len(images))))

    def _networks(self) -> tuple[MaskGitTransformer, Tokenizer]:
        """The networks, where they compute as they did in the run. Raises: ArgumentError."""
        _require_plain_torch()
        return self.transformer.eval(), self.tokenizer.eval()


SIDES = ("left", "right", "top", "bottom")


def _require_plain_torch() -> None:
    """Raises: ArgumentError: PyTorch computes in another precision, or on another device, than in
    the run, which would change results in silence."""
    if any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")):
        reason = "on, which would change what is drawn"
        raise ArgumentError("torch.autocast", reason, "call outside of it (bf16=True is as fast)")
    state = torch.get_default_dtype(), torch.get_default_device().type
    if state != (torch.float32, "cpu"):
        reason = f"{state[0]} on {state[1]}, which would change what is drawn"
        raise ArgumentError("torch's defaults", reason, "set them to float32 and cpu")


def _device(given: torch.device | str | None) -> torch.device:
    device = pick_device() if given is None else torch.device(given)
    if device.type == "cuda":
        repeatable()
    return device


def _of_hub(repository: str, what: str, error: Exception) -> UserError:
    reason = f"{what} ({in_a_line(error)[:200]})"
    return UserError(repository, reason, "check the name, the network, and `hf auth login`")
