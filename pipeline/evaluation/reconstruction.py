"""How faithfully a tokenizer rebuilds images: PSNR and code usage."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.data.images.pixels import as_float, as_uint8
from pipeline.tokenizer import Tokenizer
from pipeline.tokenizer.quantizer import code_usage

BATCH = 128  # images reconstructed at once


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
        """Reconstructions of images, both (B, C, H, W) uint8 on the CPU."""
        tokens = self.model.encode(as_float(images).to(self.device))
        output = as_uint8(self.model.decode(tokens)).cpu()
        mse = (as_float(output) - as_float(images)).pow(2).mean().item()
        self._squared += mse * len(images)
        self._images += len(images)
        self._counts += torch.bincount(tokens.flatten().cpu(), minlength=len(self._counts))
        return output

    def metrics(
        self, total: Callable[[Tensor], Tensor] = lambda values: values
    ) -> dict[str, float]:
        """psnr in dB, code_usage (a fraction) and code_perplexity of all images so far.

        Args:
            total: adds up values (n,) over the workers that share the images.
        """
        own = torch.tensor([self._squared, self._images], dtype=torch.float64)
        squared, images, *counts = total(torch.cat([own, self._counts.double()])).tolist()
        usage, perplexity = code_usage(torch.tensor(counts, dtype=torch.float64))
        quality = {"psnr": psnr(squared / images)}
        return quality | {"code_usage": usage, "code_perplexity": perplexity}
