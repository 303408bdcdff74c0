"""The authors' release and the PyTorch port of its tokenizer, for tests: reference data, and the
authors' tokenizer rewritten from its description, with the weight names of its files."""

from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

FOLDER = Path(__file__).parent / "fixtures" / "maskgit-release"
SHARED = Path(__file__).parents[2] / "shared" / "fixtures" / "maskgit-release"
TOKENIZER_CHECKPOINT = SHARED / "tokenizer_tiny_checkpoint"  # too large for the repository
TRANSFORMER_CHECKPOINT = FOLDER / "transformer_tiny_checkpoint"
needs_tokenizer = pytest.mark.skipif(
    not TOKENIZER_CHECKPOINT.exists(), reason=f"{TOKENIZER_CHECKPOINT} is missing"
)


def expected() -> dict[str, np.ndarray]:
    """Return the values that the authors' code computes from its two tiny checkpoints."""
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


class Bomb:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def flax_bytes(tree) -> bytes:
    """Encode a tree of tensors, numbers and extension types as flax's msgpack does."""
    return msgpack.packb(tree, default=flax_array)


def flax_array(x: Tensor, code: int = 1) -> msgpack.ExtType:
    name = str(x.dtype).removeprefix("torch.")
    raw = x.contiguous().view(torch.uint8) if x.ndim else x[None].view(torch.uint8)
    content = msgpack.packb((tuple(x.shape), name, raw.numpy().tobytes()))
    return msgpack.ExtType(code, content)


class Scope:
    """A flax module during initialisation: it draws parameters as it computes, and numbers its
    submodules by kind in the order of their creation."""

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

    def affine(self, x: Tensor) -> Tensor:
        return x * self.param("scale", x.shape[-1], mean=1) + self.param("bias", x.shape[-1])

    def res_block(self, x: Tensor, features: int) -> Tensor:
        scope = self.next("ResBlock")
        y = scope.conv(swish(scope.group_norm(x)), features, bias=False)
        y = scope.conv(swish(scope.group_norm(y)), features, bias=False)
        # The release's quirk: the shortcut is taken from y.
        return y + (x if x.shape == y.shape else scope.conv(y, features, 1, bias=False))


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def flax_tokenizer(images_BHWC: Tensor, config) -> tuple[dict, Tensor, Tensor]:
    """Return random parameters (flax's tree), and their tokens and reconstruction."""
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


def port_weights(tree: dict, config) -> dict[str, Tensor]:
    """Give the tokenizer's weights the names that the PyTorch port (`maskgit_vqgan.py`) uses."""
    port = {"quantize.embedding.weight": tree["quantizer"]["codebook"]}

    def add(name: str, module: dict) -> None:
        for leaf, weight in module.items():
            weight = weight.permute(3, 2, 0, 1) if leaf == "kernel" else weight
            port[f"{name}.{'bias' if leaf == 'bias' else 'weight'}"] = weight.contiguous()

    levels, blocks = len(config.multipliers), range(config.res_blocks)
    down = [f"encoder.down.{i}.block.{j}" for i in range(levels) for j in blocks]
    up = [f"decoder.up.{i}.block.{j}" for i in reversed(range(levels)) for j in blocks]
    in_order = {
        "encoder": down + [f"encoder.mid.{j}" for j in blocks],
        "decoder": [f"decoder.mid.{j}" for j in blocks] + up,
    }
    own = {"Conv_0": "conv1", "Conv_1": "conv2", "Conv_2": "nin_shortcut"}
    own |= {"GroupNorm_0": "norm1", "GroupNorm_1": "norm2"}
    for side, names in in_order.items():
        for number, name in enumerate(names):
            for flax, module in tree[side][f"ResBlock_{number}"].items():
                add(f"{name}.{own[flax]}", module)
        add(f"{side}.conv_in", tree[side]["Conv_0"])
        add(f"{side}.norm_out", tree[side]["GroupNorm_0"])
    add("encoder.conv_out", tree["encoder"]["Conv_1"])
    add("decoder.conv_out", tree["decoder"][f"Conv_{levels}"])
    for number in range(1, levels):
        add(f"decoder.up.{levels - number}.upsample_conv", tree["decoder"][f"Conv_{number}"])
    return port
