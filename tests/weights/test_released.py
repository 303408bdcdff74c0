"""Pretrained weights: every format against independent networks, and files that do not match.

Tests in tests/paper compare the authors' transformer with the outputs of the authors' code.
"""

import pickle
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
import torch
from safetensors.torch import save, save_file

from pipeline.runtime.errors import UserError
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.published import save_model
from pipeline.weights.released.checkpoint import load_pretrained, pretrained_num_classes
from tests.errors import refused
from tests.release import (
    TRANSFORMER_CHECKPOINT,
    Bomb,
    flax_array,
    flax_bytes,
    flax_tokenizer,
    port_weights,
)
from tests.tiny_networks import seeded

TOKENIZER = TokenizerConfig(
    channels=1, filters=32, multipliers=(1, 2, 1), res_blocks=1, embedding_dim=6, codebook_size=10
)
TRANSFORMER = TransformerConfig(  # of the authors' tiny checkpoint
    num_tokens=16, codebook_size=64, num_classes=10, layers=3, hidden=32, heads=4, mlp=64, dropout=0
)
RES_BLOCK = "encoder/ResBlock_0/Conv_0/kernel"
BIAS = "TransformerLayer_1/Mlp_0/layer_output/bias"


def unpacked(leaf: msgpack.ExtType) -> torch.Tensor:
    shape, name, data = msgpack.unpackb(leaf.data)
    return torch.frombuffer(bytearray(data), dtype=getattr(torch, name)).reshape(shape)


def changed(tree, change, prefix: str = ""):
    """Replace each tensor of a tree by `change(name, tensor)`; None removes the tensor."""
    if not isinstance(tree, dict):
        return change(prefix, tree)
    changes = {k: changed(v, change, f"{prefix}/{k}".lstrip("/")) for k, v in tree.items()}
    return {k: v for k, v in changes.items() if v is not None}


@pytest.fixture(scope="module")
def trees() -> dict[str, dict]:
    """Weights of a tokenizer and a transformer, named and laid out as in the authors' files."""
    tree = msgpack.unpackb(TRANSFORMER_CHECKPOINT.read_bytes())
    while "params" in tree:
        tree = tree["params"]
    return {
        "tokenizer": flax_tokenizer(torch.rand(1, 8, 8, 1, generator=seeded(0)), TOKENIZER)[0],
        "transformer": changed(tree, lambda name, leaf: unpacked(leaf)),
    }


def written(path: Path, content) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else flax_bytes(content))
    return path


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def fails(path: Path, config, word: str) -> None:
    with refused() as error:
        load_pretrained(path, config)
    assert error.value.subject.startswith(str(path)) and word in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [{}, {"channels": 3, "multipliers": (1, 1, 2), "res_blocks": 2}, {"multipliers": (2,)}],
)
@torch.no_grad()
def test_the_authors_tokenizer_and_its_port_compute_what_they_do(tmp_path, changes):
    config = replace(TOKENIZER, **changes)
    images = torch.rand(2, 8, 8, config.channels, generator=seeded(1))
    tree, tokens, reconstruction = flax_tokenizer(images, config)
    path = written(tmp_path / "tokenizer_checkpoint", {"params": tree})
    model = load_pretrained(path, config)
    ours, quantized = model(images.permute(0, 3, 1, 2))
    assert len(tokens.unique()) > 2
    assert torch.equal(quantized.tokens, tokens)
    torch.testing.assert_close(ours.permute(0, 2, 3, 1), reconstruction, atol=1e-4, rtol=1e-4)
    port = tmp_path / "maskgit-vqgan-imagenet-f16-256.bin"
    torch.save(port_weights(tree, config), port)
    again = load_pretrained(port, config)
    port.write_bytes(b"")  # the loaded weights do not depend on the file
    assert equal(again, model) and not again.training
    assert not any(weight.requires_grad for weight in again.parameters())


def test_trees_that_flax_users_write(tmp_path, trees):
    tree = trees["transformer"]
    wanted = load_pretrained(TRANSFORMER_CHECKPOINT, TRANSFORMER)
    moments = changed(tree, lambda name, x: x + 1)
    count = flax_array(torch.tensor(7), code=3)
    optimizer = {"step": 7, "opt_state": {"0": {"count": count, "mu": moments}}}
    double = changed(tree, lambda name, x: x.double())
    for written_tree in (tree, {"params": {"params": tree}} | optimizer, double):
        path = written(tmp_path / "file", written_tree)
        assert equal(load_pretrained(path, TRANSFORMER), wanted)
    for dtype in (torch.bfloat16, torch.float16):
        half = changed(tree, lambda name, x, dtype=dtype: x.to(dtype))
        widened = written(tmp_path / "widened", changed(half, lambda name, x: x.float()))
        model = load_pretrained(written(tmp_path / "half", half), TRANSFORMER)
        assert model.vocabulary_bias.dtype == torch.float32
        assert equal(model, load_pretrained(widened, TRANSFORMER))


def test_published_models_and_their_number_of_classes(tmp_path):
    for kind, build, config in (
        ("tokenizer", Tokenizer, TOKENIZER),
        ("transformer", MaskGitTransformer, TRANSFORMER),
    ):
        model = build(config)
        save_model(tmp_path / kind, kind, config, model.state_dict())
        for path in (tmp_path / kind, tmp_path / kind / "model.safetensors"):
            assert equal(load_pretrained(path, config), model)
    # Differences that the names and shapes of weights do not show.
    path, weights = tmp_path / "transformer", model.state_dict()
    fails(path, replace(TRANSFORMER, heads=2), "heads is 4, not 2")
    fails(path, replace(TRANSFORMER, codebook_size=65, num_classes=9), "codebook_size is 64")
    save_model(tmp_path / "baseline", "autoregressive", TRANSFORMER, weights)
    fails(tmp_path / "baseline", TRANSFORMER, "kind is autoregressive")
    for file in (path, TRANSFORMER_CHECKPOINT):
        assert pretrained_num_classes(file, 64) == pretrained_num_classes(file, 66) + 2 == 10
    with pytest.raises(UserError, match="too few for 74 codes"):
        pretrained_num_classes(TRANSFORMER_CHECKPOINT, 74)


@pytest.mark.parametrize(
    ("kind", "changes", "word"),
    [
        ("tokenizer", {"channels": 3}, "data.channels"),
        ("tokenizer", {"codebook_size": 12}, "quantizer.codebook"),
        ("tokenizer", {"multipliers": (1, 2)}, "Unexpected key"),
        ("transformer", {"heads": 8}, "4 heads, not 8"),
        ("transformer", {"layers": 2}, "blocks.2."),
        ("transformer", {"num_tokens": 9}, "position_embedding"),
    ],
)
def test_a_model_of_another_size(tmp_path, trees, kind, changes, word):
    config = TOKENIZER if kind == "tokenizer" else TRANSFORMER
    fails(written(tmp_path / "flax", trees[kind]), replace(config, **changes), word)


def test_the_other_model_and_weights_that_do_not_fit(tmp_path, trees):
    tokenizer, transformer = trees["tokenizer"], trees["transformer"]
    fails(written(tmp_path / "tokenizer", tokenizer), TRANSFORMER, "holds a tokenizer")
    fails(TRANSFORMER_CHECKPOINT, TOKENIZER, "holds a transformer")
    save_file({"fc.weight": torch.ones(2)}, tmp_path / "classifier")
    fails(tmp_path / "classifier", TOKENIZER, "fc.weight")
    without = changed(tokenizer, lambda name, x: None if name == RES_BLOCK else x)
    fails(written(tmp_path / "a", without), TOKENIZER, "encoder.levels.0.0.conv1.weight")
    extra = tokenizer | {"encoder": tokenizer["encoder"] | {"Dense_0": torch.ones(2)}}
    fails(written(tmp_path / "a", extra), TOKENIZER, "encoder.Dense_0")
    for value, word in (
        (torch.full((32,), torch.nan), "NaN or infinite"),
        (torch.full((32,), 1e300, dtype=torch.float64), "NaN or infinite"),
        (torch.ones(32, 1), "size mismatch"),
        (0.5, "not an array"),
    ):
        tree = changed(transformer, lambda name, x, value=value: value if name == BIAS else x)
        fails(written(tmp_path / "a", tree), TRANSFORMER, word)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!DOCTYPE html><html><body>Not found</body></html>",
        b"\x81\xa6params\xdf\xff\xff\xff\xff",  # a map of 2^32 - 1 keys
        b"\x81\xa1a" * 900 + b"\x01",  # nested deeply
        flax_bytes({"encoder": msgpack.ExtType(1, msgpack.packb(((1 << 60,), "float32", b"")))}),
        (2**60).to_bytes(8, "little")[:5] + b'\0\0\0{"a":1}',  # a header longer than the file
    ],
)
def test_a_file_of_no_weights(tmp_path, content):
    fails(tmp_path, TOKENIZER, "model.safetensors: missing")
    fails(written(tmp_path / "file", content), TOKENIZER, "damaged, or not a flax")


def test_a_truncated_file(tmp_path, trees):
    torch.save(port_weights(trees["tokenizer"], TOKENIZER), port := tmp_path / "port")
    own, flax = Tokenizer(TOKENIZER).state_dict(), flax_bytes(trees["tokenizer"])
    for content in (port.read_bytes(), save(own), flax):
        for length in (100, len(content) // 2, len(content) - 1):
            fails(written(tmp_path / "file", content[:length]), TOKENIZER, "damaged, or not a flax")


def test_no_code_of_a_file_is_run(tmp_path):
    ran, path = tmp_path / "ran", tmp_path / "weights.bin"
    torch.save({"quantize.embedding.weight": Bomb(ran)}, path)
    fails(path, TOKENIZER, "holds more than tensors")
    written(path, pickle.dumps({"quantize.embedding.weight": Bomb(ran)}))
    fails(path, TOKENIZER, "damaged, or not a flax")
    assert not ran.exists()
