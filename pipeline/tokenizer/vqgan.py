"""The VQGAN tokenizer without attention, as in the authors' release (paper, section 4.1).

Images are NCHW with values in [0, 1]; a token grid is (B, h, w) with h = H / f, f = 2^(levels - 1).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data.images.pixels import as_uint8
from pipeline.data.microbatches import PIXELS, in_parts
from pipeline.tokenizer.quantizer import Quantized, VectorQuantizer

GROUPS = 32


@dataclass(frozen=True)
class TokenizerConfig:
    """A tokenizer's architecture. The authors' release has 128 filters, 2 residual blocks per
    level, multipliers 1, 1, 2, 2, 4, an embedding dimension of 256 and 1,024 codes."""

    channels: int
    filters: int
    multipliers: tuple[int, ...]
    res_blocks: int
    embedding_dim: int
    codebook_size: int

    @property
    def downsampling(self) -> int:
        """The downsampling factor f: pixels per token along each side."""
        return 2 ** (len(self.multipliers) - 1)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class ResBlock(nn.Module):
    """A pre-activation residual block.

    If the number of channels changes, the 1×1 shortcut is applied to the main branch's output, and
    the block's input is dropped, as in the authors' code: the released weights require this.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(outputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (x if self.shortcut is None else self.shortcut(y))


def _blocks(inputs: int, outputs: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResBlock(outputs if i else inputs, outputs) for i in range(count)))


class Encoder(nn.Module):
    def __init__(self, config: TokenizerConfig):
        super().__init__()
        width = config.filters
        self.stem = nn.Conv2d(config.channels, width, 3, padding=1, bias=False)
        self.levels = nn.ModuleList()
        for multiplier in config.multipliers:
            self.levels.append(_blocks(width, config.filters * multiplier, config.res_blocks))
            width = config.filters * multiplier
        self.middle = _blocks(width, width, config.res_blocks)
        self.norm = _norm(width)
        self.out = nn.Conv2d(width, config.embedding_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, level in enumerate(self.levels):
            x = level(x if i == 0 else F.avg_pool2d(x, 2))
        return self.out(F.silu(self.norm(self.middle(x))))


class Decoder(nn.Module):
    def __init__(self, config: TokenizerConfig):
        super().__init__()
        width = config.filters * config.multipliers[-1]
        self.stem = nn.Conv2d(config.embedding_dim, width, 3, padding=1)
        self.middle = _blocks(width, width, config.res_blocks)
        self.levels, self.upsample = nn.ModuleList(), nn.ModuleList()
        for i, multiplier in enumerate(reversed(config.multipliers)):
            if i > 0:
                self.upsample.append(nn.Conv2d(width, width, 3, padding=1))
            self.levels.append(_blocks(width, config.filters * multiplier, config.res_blocks))
            width = config.filters * multiplier
        self.norm = _norm(width)
        self.out = nn.Conv2d(width, config.channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.levels[0](self.middle(self.stem(z)))
        for conv, level in zip(self.upsample, self.levels[1:], strict=True):
            x = level(conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        return self.out(F.silu(self.norm(x)))


class Tokenizer(nn.Module):
    """Encodes images as token grids, and decodes token grids to images."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = VectorQuantizer(config.codebook_size, config.embedding_dim)
        self.decoder = Decoder(config)

    def forward(self, images: Tensor) -> tuple[Tensor, Quantized]:
        """The reconstruction (B, C, H, W), not clipped to [0, 1], and the quantizer's result."""
        quantized = self.quantizer(self.encoder(images))
        return self.decoder(quantized.embedding), quantized

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Encode images (B, C, H, W) as token grids (B, h, w) int64."""

        def encode(part: Tensor) -> Tensor:
            return self.quantizer.nearest(self.encoder(part))

        return in_parts(encode, PIXELS // images.shape[-2:].numel(), images)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Decode token grids (B, h, w) to images (B, C, H, W), clipped to [0, 1]."""

        def decode(part: Tensor) -> Tensor:
            # `lookup` returns a channels-last tensor, for which GroupNorm is slow on a CPU.
            return self.decoder(self.quantizer.lookup(part).contiguous()).clamp(0, 1)

        pixels = tokens.shape[-2:].numel() * self.config.downsampling**2
        return in_parts(decode, PIXELS // pixels, tokens)


def tokens_to_images(tokenizer: Tokenizer, tokens: Tensor) -> Tensor:
    """Decode flat token grids (B, N) to images (B, C, H, W) uint8 on the CPU."""
    side = round(tokens.shape[-1] ** 0.5)
    return as_uint8(tokenizer.decode(tokens.unflatten(-1, (side, side)))).cpu()
