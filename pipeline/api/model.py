"""A trained MaskGIT to use from Python."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from pipeline.api.defaults import Decoding
from pipeline.api.editor import Editor
from pipeline.api.hub import download, push
from pipeline.api.labels import Classes, labels_for
from pipeline.api.numbers import a_path, whole
from pipeline.api.opening import open_folder, open_released
from pipeline.api.saving import save
from pipeline.api.surroundings import require_plain_torch
from pipeline.data.seeds import mix
from pipeline.decoding import DecodingSettings, generate_steps
from pipeline.runtime.device import pick_device, repeatable
from pipeline.runtime.errors import ArgumentError
from pipeline.sampling import Sampler, sample_batches
from pipeline.tokenizer import tokens_to_images

GREY = 128  # of tokens that are masked still


class Canvas(NamedTuple):
    """The canvas after an iteration of decoding, on the CPU."""

    iteration: int  # 1 to T
    images: Tensor  # (B, C, H, W) uint8: the full sample; the last one is the result
    masked: Tensor  # (B, H, W) bool: the pixels of tokens that are masked again

    @property
    def shown(self) -> Tensor:
        """The images with what is masked in grey."""
        return self.images.masked_fill(self.masked[:, None], GREY)


class MaskGIT(Editor):
    """A tokenizer and the transformer that was trained on its tokens.

    Images that are made are uint8 tensors (B, C, H, W) on the CPU; `to_pil` makes pictures of them.
    Pictures that are taken are Pillow's or paths (cut to their centred square and resized to the
    model's size), or tensors of the model's size, uint8 or floats in [0, 1]. Classes are names or
    numbers, one or several. The same call with the same seed gives the same bytes on one machine.

    How it decodes is the run's own (`defaults`) unless a call says otherwise, by any of
    `iterations` (T, 1 to `num_tokens`), `schedule` (the mask schedule's name), `temperature` (the
    choice temperature) and `guidance` (s; models trained with `training.label_drop` alone).

    What is not allowed raises a ValueError that says what is.
    """

    @classmethod
    def from_pretrained(
        cls,
        source: Path | str,
        *,
        seed: int | None = None,
        device: torch.device | str | None = None,
        revision: str | None = None,
    ) -> "MaskGIT":
        """Open a model.

        Args:
            source: a project's folder or its `models/`, a folder that `save_pretrained` wrote, or
                a repository of the Hugging Face Hub ("owner/name"; a folder of that name is first).
            seed: the one to open of a project's replicates (`evaluation.seeds`); None the first.
            device: the GPU if there is one, if None.
            revision: of a repository: a branch, tag or commit.

        Raises:
            UserError: there is no model, or it is damaged, or has another seed or no revision.
        """
        require_plain_torch()
        folder, seed = a_path("source", source), None if seed is None else whole("seed", seed)
        if not os.path.exists(folder):
            folder = download(str(source), revision)
        elif revision is not None:
            raise ArgumentError(f"revision: {source} is a folder here and has none; leave it out")
        return cls(open_folder(folder, seed, _device(device)))

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
        require_plain_torch()
        device = _device(device)
        return cls(open_released(tokenizer, transformer, preset, device, classes))

    def save_pretrained(self, folder: Path | str) -> Path:
        """Write the model as a folder of safetensors and JSON, with a model card that has the run's
        own numbers where its results are of this model. A folder of that name is replaced if it
        holds a saved model.

        Raises:
            UserError: something else lies there, or a stage makes it and DVC deletes it; or it
                cannot be written, or would not be opened again.
        """
        return save(self._opened, a_path("folder", folder), str(folder))

    def push_to_hub(
        self, repository: str, *, private: bool = True, token: str | None = None
    ) -> str:
        """Save the model to a repository of the Hugging Face Hub, made if need be; its address.

        Args:
            repository: "owner/name".
            token: that of `hf auth login` if None.

        Raises:
            UserError: the Hub cannot be reached, or refuses.
        """
        return push(partial(save, self._opened, name=repository), repository, private, token)

    def sample(
        self,
        classes: Classes | None = None,
        count: int | None = None,
        *,
        seed: int = 0,
        **decoding: Unpack[Decoding],
    ) -> Tensor:
        """Draw images of classes.

        Args:
            classes: all of the model's if None.
            count: of images, which cycle through the classes; one of each if None.

        Returns:
            (count, C, H, W) uint8.
        """
        return torch.cat([*self.sample_batches(classes, count, seed=seed, **decoding)])

    def sample_batches(
        self,
        classes: Classes | None = None,
        count: int | None = None,
        *,
        seed: int = 0,
        **decoding: Unpack[Decoding],
    ) -> Iterator[Tensor]:
        """Draw the images of `sample`, of `defaults.batch_size` at once, and yield each batch as it
        is drawn."""
        draw = Sampler(*self._ready())
        labels = labels_for(classes, count, self.classes)
        settings = self.defaults.settings(self.num_tokens, decoding)
        batches = sample_batches(
            settings, labels, batch_size=self.defaults.batch_size, seed=whole("seed", seed)
        )
        return (draw(*batch) for batch in batches)

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
        self._ready()
        labels, most = labels_for(classes, count, self.classes), self.defaults.batch_size
        if len(labels) > most:
            raise ArgumentError(
                f"count: {len(labels):,} are more than are decoded at once; give 1 to {most}"
            )
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


def _device(given: torch.device | str | None) -> torch.device:
    if given is None:
        return pick_device()
    try:
        device = torch.empty(0, device=given).device
    except Exception as error:  # torch has pages to say, of many kinds
        raise ArgumentError(f"device: '{given}' is none that is here; give cpu or cuda") from error
    if device.type == "meta":
        raise ArgumentError("device: meta holds no numbers; give cpu or cuda")
    if device.type == "cuda":
        repeatable()
    return device
