"""The authors' release and the port of its tokenizer, as tests need them.

Their reference data; and, written anew from their description, networks that
compute what theirs do with weights named and laid out as in their files.
"""

from itertools import pairwise
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "fixtures" / "maskgit-release"
SHARED = Path(__file__).parents[2] / "shared" / "fixtures" / "maskgit-release"
TOKENIZER_CHECKPOINT = SHARED / "tokenizer_tiny_checkpoint"  # too large for the repository
TRANSFORMER_CHECKPOINT = FOLDER / "transformer_tiny_checkpoint"
needs_tokenizer = pytest.mark.skipif(
    not TOKENIZER_CHECKPOINT.exists(), reason=f"{TOKENIZER_CHECKPOINT} is missing"
)


def expected() -> dict[str, np.ndarray]:
    """What the authors' code computes from its two tiny checkpoints."""
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


# --- flax's file format ---------------------------------------------------------------------------


def flax_bytes(tree) -> bytes:
    """A tree of tensors, numbers and ready-made extension types as flax's msgpack."""
    return msgpack.packb(tree, default=flax_array)


def flax_array(x: Tensor, code: int = 1) -> msgpack.ExtType:
    name = str(x.dtype).removeprefix("torch.")
    raw = x.contiguous().view(torch.uint8) if x.ndim else x[None].view(torch.uint8)
    content = msgpack.packb((tuple(x.shape), name, raw.numpy().tobytes()))
    return msgpack.ExtType(code, content)


# --- the authors' networks ------------------------------------------------------------------------


class Scope:
    """A flax module being made: it draws its parameters as it computes, and numbers the modules
    in it by kind, in the order of their creation."""

    def __init__(self, draw: torch.Generator):
        self.params, self.draw = {}, draw

    def child(self, name: str) -> "Scope":
        scope = Scope(self.draw)
        self.params[name] = scope.params
        return scope

    def next(self, kind: str) -> "Scope":
        return self.child(f"{kind}_{sum(name.startswith(kind) for name in self.params)}")

    def param(self, name: str, *shape: int, mean: float = 0.0, std: float = 0.1) -> Tensor:
        self.params[name] = mean + std * torch.randn(shape, generator=self.draw)
        return self.params[name]

    def conv(self, x_BHWC: Tensor, features: int, side: int = 3, bias: bool = True) -> Tensor:
        scope, height, width = self.next("Conv"), *x_BHWC.shape[1:3]
        channels = x_BHWC.shape[-1]
        std = (side * side * channels) ** -0.5
        kernel = scope.param("kernel", side, side, channels, features, std=std)  # HWIO
        margin = side // 2
        padded = F.pad(x_BHWC, (0, 0, margin, margin, margin, margin))
        y = sum(
            padded[:, i : i + height, j : j + width] @ kernel[i, j]
            for i in range(side)
            for j in range(side)
        )
        return y + scope.param("bias", features) if bias else y

    def group_norm(self, x_BHWC: Tensor) -> Tensor:
        grouped = x_BHWC.unflatten(-1, (32, -1))
        var, mean = torch.var_mean(grouped, dim=(1, 2, 4), keepdim=True, unbiased=False)
        scaled = ((grouped - mean) / (var + 1e-6).sqrt()).flatten(-2)
        return self.next("GroupNorm").affine(scaled)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(x, dim=-1, keepdim=True, unbiased=False)
        return self.child(name).affine((x - mean) / (var + 1e-12).sqrt())

    def affine(self, x: Tensor) -> Tensor:
        return x * self.param("scale", x.shape[-1], mean=1) + self.param("bias", x.shape[-1])

    def dense(self, name: str, x: Tensor, features: int) -> Tensor:
        scope = self.child(name)
        kernel = scope.param("kernel", x.shape[-1], features, std=x.shape[-1] ** -0.5)
        return x @ kernel + scope.param("bias", features)

    def res_block(self, x: Tensor, features: int) -> Tensor:
        scope = self.next("ResBlock")
        y = scope.conv(swish(scope.group_norm(x)), features, bias=False)
        y = scope.conv(swish(scope.group_norm(y)), features, bias=False)
        # The release's quirk: the shortcut is taken from y.
        return y + (x if x.shape == y.shape else scope.conv(y, features, 1, bias=False))


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def flax_tokenizer(images_BHWC: Tensor, config) -> tuple[dict, Tensor, Tensor]:
    """Random parameters (flax's tree), and the tokens and reconstruction that they give."""
    root, x = Scope(torch.Generator().manual_seed(0)), images_BHWC
    scope = root.child("encoder")
    x = scope.conv(x, config.filters, bias=False)
    for i, multiplier in enumerate(config.multipliers):
        for _ in range(config.res_blocks):
            x = scope.res_block(x, config.filters * multiplier)
        if i < len(config.multipliers) - 1:
            x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    for _ in range(config.res_blocks):
        x = scope.res_block(x, x.shape[-1])
    z = scope.conv(swish(scope.group_norm(x)), config.embedding_dim, 1)

    shape = config.codebook_size, config.embedding_dim
    codebook = root.child("quantizer").param("codebook", *shape, std=z.std().item())
    tokens = (z[..., None, :] - codebook).pow(2).sum(-1).argmin(-1)

    scope = root.child("decoder")
    x = scope.conv(codebook[tokens], config.filters * config.multipliers[-1])
    for _ in range(config.res_blocks):
        x = scope.res_block(x, x.shape[-1])
    for i, multiplier in reversed(list(enumerate(config.multipliers))):
        for _ in range(config.res_blocks):
            x = scope.res_block(x, config.filters * multiplier)
        if i > 0:
            x = x.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
            x = scope.conv(x, x.shape[-1])
    return root.params, tokens, scope.conv(swish(scope.group_norm(x)), config.channels)


def flax_transformer(ids_BS: Tensor, config) -> tuple[dict, Tensor]:
    """Random parameters (flax's tree), and the logits (B, S, V) that they give."""
    root = Scope(torch.Generator().manual_seed(1))
    scope, hidden = root.child("Embed_0"), config.hidden
    words = scope.child("word_embeddings").param("embedding", config.vocabulary, hidden)
    positions = scope.child("position_embeddings").param("embedding", config.num_tokens + 1, hidden)
    x = scope.layer_norm("embeddings_ln", words[ids_BS] + positions)
    for i in range(config.layers):
        layer = root.child(f"TransformerLayer_{i}")
        x = flax_attention(layer.child("Attention_0"), x, config.heads)
        mlp = layer.child("Mlp_0")
        y = F.gelu(mlp.dense("intermediate_output", x, config.mlp), approximate="tanh")
        x = mlp.layer_norm("layer_output_ln", x + mlp.dense("layer_output", y, hidden))
    head = root.child("MlmLayer_0")
    y = F.gelu(head.dense("mlm_dense", x, hidden), approximate="tanh")
    logits = head.layer_norm("mlm_ln", y) @ words.T
    return root.params, logits + head.child("mlm_bias").param("bias", config.vocabulary)


def flax_attention(scope: Scope, x_BSD: Tensor, heads: int) -> Tensor:
    hidden = x_BSD.shape[-1]
    size, std = hidden // heads, hidden**-0.5
    attention = scope.child("self_attention")

    def project(name: str) -> Tensor:
        dense = attention.child(name)
        kernel = dense.param("kernel", hidden, heads, size, std=std)
        return (
            torch.einsum("bsd,dhk->bhsk", x_BSD, kernel) + dense.param("bias", heads, size)[:, None]
        )

    q, k, v = (project(name) for name in ("query", "key", "value"))
    weights = (torch.einsum("bhqk,bhsk->bhqs", q, k) / size**0.5).softmax(-1)
    out = attention.child("out")
    kernel, bias = out.param("kernel", heads, size, hidden, std=std), out.param("bias", hidden)
    y = torch.einsum("bhqs,bhsk,hkd->bqd", weights, v, kernel) + bias
    return scope.layer_norm("attention_output_ln", x_BSD + y)


# --- the port of their tokenizer ------------------------------------------------------------------


class PortBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(32, n, eps=1e-6) for n in (inputs, outputs))
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding="same", bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding="same", bias=False)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(outputs, outputs, 1, bias=False)

    def forward(self, x):
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.nin_shortcut(y) if hasattr(self, "nin_shortcut") else x)


class PortLevel(nn.Module):
    """`down.i` or `up.i`; i counts from the finest level in both."""

    def __init__(self, inputs: int, outputs: int, blocks: int, upsample: bool = False):
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        self.block = nn.ModuleList(PortBlock(a, b) for a, b in pairwise(widths))
        if upsample:
            self.upsample_conv = nn.Conv2d(outputs, outputs, 3, padding="same")

    def forward(self, x):
        for block in self.block:
            x = block(x)
        if hasattr(self, "upsample_conv"):
            x = self.upsample_conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
        return x


class PortSide(nn.Module):
    """The encoder, or the decoder, as `maskgit_vqgan.py` names its modules."""

    def __init__(self, config, decoder: bool):
        super().__init__()
        widths, blocks = [config.filters * m for m in config.multipliers], config.res_blocks
        outer, z = config.channels, config.embedding_dim
        if decoder:
            wider = [*widths[1:], widths[-1]]
            self.conv_in = nn.Conv2d(z, widths[-1], 3, padding="same")
            self.up = nn.ModuleList(
                PortLevel(wider[i], widths[i], blocks, upsample=i > 0) for i in range(len(widths))
            )
            self.conv_out = nn.Conv2d(widths[0], outer, 3, padding="same")
        else:
            finer = [config.filters, *widths[:-1]]
            self.conv_in = nn.Conv2d(outer, config.filters, 3, padding="same", bias=False)
            self.down = nn.ModuleList(
                PortLevel(finer[i], widths[i], blocks) for i in range(len(widths))
            )
            self.conv_out = nn.Conv2d(widths[-1], z, 1)
        self.mid = nn.ModuleList(PortBlock(widths[-1], widths[-1]) for _ in range(blocks))
        self.norm_out = nn.GroupNorm(32, widths[0 if decoder else -1], eps=1e-6)

    def forward(self, x):
        x = self.conv_in(x)
        if hasattr(self, "down"):
            for i, level in enumerate(self.down):
                x = level(x if i == 0 else F.avg_pool2d(x, 2))
        for block in self.mid:
            x = block(x)
        if hasattr(self, "up"):
            for level in reversed(self.up):
                x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Port(nn.Module):
    """The PyTorch port of the authors' tokenizer, with random weights."""

    def __init__(self, config):
        super().__init__()
        self.encoder, self.decoder = PortSide(config, False), PortSide(config, True)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(config.codebook_size, config.embedding_dim)
        draw = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for weight in self.parameters():
                mean, std = (0.0, weight[0].numel() ** -0.5) if weight.ndim > 1 else (0.5, 0.3)
                weight.copy_(mean + std * torch.randn(weight.shape, generator=draw))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, h, w) and reconstruction."""
        z = self.encoder(images).permute(0, 2, 3, 1)
        tokens = torch.cdist(z.flatten(0, 2), self.quantize.embedding.weight).argmin(-1)
        tokens = tokens.view(z.shape[:3])
        return tokens, self.decoder(self.quantize.embedding(tokens).permute(0, 3, 1, 2))
