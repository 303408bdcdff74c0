"""Training the VQGAN tokenizer: reconstruction, perceptual, adversarial, commitment and entropy
losses, with unused codes revived (paper, section 4.1; weights as in the authors' release)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.shards import ImageBatches, as_float, as_uint8
from pipeline.discriminator import (
    Discriminator,
    adversarial_ramp,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from pipeline.params import Params
from pipeline.params import Tokenizer as TokenizerParams
from pipeline.perceptual import Perceptual
from pipeline.quantizer import code_usage, entropy_loss
from pipeline.seeds import generator, mix
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.training.loop import Ema

BATCH = 128  # images reconstructed at once


def tokenizer_config(params: Params) -> TokenizerConfig:
    p = params.tokenizer
    return TokenizerConfig(
        channels=params.data.channels,
        filters=p.filters,
        multipliers=tuple(p.multipliers),
        res_blocks=p.res_blocks,
        embedding_dim=p.embedding_dim,
        codebook_size=p.codebook_size,
    )


class TokenizerTask:
    """
    Args:
        perceptual: (images, reconstruction) → loss.
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
        self.ema = Ema(self.model, params.ema_decay)
        self.params, self.seed, self.device = params, seed, device
        self.perceptual, self.batches, self.validation = perceptual, batches, validation
        adam = {"lr": params.lr, "betas": tuple(params.betas), "fused": True}
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
        self.ema.update(self.model, step)
        self._count_idle(quantized.tokens)
        if p.adversarial_weight > 0 and step >= p.adversarial_start:
            losses |= self._discriminator_step(images, reconstruction.detach(), step)
        return losses

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.params.bf16)

    def _discriminator_step(self, images: Tensor, fake: Tensor, step: int) -> dict[str, Tensor]:
        loss = discriminator_loss(self.discriminator(images), self.discriminator(fake))
        total = loss
        if step % self.params.r1_every == 0:  # lazily, weighted up for the steps it is left out
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
        reconstruction = Reconstruction(self.published(), self.device)
        for images in self.validation.split(BATCH):
            reconstruction(images)
        return reconstruction.metrics() | self._balance(step)

    def _balance(self, step: int) -> dict[str, float]:
        """How hard the discriminator pulls: the norm of the weighted adversarial gradient at the
        decoder's last layer, over that of the reconstruction and perceptual losses (the quantity
        that VQGAN's adaptive weight is made of)."""
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

    def published(self) -> Tokenizer:
        """The tokenizer with averaged weights, in evaluation mode."""
        model = Tokenizer(self.model.config).to(self.device)
        model.load_state_dict(self.ema.weights)
        return model.eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "d_optimizer": self.d_optimizer.state_dict(),
            "ema": self.ema.weights,
            "idle": self.idle,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("model", "discriminator", "optimizer", "d_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.ema.weights = {k: v.to(self.device) for k, v in state["ema"].items()}
        self.idle = state["idle"].to(self.device)


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB, for images in [0, 1]."""
    return 10 * torch.tensor(1 / max(mse, 1e-10)).log10().item()


class Reconstruction:
    """Reconstructs batch after batch of images, and measures PSNR and code usage over them all."""

    def __init__(self, model: Tokenizer, device: torch.device):
        self.model, self.device = model, device
        self._counts = torch.zeros(model.config.codebook_size, dtype=torch.long)
        self._squared, self._images = 0.0, 0

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) uint8 from their tokens."""
        tokens = self.model.encode(as_float(images).to(self.device))
        output = as_uint8(self.model.decode(tokens)).cpu()
        mse = (as_float(output) - as_float(images)).pow(2).mean().item()
        self._squared += mse * len(images)
        self._images += len(images)
        self._counts += torch.bincount(tokens.flatten().cpu(), minlength=len(self._counts))
        return output

    def metrics(self) -> dict[str, float]:
        usage, perplexity = code_usage(self._counts)
        quality = {"psnr": psnr(self._squared / self._images)}
        return quality | {"code_usage": usage, "code_perplexity": perplexity}
