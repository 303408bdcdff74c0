"""Vector quantization with the losses of VQ-VAE and the entropy term of the authors' release."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data.ranks import ALONE, Ranks
from pipeline.runtime.device import to_device


class Quantized(NamedTuple):
    """The result of quantizing encoder outputs z (B, D, h, w)."""

    embedding: Tensor  # (B, D, h, w); gradients pass straight through to the encoder
    tokens: Tensor  # (B, h, w) int64
    commitment_loss: Tensor  # ‖z - sg(e)‖², mean
    codebook_loss: Tensor  # ‖sg(z) - e‖², mean
    distances: Tensor  # (B·h·w, K) squared distances of every position to every code


class VectorQuantizer(nn.Module):
    """Nearest-neighbour look-up in a learned codebook of K vectors."""

    def __init__(self, codebook_size: int, embedding_dim: int):
        super().__init__()
        self.codebook = nn.Parameter(torch.empty(codebook_size, embedding_dim))
        # Variance scaling (fan in, uniform), the authors' initializer.
        bound = (3 / codebook_size) ** 0.5
        nn.init.uniform_(self.codebook, -bound, bound)

    def distances(self, z: Tensor) -> Tensor:
        """Squared distances (B·h·w, K) of encoder outputs (B, D, h, w) to the K codes."""
        flat = z.movedim(1, -1).flatten(0, -2)
        return (
            flat.pow(2).sum(1, keepdim=True)
            - 2 * flat @ self.codebook.T
            + self.codebook.pow(2).sum(1)
        )

    def nearest(self, z: Tensor) -> Tensor:
        """The nearest codes of encoder outputs (B, D, h, w), as a token grid (B, h, w)."""
        return self.distances(z).argmin(dim=1).view(z.shape[0], *z.shape[2:])

    def lookup(self, tokens: Tensor) -> Tensor:
        """Code vectors (B, D, h, w) of a token grid (B, h, w)."""
        return F.embedding(tokens, self.codebook).movedim(-1, 1)

    def forward(self, z: Tensor) -> Quantized:
        distances = self.distances(z)
        tokens = distances.argmin(dim=1).view(z.shape[0], *z.shape[2:])
        codes = self.lookup(tokens)
        return Quantized(
            embedding=z + (codes - z).detach(),
            tokens=tokens,
            commitment_loss=F.mse_loss(z, codes.detach()),
            codebook_loss=F.mse_loss(codes, z.detach()),
            distances=distances,
        )

    @torch.no_grad()
    def revive(
        self, z: Tensor, dead: Tensor, generator: torch.Generator, ranks: Ranks = ALONE
    ) -> None:
        """Replace unused codes with randomly drawn encoder outputs.

        Args:
            z: encoder outputs (B, D, h, w) for this worker's share of the batch.
            dead: codes to replace, (K,) bool.
            ranks: the data-parallel workers. New codes are drawn from the outputs of all workers,
                and are the same on every worker.
        """
        flat = z.movedim(1, -1).flatten(0, -2)
        draw = torch.randint(len(flat) * ranks.workers, (len(dead),), generator=generator)
        row = to_device(draw, flat.device) - len(flat) * ranks.rank
        own = (row >= 0) & (row < len(flat))
        # Each worker contributes its own outputs, and zeros for other workers' outputs.
        drawn = ranks.total(torch.where(own[:, None], flat[row.where(own, 0)], 0))
        self.codebook.copy_(torch.where(dead[:, None], drawn, self.codebook))


def entropy_loss(distances: Tensor, temperature: float, ranks: Ranks = ALONE) -> Tensor:
    """Mean entropy of the code posteriors minus the entropy of their mean, as in the authors' code.
    The loss is minimal if every position is certain of its code and all codes are used equally.

    Args:
        distances: squared distances (M, K); the logits are -distances / temperature.
        ranks: the data-parallel workers. The mean posterior is averaged over all workers.
    """
    log_prob = (-distances / temperature).log_softmax(dim=-1)
    prob = log_prob.exp()
    sample_entropy = -(prob * log_prob).sum(dim=-1).mean()
    mean_prob = ranks.mean(prob.mean(dim=0))
    mean_entropy = -(mean_prob * (mean_prob + 1e-5).log()).sum()
    return sample_entropy - mean_entropy


def code_usage(counts: Tensor) -> tuple[float, float]:
    """The fraction of codes that are used, and the perplexity of code use (the effective number of
    codes). `counts` (K,) is the number of times that each code was chosen."""
    p = counts.double() / counts.sum().clamp(min=1)
    perplexity = torch.exp(-(p * p.clamp(min=1e-12).log()).sum())
    return (counts > 0).double().mean().item(), perplexity.item()
