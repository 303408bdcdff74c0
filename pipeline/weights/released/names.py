"""The names of this project's weights in the files of others.

Three sets of names: the authors' (flax numbers modules in the order of their creation; release),
those of the PyTorch port of their tokenizer (`maskgit_vqgan.py` in open-muse and 1d-tokenizer), and
our own.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from pipeline.tokenizer import Tokenizer
from pipeline.transformer import MaskGitTransformer

# The modules of a residual block: our names, the authors'.
RES_BLOCK = (
    ("norm1", "GroupNorm_0"),
    ("conv1", "Conv_0"),
    ("norm2", "GroupNorm_1"),
    ("conv2", "Conv_1"),
    ("shortcut", "Conv_2"),
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
# Patterns of our names of the tokenizer's weights, and the port's.
PORT = (
    (r"quantizer\.codebook", "quantize.embedding.weight"),
    (r"coder\.stem\.", "coder.conv_in."),
    (r"coder\.norm\.", "coder.norm_out."),
    (r"coder\.out\.", "coder.conv_out."),
    (r"\.middle\.", ".mid."),
    (r"encoder\.levels\.(\d+)\.", r"encoder.down.\1.block."),
    (r"\.shortcut\.", ".nin_shortcut."),
)
TOKEN_EMBEDDINGS = ("Embed_0/word_embeddings/embedding", "token_embedding.weight")


class FileTensor(NamedTuple):
    """A tensor of a file: one of our weights, or an equal share of its rows.

    Ours is `tensor.permute(axes)`, which has this shape, reshaped.
    """

    key: str
    axes: tuple[int, ...]
    shape: tuple[int, ...]


FileTensors = dict[str, list[FileTensor]]  # by our own names


class Layout(NamedTuple):
    """One set of names."""

    kind: str  # `tokenizer` or `transformer`
    marks: tuple[str, ...]  # prefixes of its names that no other layout has
    tensors: Callable[[Any], FileTensors]  # of all weights of a model of that kind


def _unchanged(key: str, weight: Any) -> list[FileTensor]:
    return [FileTensor(key, tuple(range(weight.ndim)), tuple(weight.shape))]


def _own(model: nn.Module) -> FileTensors:
    return {name: _unchanged(name, weight) for name, weight in model.state_dict().items()}


def _port(model: Tokenizer) -> FileTensors:
    deepest = len(model.config.multipliers) - 1
    weights = model.state_dict().items()
    return {name: _unchanged(_port_name(name, deepest), weight) for name, weight in weights}


def _port_name(name: str, deepest: int) -> str:
    """The port's name of our weight; its `up` counts from the finest level, ours from f."""

    def level(match: re.Match[str]) -> str:
        return f"decoder.up.{deepest - int(match[1])}."

    for ours, port in PORT:
        name = re.sub(ours, port, name)
    name = re.sub(r"decoder\.levels\.(\d+)\.", lambda m: f"{level(m)}block.", name)
    return re.sub(r"decoder\.upsample\.(\d+)\.", lambda m: f"{level(m)}upsample_conv.", name)


def _flax_tokenizer(model: Tokenizer) -> FileTensors:
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
            names |= {f"{side}.{block}.{own}": f"{flax_block}/{f}" for own, f in RES_BLOCK}
    return _flax(model, names)


def _flax_transformer(model: MaskGitTransformer) -> FileTensors:
    names = {
        "token_embedding": "Embed_0/word_embeddings",
        "embedding_norm": "Embed_0/embeddings_ln",
        "head": "MlmLayer_0/mlm_dense",
        "head_norm": "MlmLayer_0/mlm_ln",
    }
    attention: FileTensors = {}
    hidden, heads = model.config.hidden, model.config.heads
    split = (heads, hidden // heads)  # flax's kernels keep the heads as an axis
    for i in range(model.config.layers):
        layer, own = f"TransformerLayer_{i}", f"blocks.{i}.attention"
        names |= {
            f"blocks.{i}.attention_norm": f"{layer}/Attention_0/attention_output_ln",
            f"blocks.{i}.mlp_in": f"{layer}/Mlp_0/intermediate_output",
            f"blocks.{i}.mlp_out": f"{layer}/Mlp_0/layer_output",
            f"blocks.{i}.mlp_norm": f"{layer}/Mlp_0/layer_output_ln",
        }
        flax = f"{layer}/Attention_0/self_attention"
        qkv = [f"{flax}/{x}" for x in ("query", "key", "value")]
        attention |= {
            f"{own}.qkv.weight": [
                FileTensor(f"{x}/kernel", (1, 2, 0), (*split, hidden)) for x in qkv
            ],
            f"{own}.qkv.bias": [FileTensor(f"{x}/bias", (0, 1), split) for x in qkv],
            f"{own}.out.weight": [FileTensor(f"{flax}/out/kernel", (2, 0, 1), (hidden, *split))],
            f"{own}.out.bias": [FileTensor(f"{flax}/out/bias", (0,), (hidden,))],
        }
    return _flax(model, names) | attention


def _flax(model: nn.Module, modules: dict[str, str]) -> FileTensors:
    """All weights of the modules named, and those that are no module's."""
    tensors = {}
    for name, weight in model.state_dict().items():
        module, _, leaf = name.rpartition(".")
        if name in FLAX_BARE:
            tensors[name] = _unchanged(FLAX_BARE[name], weight)
        elif module in modules and leaf == "bias":
            tensors[name] = _unchanged(f"{modules[module]}/bias", weight)
        elif module in modules:
            own = model.get_submodule(module)
            kind = next(kind for kind in type(own).mro() if kind in FLAX_WEIGHT)
            leaf, axes = FLAX_WEIGHT[kind]
            tensors[name] = [FileTensor(f"{modules[module]}/{leaf}", axes, tuple(weight.shape))]
    return tensors


LAYOUTS = (
    Layout("tokenizer", ("encoder/", "decoder/", "quantizer/"), _flax_tokenizer),
    Layout("transformer", ("Embed_0/", "TransformerLayer_", "MlmLayer_0/"), _flax_transformer),
    Layout("tokenizer", ("encoder.down.", "decoder.up.", "quantize."), _port),
    Layout("tokenizer", ("encoder.levels.", "decoder.levels.", "quantizer."), _own),
    Layout("transformer", ("token_embedding.", "position_embedding", "blocks."), _own),
)
