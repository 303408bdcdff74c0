"""Converts weights that others have published to this project's names and shapes.

Two sources are known: the authors' release, in which flax numbers modules in creation order, and
the PyTorch port of their tokenizer (`maskgit_vqgan.py` in open-muse and 1d-tokenizer).
"""

import re

import torch
from torch import Tensor

from pipeline.tokenizer import TokenizerConfig
from pipeline.transformer import TransformerConfig

Weights = dict[str, Tensor]
TOKEN_EMBEDDINGS = "Embed_0/word_embeddings/embedding"
# Pairs of a pattern for the file's names and the replacement in our names.
PORT = (
    (r"^quantize\.embedding\.weight$", "quantizer.codebook"),
    (r"\.conv_in\.", ".stem."),
    (r"\.norm_out\.", ".norm."),
    (r"\.conv_out\.", ".out."),
    (r"\.mid\.", ".middle."),
    (r"^encoder\.down\.(\d+)\.block\.", r"encoder.levels.\1."),
    (r"\.nin_shortcut\.", ".shortcut."),
)
RES_BLOCK = (
    (r"GroupNorm_0/", "norm1/"),
    (r"Conv_0/", "conv1/"),
    (r"GroupNorm_1/", "norm2/"),
    (r"Conv_1/", "conv2/"),
    (r"Conv_2/", "shortcut/"),
)
TRANSFORMER = (
    (rf"^{TOKEN_EMBEDDINGS}$", "token_embedding/embedding"),
    (r"^Embed_0/position_embeddings/embedding$", "position_embedding"),
    (r"^Embed_0/embeddings_ln/", "embedding_norm/"),
    (r"^MlmLayer_0/mlm_dense/", "head/"),
    (r"^MlmLayer_0/mlm_ln/", "head_norm/"),
    (r"^MlmLayer_0/mlm_bias/bias$", "vocabulary_bias"),
    (r"^TransformerLayer_", "blocks/"),
    (r"/Attention_0/attention_output_ln/", "/attention_norm/"),
    (r"/Attention_0/self_attention/", "/attention/"),
    (r"/Mlp_0/intermediate_output/", "/mlp_in/"),
    (r"/Mlp_0/layer_output/", "/mlp_out/"),
    (r"/Mlp_0/layer_output_ln/", "/mlp_norm/"),
)


def from_port(weights: Weights, config: TokenizerConfig) -> Weights:
    """Rename the weights of the PyTorch port of the authors' tokenizer."""
    deepest = len(config.multipliers) - 1

    def level(match: re.Match[str]) -> str:  # level 0 is finest in the port, coarsest in ours
        kind = "levels" if match[2] == "block" else "upsample"
        return f"decoder.{kind}.{deepest - int(match[1])}."

    decoder = r"^decoder\.up\.(\d+)\.(block|upsample_conv)\."
    return {re.sub(decoder, level, _renamed(k, PORT)): v for k, v in weights.items()}


def from_flax_tokenizer(weights: Weights, config: TokenizerConfig) -> Weights:
    """Convert the tokenizer weights of the authors' release."""
    levels, blocks = len(config.multipliers), config.res_blocks

    def renamed(name: str) -> str:
        side, _, rest = name.partition("/")
        decoder = side == "decoder"
        module, _, rest = rest.partition("/")
        kind, _, digits = module.partition("_")
        if kind == "GroupNorm":
            return f"{side}/norm/{rest}"
        if kind == "Conv":
            names = {0: "stem", (levels if decoder else 1): "out"}
            return f"{side}/{names.get(int(digits), f'upsample/{int(digits) - 1}')}/{rest}"
        if kind == "ResBlock":  # middle blocks: a decoder's first, an encoder's last
            level, number = divmod(int(digits) - (blocks if decoder else 0), blocks)
            middle = level == (-1 if decoder else levels)
            place = "middle" if middle else f"levels/{level}"
            return f"{side}/{place}/{number}/{_renamed(rest, RES_BLOCK)}"
        return name

    return dict(_from_flax(renamed(name), weight) for name, weight in weights.items())


def from_flax_transformer(weights: Weights, config: TransformerConfig) -> Weights:
    """Convert the transformer weights of the authors' release. Raises a `ValueError` if the
    checkpoint's number of heads differs from the config's."""
    ours: Weights = {}
    for name, weight in weights.items():
        if name.endswith("/query/bias") and weight.ndim and len(weight) != config.heads:
            raise ValueError(f"the file has {len(weight)} heads, not {config.heads}")
        if name.endswith(("query/bias", "key/bias", "value/bias", "out/kernel")):
            weight = weight.flatten(0, 1)  # flax has an axis for heads
        elif "/self_attention/" in name and name.endswith("kernel"):
            weight = weight.flatten(1, 2)
        ours.update([_from_flax(_renamed(name, TRANSFORMER), weight)])
    for layer in range(config.layers):
        attention = f"blocks.{layer}.attention"
        for leaf in ("weight", "bias"):
            names = [f"{attention}.{each}.{leaf}" for each in ("query", "key", "value")]
            if ours.keys() >= set(names):
                ours[f"{attention}.qkv.{leaf}"] = torch.cat([ours.pop(each) for each in names])
    return ours


def _renamed(name: str, patterns: tuple[tuple[str, str], ...]) -> str:
    for theirs, own in patterns:
        name = re.sub(theirs, own, name)
    return name


def _from_flax(name: str, weight: Tensor) -> tuple[str, Tensor]:
    """Convert a flax weight to PyTorch's name and order of axes. Returns name and weight."""
    module, _, leaf = name.rpartition("/")
    if leaf == "kernel":
        weight = weight.permute(3, 2, 0, 1) if weight.ndim == 4 else weight.T  # HWIO → OIHW
    if leaf in ("kernel", "scale", "embedding"):
        leaf = "weight"
    return f"{module}/{leaf}".lstrip("/").replace("/", "."), weight
