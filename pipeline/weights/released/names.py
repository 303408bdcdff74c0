"""The names of this project's weights in the files of others.

Three sets of names: the authors' (flax numbers modules in the order of their creation; release),
those of the PyTorch port of their tokenizer (`maskgit_vqgan.py` in open-muse and 1d-tokenizer), and
our own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig

# The modules of a residual block: our names, the authors', the port's.
RES_BLOCK = (
    ("norm1", "GroupNorm_0", "norm1"),
    ("conv1", "Conv_0", "conv1"),
    ("norm2", "GroupNorm_1", "norm2"),
    ("conv2", "Conv_1", "conv2"),
    ("shortcut", "Conv_2", "nin_shortcut"),
)
# Flax's name of a module's weight, and the permutation of its axes that gives ours.
FLAX_WEIGHT = {
    nn.Conv2d: ("kernel", (3, 2, 0, 1)),  # HWIO → OIHW
    nn.Linear: ("kernel", (1, 0)),
    nn.Embedding: ("embedding", (0, 1)),
    nn.GroupNorm: ("scale", (0,)),
    nn.LayerNorm: ("scale", (0,)),
}
# Those of our parameters that are no module's `weight` or `bias`.
FLAX_BARE = {
    "quantizer.codebook": "quantizer/codebook",
    "position_embedding": "Embed_0/position_embeddings/embedding",
    "vocabulary_bias": "MlmLayer_0/mlm_bias/bias",
}
PORT_BARE = {"quantizer.codebook": "quantize.embedding.weight"}
TOKEN_EMBEDDINGS = ("Embed_0/word_embeddings/embedding", "token_embedding.weight")


@dataclass(frozen=True)
class Part:
    """A tensor in a file: one of our weights, or an equal share of its rows.

    Attributes:
        shape: in the file.
        axes: ours is `tensor.permute(axes)`, reshaped.
    """

    key: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]


Parts = dict[str, list[Part]]  # by our own names


@dataclass(frozen=True)
class Layout:
    """One set of names.

    Attributes:
        kind: `tokenizer` or `transformer`.
        marks: prefixes of its names that no other layout has.
        parts: gives, for a model of that kind (on any device), the parts of all its weights.
    """

    kind: str
    marks: tuple[str, ...]
    parts: Callable[[Any], Parts]


def _permuted(key: str, own_shape: tuple[int, ...], axes: tuple[int, ...]) -> Part:
    """The part whose permutation by `axes` has our shape."""
    return Part(key, tuple(own_shape[axes.index(d)] for d in range(len(axes))), axes)


def _unchanged(key: str, own_shape: tuple[int, ...]) -> Part:
    return Part(key, own_shape, tuple(range(len(own_shape))))


def _own(model: nn.Module) -> Parts:
    return {name: [_unchanged(name, tuple(w.shape))] for name, w in model.state_dict().items()}


def _port(model: Tokenizer) -> Parts:
    modules, parts = _port_modules(model.config), {}
    for name, weight in model.state_dict().items():
        module, _, leaf = name.rpartition(".")
        key = PORT_BARE[name] if name in PORT_BARE else f"{modules[module]}.{leaf}"
        parts[name] = [_unchanged(key, tuple(weight.shape))]
    return parts


def _port_modules(config: TokenizerConfig) -> dict[str, str]:
    """The port's names of our modules; its `up` counts from the finest level, ours from f."""
    deepest = len(config.multipliers) - 1
    names, blocks = {}, {}
    for side in ("encoder", "decoder"):
        for own, port in (("stem", "conv_in"), ("norm", "norm_out"), ("out", "conv_out")):
            names[f"{side}.{own}"] = f"{side}.{port}"
        for j in range(config.res_blocks):
            blocks[f"{side}.middle.{j}"] = f"{side}.mid.{j}"
            for i in range(deepest + 1):
                level = f"down.{i}" if side == "encoder" else f"up.{deepest - i}"
                blocks[f"{side}.levels.{i}.{j}"] = f"{side}.{level}.block.{j}"
    for i in range(deepest):
        names[f"decoder.upsample.{i}"] = f"decoder.up.{deepest - i}.upsample_conv"
    for own_block, port_block in blocks.items():
        names |= {f"{own_block}.{own}": f"{port_block}.{port}" for own, _, port in RES_BLOCK}
    return names


def _flax_tokenizer(model: Tokenizer) -> Parts:
    config = model.config
    levels = len(config.multipliers)
    names = {"decoder.out": f"decoder/Conv_{levels}", "encoder.out": "encoder/Conv_1"}
    names |= {f"decoder.upsample.{i}": f"decoder/Conv_{i + 1}" for i in range(levels - 1)}
    in_levels = [f"levels.{i}.{j}" for i in range(levels) for j in range(config.res_blocks)]
    in_middle = [f"middle.{j}" for j in range(config.res_blocks)]
    for side, blocks in (("encoder", in_levels + in_middle), ("decoder", in_middle + in_levels)):
        names |= {f"{side}.stem": f"{side}/Conv_0", f"{side}.norm": f"{side}/GroupNorm_0"}
        for i, block in enumerate(blocks):
            flax_block = f"{side}/ResBlock_{i}"
            names |= {f"{side}.{block}.{own}": f"{flax_block}/{f}" for own, f, _ in RES_BLOCK}
    return _flax(model, names)


def _flax_transformer(model: MaskGitTransformer) -> Parts:
    names = {
        "token_embedding": "Embed_0/word_embeddings",
        "embedding_norm": "Embed_0/embeddings_ln",
        "head": "MlmLayer_0/mlm_dense",
        "head_norm": "MlmLayer_0/mlm_ln",
    }
    attention: Parts = {}
    for i in range(model.config.layers):
        layer = f"TransformerLayer_{i}"
        names |= {
            f"blocks.{i}.attention_norm": f"{layer}/Attention_0/attention_output_ln",
            f"blocks.{i}.mlp_in": f"{layer}/Mlp_0/intermediate_output",
            f"blocks.{i}.mlp_out": f"{layer}/Mlp_0/layer_output",
            f"blocks.{i}.mlp_norm": f"{layer}/Mlp_0/layer_output_ln",
        }
        attention |= _flax_attention(f"blocks.{i}.attention", layer, model.config)
    return _flax(model, names) | attention


def _flax_attention(own: str, layer: str, config: TransformerConfig) -> Parts:
    """Four dense layers, whose kernels keep the heads as an axis: (D, heads, D / heads) in."""
    hidden, heads = config.hidden, config.heads
    split = (heads, hidden // heads)
    flax = f"{layer}/Attention_0/self_attention"
    qkv = [f"{flax}/{x}" for x in ("query", "key", "value")]
    return {
        f"{own}.qkv.weight": [Part(f"{x}/kernel", (hidden, *split), (1, 2, 0)) for x in qkv],
        f"{own}.qkv.bias": [Part(f"{x}/bias", split, (0, 1)) for x in qkv],
        f"{own}.out.weight": [Part(f"{flax}/out/kernel", (*split, hidden), (2, 0, 1))],
        f"{own}.out.bias": [Part(f"{flax}/out/bias", (hidden,), (0,))],
    }


def _flax(model: nn.Module, modules: dict[str, str]) -> Parts:
    """All weights of the modules named, and those that are no module's."""
    parts = {}
    for name, weight in model.state_dict().items():
        shape = tuple(weight.shape)
        module, _, leaf = name.rpartition(".")
        if name in FLAX_BARE:
            parts[name] = [_unchanged(FLAX_BARE[name], shape)]
        elif module in modules and leaf == "bias":
            parts[name] = [_unchanged(f"{modules[module]}/bias", shape)]
        elif module in modules:
            own = model.get_submodule(module)
            kind = next(kind for kind in type(own).mro() if kind in FLAX_WEIGHT)
            leaf, axes = FLAX_WEIGHT[kind]
            parts[name] = [_permuted(f"{modules[module]}/{leaf}", shape, axes)]
    return parts


LAYOUTS = (
    Layout("tokenizer", ("encoder/", "decoder/", "quantizer/"), _flax_tokenizer),
    Layout("transformer", ("Embed_0/", "TransformerLayer_", "MlmLayer_0/"), _flax_transformer),
    Layout("tokenizer", ("encoder.down.", "decoder.up.", "quantize."), _port),
    Layout("tokenizer", ("encoder.levels.", "decoder.levels.", "quantizer."), _own),
    Layout("transformer", ("token_embedding.", "position_embedding", "blocks."), _own),
)
