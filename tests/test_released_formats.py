"""Pretrained weights of every format against independent networks."""

from dataclasses import replace

import msgpack
import pytest
import torch

from pipeline.runtime.errors import UserError
from pipeline.tokenizer import Tokenizer
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import save_model
from pipeline.weights.released.checkpoint import load_pretrained, pretrained_num_classes
from tests.pretrained_files import TOKENIZER, TRANSFORMER, changed, equal, written
from tests.release import (
    FOLDER,
    Port,
    flax_array,
    flax_bytes,
    flax_chunks,
    flax_tokenizer,
    flax_transformer,
    needs_fixture,
)
from tests.tiny_networks import seeded


@pytest.mark.parametrize(
    "changes",
    [{}, {"channels": 3, "multipliers": (1, 1, 2), "res_blocks": 2}, {"multipliers": (2,)}],
)
@torch.no_grad()
def test_a_flax_tokenizer_computes_what_flax_does(tmp_path, changes):
    config = replace(TOKENIZER, **changes)
    images = torch.rand(2, 8, 8, config.channels, generator=seeded(1))
    tree, tokens, reconstruction = flax_tokenizer(images, config)
    path = written(tmp_path / "tokenizer_checkpoint", flax_bytes({"params": tree}))
    model = Tokenizer(config).eval()
    model.load_state_dict(load_pretrained(path, config))
    ours, quantized = model(images.permute(0, 3, 1, 2))
    assert len(tokens.unique()) > 2
    assert torch.equal(quantized.tokens, tokens)
    torch.testing.assert_close(ours.permute(0, 2, 3, 1), reconstruction, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_flax_transformer_computes_what_flax_does(tmp_path):
    ids = torch.randint(TRANSFORMER.vocabulary, (3, 7), generator=seeded(2))
    tree, logits = flax_transformer(ids, TRANSFORMER)
    path = written(tmp_path / "transformer_checkpoint", flax_bytes({"params": tree}))
    model = MaskGitTransformer(TRANSFORMER).eval()
    model.load_state_dict(load_pretrained(path, TRANSFORMER))
    torch.testing.assert_close(model.logits(model.encode(ids)), logits, atol=1e-5, rtol=1e-5)


def test_trees_that_flax_users_write(tmp_path, transformer_tree):
    wanted = load_pretrained(
        written(tmp_path / "plain", flax_bytes({"params": transformer_tree})), TRANSFORMER
    )
    assert all(weight.dtype == torch.float32 for weight in wanted.values())
    moments = changed(transformer_tree, lambda key, x: x + 1)
    state = {
        "step": 7,
        "params": {"params": transformer_tree},
        "opt_state": {"0": {"count": flax_array(torch.tensor(7), code=3), "mu": moments}},
        "wavelength": msgpack.ExtType(2, msgpack.packb((1.0, 2.0))),
    }
    chunked = changed(transformer_tree, lambda key, x: flax_chunks(x, 7) if x.numel() > 7 else x)
    double = changed(transformer_tree, lambda key, x: x.double())
    for name, tree in {
        "bare": transformer_tree,
        "state": state,
        "chunked": chunked,
        "double": double,
    }.items():
        path = written(tmp_path / name, flax_bytes(tree))
        assert equal(load_pretrained(path, TRANSFORMER), wanted), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(tmp_path, tokenizer_tree, dtype):
    half = changed(tokenizer_tree, lambda key, x: x.to(dtype))
    widened = changed(half, lambda key, x: x.float())
    paths = [
        written(tmp_path / name, flax_bytes({"params": tree}))
        for name, tree in (("half", half), ("widened", widened))
    ]
    one, other = (load_pretrained(path, TOKENIZER) for path in paths)
    assert one["decoder.out.weight"].dtype == torch.float32
    assert equal(one, other)


@pytest.mark.parametrize(
    "changes", [{}, {"channels": 3, "multipliers": (1, 1, 2, 4), "res_blocks": 2}]
)
@torch.no_grad()
def test_the_ports_tokenizer_computes_what_it_does(tmp_path, changes):
    config = replace(TOKENIZER, **changes)
    port, path = Port(config), tmp_path / "maskgit-vqgan-imagenet-f16-256.bin"
    torch.save(port.state_dict(), path)
    model = Tokenizer(config).eval()
    weights = load_pretrained(path, config)
    model.load_state_dict(weights)
    path.write_bytes(b"")  # what was loaded does not hang on the file
    images = torch.rand(2, config.channels, 16, 16, generator=seeded(3))
    tokens, reconstruction = port(images)
    ours, quantized = model(images)
    assert len(tokens.unique()) > 2
    assert torch.equal(quantized.tokens, tokens)
    torch.testing.assert_close(ours, reconstruction, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "build", "config"),
    [("tokenizer", Tokenizer, TOKENIZER), ("transformer", MaskGitTransformer, TRANSFORMER)],
)
def test_published_models(tmp_path, kind, build, config):
    weights = build(config).state_dict()
    save_model(tmp_path / kind, kind, config, weights)
    for path in (tmp_path / kind, str(tmp_path / kind / "model.safetensors")):
        assert equal(load_pretrained(path, config), weights)


def test_number_of_classes(tmp_path, transformer_tree, tokenizer_tree):
    path = written(tmp_path / "flax", flax_bytes({"params": transformer_tree}))
    model = MaskGitTransformer(TRANSFORMER)
    save_model(tmp_path / "model", "transformer", TRANSFORMER, model.state_dict())
    assert pretrained_num_classes(path, 10) == 4
    assert pretrained_num_classes(tmp_path / "model", 12) == 2
    with pytest.raises(UserError, match="15 rows, too few for 14 codes"):
        pretrained_num_classes(path, 14)
    other = written(tmp_path / "other", flax_bytes(tokenizer_tree))
    with pytest.raises(UserError, match="holds a tokenizer and not a transformer"):
        pretrained_num_classes(other, 10)


@needs_fixture
def test_number_of_classes_of_the_release():
    assert pretrained_num_classes(FOLDER / "transformer_tiny_checkpoint", 64) == 10
