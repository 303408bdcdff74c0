"""Training the VQGAN tokenizer: reconstruction, perceptual, adversarial, commitment and entropy
losses, with unused codes revived (paper, section 4.1; weights as in the authors' release)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.schema import Tokenizer as TokenizerParams
from pipeline.data.images.batches import ImageBatches
from pipeline.data.images.pixels import as_float
from pipeline.discriminator import (
    Discriminator,
    adversarial_ramp,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from pipeline.evaluation.reconstruction import BATCH, Reconstruction
from pipeline.perceptual import Perceptual
from pipeline.runtime.seeds import generator, mix
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.tokenizer.quantizer import entropy_loss
from pipeline.training.loop import averaged


class TokenizerTask:
    """Trains a tokenizer, whose weights are averaged, and its discriminator.

    Args:
        perceptual: (images, reconstruction) → loss, as from `open_perceptual`.
        batches: step → uint8 images (B, C, H, W) and labels, which are not used.
        validation: uint8 images (M, C, H, W) for the logged reconstruction quality.
    """

    def __init__(
        self,
        config: TokenizerConfig,
        params: TokenizerParams,
        perceptual: Perceptual,
        batches: ImageBatches,
        validation: Tensor,
        seed: int,
        device: torch.device,
    ):
        torch.manual_seed(mix(seed, "init"))
        self.model = Tokenizer(config).to(device)
        self.discriminator = Discriminator(config.channels, params.discriminator_filters).to(device)
        self.average = averaged(self.model, params.ema_decay)
        self.params, self.seed, self.device = params, seed, device
        self.perceptual, self.batches, self.validation = perceptual, batches, validation
        adam: dict[str, Any] = {"lr": params.lr, "betas": tuple(params.betas), "fused": True}
        self.optimizer = torch.optim.Adam(self.model.parameters(), **adam)
        self.d_optimizer = torch.optim.Adam(self.discriminator.parameters(), **adam)
        self.idle = torch.zeros(config.codebook_size, dtype=torch.long, device=device)

    def step(self, step: int) -> dict[str, Tensor]:
        images = as_float(self.batches(step)[0].to(self.device))
        self.model.train()
        p = self.params
        with self._autocast():
            z = self.model.encoder(images)
        z = z.float()  # the nearest code is found in full precision
        self._revive_codes(z, step)
        quantized = self.model.quantizer(z)
        with self._autocast():
            reconstruction = self.model.decoder(quantized.embedding)
            perceptual = self.perceptual(images, reconstruction)
        reconstruction = reconstruction.float()

        adversarial_weight = p.adversarial_weight * adversarial_ramp(step, p.adversarial_start)
        losses = {
            "reconstruction": F.mse_loss(reconstruction, images),
            "perceptual": perceptual,
            "commitment": quantized.commitment_loss,
            "codebook": quantized.codebook_loss,
            "entropy": entropy_loss(quantized.distances, p.entropy_temperature),
        }
        total = (
            losses["reconstruction"]
            + p.perceptual_weight * losses["perceptual"]
            + p.commitment_weight * losses["commitment"]
            + losses["codebook"]
            + p.entropy_weight * losses["entropy"]
        )
        if adversarial_weight > 0:
            self.discriminator.requires_grad_(False)
            losses["adversarial"] = generator_loss(self.discriminator(reconstruction))
            total = total + adversarial_weight * losses["adversarial"]
            self.discriminator.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self._count_idle(quantized.tokens)
        if p.adversarial_weight > 0 and step >= p.adversarial_start:
            losses |= self._discriminator_step(images, reconstruction.detach(), step)
        return losses

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.params.bf16)

    def _discriminator_step(self, images: Tensor, fake: Tensor, step: int) -> dict[str, Tensor]:
        loss = discriminator_loss(self.discriminator(images), self.discriminator(fake))
        total = loss
        if step % self.params.r1_every == 0:  # seldom, and weighted up for the steps without
            weight = self.params.r1_weight * self.params.r1_every
            total = total + weight * r1_penalty(self.discriminator, images)
        self.d_optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.d_optimizer.step()
        return {"discriminator": loss}

    def _revive_codes(self, z: Tensor, step: int) -> None:
        dead = self.idle >= self.params.revive_after
        self.model.quantizer.revive(z.detach(), dead, generator(self.seed, "revive", step))
        self.idle.masked_fill_(dead, 0)

    def _count_idle(self, tokens: Tensor) -> None:
        used = torch.bincount(tokens.flatten(), minlength=len(self.idle)) > 0
        self.idle = (self.idle + 1).masked_fill(used, 0)

    def evaluate(self, step: int) -> dict[str, float]:
        reconstruction = Reconstruction(self.average.module, self.device)
        for images in self.validation.split(BATCH):
            reconstruction(images)
        return reconstruction.metrics() | self._balance(step)

    def _balance(self, step: int) -> dict[str, float]:
        """The pull of the discriminator: the norm of the weighted adversarial gradient at the
        decoder's last layer, divided by that of the reconstruction and perceptual losses. (VQGAN's
        adaptive weight is computed from the same two gradients.)"""
        p = self.params
        weight = p.adversarial_weight * adversarial_ramp(step, p.adversarial_start)
        if weight == 0:
            return {}
        images = as_float(self.validation[: p.batch_size].to(self.device))
        output, _ = self.model(images)
        faithful = F.mse_loss(output, images) + p.perceptual_weight * self.perceptual(
            images, output
        )
        fooling = weight * generator_loss(self.discriminator(output))
        norms = [
            torch.autograd.grad(loss, self.model.last_layer, retain_graph=True)[0].norm()
            for loss in (fooling, faithful)
        ]
        return {"adversarial_balance": (norms[0] / norms[1].clamp(min=1e-12)).item()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "d_optimizer": self.d_optimizer.state_dict(),
            "average": self.average.state_dict(),
            "idle": self.idle,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("model", "discriminator", "optimizer", "d_optimizer", "average"):
            getattr(self, name).load_state_dict(state[name])
        self.idle = state["idle"].to(self.device)
