"""The authors' checkpoints (flax msgpack) as state dicts of this project's models, and what the
authors' code computes from the tiny ones."""

from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[2] / "shared" / "fixtures" / "maskgit-release"
needs_fixture = pytest.mark.skipif(
    not FOLDER.exists(), reason=f"the release's reference data is not at {FOLDER}"
)
NDARRAY = 1  # flax's msgpack extension type of an array: [shape, name of the dtype, bytes]


def expected() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


def read_checkpoint(path: Path) -> dict:
    """The nested parameters of a flax checkpoint, without the outer `params`."""
    tree = msgpack.unpackb(path.read_bytes(), ext_hook=_array, raw=False)
    return tree["params"]


def _array(code: int, content: bytes) -> np.ndarray:
    assert code == NDARRAY
    shape, dtype, data = msgpack.unpackb(content, raw=False)
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def transformer_weights(flax: dict) -> dict[str, Tensor]:
    """State dict of `MaskGitTransformer`."""
    head = flax["MlmLayer_0"]
    weights = {
        "token_embedding.weight": _tensor(flax["Embed_0"]["word_embeddings"]["embedding"]),
        "position_embedding": _tensor(flax["Embed_0"]["position_embeddings"]["embedding"]),
        "vocabulary_bias": _tensor(head["mlm_bias"]["bias"]),
    }
    weights |= _norm("embedding_norm", flax["Embed_0"]["embeddings_ln"])
    weights |= _dense("head", head["mlm_dense"]) | _norm("head_norm", head["mlm_ln"])
    for i in range(sum(name.startswith("TransformerLayer_") for name in flax)):
        layer, block = flax[f"TransformerLayer_{i}"], f"blocks.{i}"
        attention, mlp = layer["Attention_0"], layer["Mlp_0"]
        heads = attention["self_attention"]
        hidden = heads["query"]["kernel"].shape[0]
        qkv = [heads[name] for name in ("query", "key", "value")]
        weights[f"{block}.attention.qkv.weight"] = torch.cat(
            [_tensor(x["kernel"].reshape(hidden, -1).T) for x in qkv]
        )
        weights[f"{block}.attention.qkv.bias"] = torch.cat(
            [_tensor(x["bias"].reshape(-1)) for x in qkv]
        )
        out = heads["out"]
        weights[f"{block}.attention.out.weight"] = _tensor(out["kernel"].reshape(-1, hidden).T)
        weights[f"{block}.attention.out.bias"] = _tensor(out["bias"])
        weights |= _norm(f"{block}.attention_norm", attention["attention_output_ln"])
        weights |= _dense(f"{block}.mlp_in", mlp["intermediate_output"])
        weights |= _dense(f"{block}.mlp_out", mlp["layer_output"])
        weights |= _norm(f"{block}.mlp_norm", mlp["layer_output_ln"])
    return weights


def tokenizer_weights(flax: dict, levels: int, res_blocks: int) -> dict[str, Tensor]:
    """State dict of `Tokenizer`."""
    encoder, decoder = flax["encoder"], flax["decoder"]
    in_levels = [f"levels.{i}.{j}" for i in range(levels) for j in range(res_blocks)]
    in_middle = [f"middle.{j}" for j in range(res_blocks)]
    weights = {"quantizer.codebook": _tensor(flax["quantizer"]["codebook"])}
    weights |= _conv("encoder.stem", encoder["Conv_0"]) | _conv("encoder.out", encoder["Conv_1"])
    weights |= _norm("encoder.norm", encoder["GroupNorm_0"])
    for i, name in enumerate(in_levels + in_middle):
        weights |= _res_block(f"encoder.{name}", encoder[f"ResBlock_{i}"])
    weights |= _conv("decoder.stem", decoder["Conv_0"])
    for i in range(levels - 1):
        weights |= _conv(f"decoder.upsample.{i}", decoder[f"Conv_{i + 1}"])
    weights |= _conv("decoder.out", decoder[f"Conv_{levels}"])
    weights |= _norm("decoder.norm", decoder["GroupNorm_0"])
    for i, name in enumerate(in_middle + in_levels):
        weights |= _res_block(f"decoder.{name}", decoder[f"ResBlock_{i}"])
    return weights


def _res_block(name: str, flax: dict) -> dict[str, Tensor]:
    weights = _norm(f"{name}.norm1", flax["GroupNorm_0"]) | _conv(f"{name}.conv1", flax["Conv_0"])
    weights |= _norm(f"{name}.norm2", flax["GroupNorm_1"]) | _conv(f"{name}.conv2", flax["Conv_1"])
    if "Conv_2" in flax:
        weights |= _conv(f"{name}.shortcut", flax["Conv_2"])
    return weights


def _conv(name: str, flax: dict) -> dict[str, Tensor]:
    weights = {f"{name}.weight": _tensor(flax["kernel"].transpose(3, 2, 0, 1))}  # HWIO → OIHW
    return weights | ({f"{name}.bias": _tensor(flax["bias"])} if "bias" in flax else {})


def _dense(name: str, flax: dict) -> dict[str, Tensor]:
    return {f"{name}.weight": _tensor(flax["kernel"].T), f"{name}.bias": _tensor(flax["bias"])}


def _norm(name: str, flax: dict) -> dict[str, Tensor]:
    return {f"{name}.weight": _tensor(flax["scale"]), f"{name}.bias": _tensor(flax["bias"])}


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array).copy())
