"""Trains the VQGAN tokenizer with reconstruction, perceptual, adversarial, commitment and entropy
losses, and replaces unused codes (paper, section 4.1; loss weights as in the authors' release)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.paths import CLASSIFIER, IMAGES
from pipeline.config.schema import Tokenizer as TokenizerParams
from pipeline.data.images.batches import Batch, ImageBatches, prepared
from pipeline.data.images.pixels import as_float
from pipeline.data.images.shards import ImageShards, View
from pipeline.data.ranks import ALONE, Ranks
from pipeline.data.seeds import generator, mix
from pipeline.evaluation.reconstruction import BATCH, quality, rebuild
from pipeline.perceptual import Perceptual, open_perceptual
from pipeline.runtime.device import tf32, to_device
from pipeline.runtime.precision import autocast
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.tokenizer.discriminator import (
    adversarial_ramp,
    discriminator_loss,
    generator_loss,
    make_discriminator,
    r1_penalty,
)
from pipeline.tokenizer.quantizer import entropy_loss
from pipeline.training.loop.average import Average
from pipeline.training.loop.training import Task, Training
from pipeline.weights.configs import tokenizer_config
from pipeline.weights.published import load_model

ENTROPY_TEMPERATURE = 0.01  # of the softmax over distances, as in the authors' code
LOGGED = 256  # validation images on which the logged reconstruction quality is measured


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining(Training):
    """Settings of a training run of the tokenizer and its discriminator."""

    section = "tokenizer"

    def task(self, ranks: Ranks, device: torch.device) -> "TokenizerTask":
        p, data, seed = self.params.tokenizer, self.params.data, self.seed
        classifier = load_model(CLASSIFIER, "classifier", device)
        images, held_out = (ImageShards(IMAGES, split) for split in ("train", "val"))
        batches = ImageBatches(images, data, p.batch_size, seed, ranks)
        return TokenizerTask(
            tokenizer_config(self.params),
            p,
            open_perceptual(p.perceptual, classifier, device),
            prepared(batches, self.params.ray.loaders_per_worker, device),
            View(held_out, data, seed).centers(range(len(held_out))[:LOGGED]),
            seed,
            device,
            ranks,
        )


class TokenizerTask(Task):
    """One worker's share of training a tokenizer and its discriminator. Keeps a moving average of
    the tokenizer's weights. The entropy loss and the replacement of unused codes use the images of
    all workers. So the number of workers changes results only by rounding errors in sums.

    Args:
        perceptual: maps (images, reconstruction) to distances (B,); see `open_perceptual`.
        batches: maps a step to this worker's images (b, C, H, W) uint8, and labels (not used).
        validation: images (M, C, H, W) uint8, equal on all workers, for the logged reconstruction
            quality.
    """

    saved = ("model", "discriminator", "optimizer", "d_optimizer", "average")
    model: Tokenizer

    def __init__(
        self,
        config: TokenizerConfig,
        params: TokenizerParams,
        perceptual: Perceptual,
        batches: Callable[[int], Batch],
        validation: Tensor,
        seed: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ):
        torch.manual_seed(mix(seed, "init"))
        self.model = Tokenizer(config).to(device)
        self.discriminator = make_discriminator(
            params.discriminator,
            config.channels,
            params.discriminator_filters,
            side=validation.shape[-1],
        ).to(device)
        self.average = Average(self.model, params.ema_decay)
        self.params, self.seed, self.device, self.ranks = params, seed, device, ranks
        self.perceptual, self.batches, self.validation = perceptual, batches, validation
        adam: dict[str, Any] = {"lr": params.lr, "betas": tuple(params.betas), "fused": True}
        self.optimizer = torch.optim.Adam(self.model.parameters(), **adam)
        self.d_optimizer = torch.optim.Adam(self.discriminator.parameters(), **adam)
        self.idle = torch.zeros(config.codebook_size, dtype=torch.long, device=device)

    def step(self, step: int) -> dict[str, Tensor]:
        with tf32(self.params.tf32):
            return self._step(step)

    def _step(self, step: int) -> dict[str, Tensor]:
        p, images = self.params, as_float(to_device(self.batches(step)[0], self.device))
        self.model.train()
        with autocast(self.device, p.bf16, "convolutions"):
            z = self.model.encoder(images)
        z = z.float()  # the nearest code is searched in float32
        dead, noise = self.idle >= p.revive_after, generator(self.seed, "revive", step)
        self.model.quantizer.revive(z.detach(), dead, noise, self.ranks)
        self.idle.masked_fill_(dead, 0)
        quantized = self.model.quantizer(z)
        with autocast(self.device, p.bf16, "convolutions"):
            reconstruction = self.model.decoder(quantized.embedding)
            perceptual = self.perceptual(images, reconstruction).mean()
        reconstruction = reconstruction.float()

        losses = {
            "reconstruction": F.mse_loss(reconstruction, images),
            "perceptual": perceptual,
            "commitment": quantized.commitment_loss,
            "codebook": quantized.codebook_loss,
            "entropy": entropy_loss(quantized.distances, ENTROPY_TEMPERATURE, self.ranks),
        }
        total = (
            losses["reconstruction"]
            + p.perceptual_weight * losses["perceptual"]
            + p.commitment_weight * losses["commitment"]
            + losses["codebook"]
            + p.entropy_weight * losses["entropy"]
        )
        weight = p.adversarial_weight * adversarial_ramp(step, p.adversarial_start)
        if weight > 0:
            self.discriminator.requires_grad_(False)
            losses["adversarial"] = generator_loss(self.discriminator(reconstruction))
            self.discriminator.requires_grad_(True)
            total = total + weight * losses["adversarial"]
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.ranks.average_gradients(self.model)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        used = torch.zeros_like(self.idle).index_fill(0, quantized.tokens.flatten(), 1)
        self.idle = (self.idle + 1).masked_fill(self.ranks.total(used) > 0, 0)
        if p.adversarial_weight > 0 and step >= p.adversarial_start:
            losses |= self._discriminator_step(images, reconstruction.detach(), step)
        return losses

    def _discriminator_step(self, images: Tensor, fake: Tensor, step: int) -> dict[str, Tensor]:
        loss = discriminator_loss(self.discriminator(images), self.discriminator(fake))
        total = loss
        if step % self.params.r1_every == 0:  # the larger weight makes up for skipped steps
            weight = self.params.r1_weight * self.params.r1_every
            total = total + weight * r1_penalty(self.discriminator, images)
        self.d_optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.ranks.average_gradients(self.discriminator)
        self.d_optimizer.step()
        return {"discriminator": loss}

    def evaluate(self, step: int) -> dict[str, float]:
        batches = self.ranks.rows(self.validation).split(BATCH)
        sums = [rebuild(self.average.module, images, self.device)[1] for images in batches]
        total = sum(sums[1:], start=sums[0])
        return quality(self.ranks.total(total))

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"idle": self.idle}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.idle = state["idle"].to(self.device)
