"""Pretrained weights: every format against independent networks, and files that do not fit."""

import io
import pickle
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pipeline.runtime.errors import UserError
from pipeline.tokenizer import Tokenizer
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import save_model
from pipeline.weights.released.checkpoint import load_pretrained, pretrained_num_classes
from tests.pretrained_files import TOKENIZER, TRANSFORMER, changed, equal, fails, written
from tests.release import (
    TRANSFORMER_CHECKPOINT,
    Port,
    flax_array,
    flax_bytes,
    flax_tokenizer,
    flax_transformer,
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


def test_trees_that_flax_users_write(tmp_path, transformer_tree):
    plain = written(tmp_path / "plain", flax_bytes({"params": transformer_tree}))
    wanted = load_pretrained(plain, TRANSFORMER)
    assert all(weight.dtype == torch.float32 for weight in wanted.values())
    moments = changed(transformer_tree, lambda key, x: x + 1)
    state = {
        "step": 7,
        "params": {"params": transformer_tree},
        "opt_state": {"0": {"count": flax_array(torch.tensor(7), code=3), "mu": moments}},
    }
    double = changed(transformer_tree, lambda key, x: x.double())
    for name, tree in {"bare": transformer_tree, "state": state, "double": double}.items():
        path = written(tmp_path / name, flax_bytes(tree))
        assert equal(load_pretrained(path, TRANSFORMER), wanted), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(tmp_path, tokenizer_tree, dtype):
    half = changed(tokenizer_tree, lambda key, x: x.to(dtype))
    widened = changed(half, lambda key, x: x.float())
    one, other = (
        load_pretrained(written(tmp_path / name, flax_bytes({"params": tree})), TOKENIZER)
        for name, tree in (("half", half), ("widened", widened))
    )
    assert one["decoder.out.weight"].dtype == torch.float32
    assert equal(one, other)


@pytest.mark.parametrize(
    ("kind", "build", "config"),
    [("tokenizer", Tokenizer, TOKENIZER), ("transformer", MaskGitTransformer, TRANSFORMER)],
)
def test_published_models(tmp_path, kind, build, config):
    weights = build(config).state_dict()
    save_model(tmp_path / kind, kind, config, weights)
    for path in (tmp_path / kind, str(tmp_path / kind / "model.safetensors")):
        assert equal(load_pretrained(path, config), weights)


def test_what_the_weights_of_a_published_model_do_not_show(tmp_path):
    weights = MaskGitTransformer(TRANSFORMER).state_dict()
    save_model(tmp_path / "model", "transformer", TRANSFORMER, weights)
    save_model(tmp_path / "baseline", "autoregressive", TRANSFORMER, weights)
    other = replace(TRANSFORMER, codebook_size=11, num_classes=3)
    for name, config, word in (
        ("model", replace(TRANSFORMER, heads=4), "heads is 3"),
        ("model", other, "codebook_size is 10"),
        ("baseline", TRANSFORMER, "kind is autoregressive"),
    ):
        fails(tmp_path / name, config, word)


def test_number_of_classes(tmp_path, transformer_tree, tokenizer_tree):
    path = written(tmp_path / "flax", flax_bytes({"params": transformer_tree}))
    weights = MaskGitTransformer(TRANSFORMER).state_dict()
    save_model(tmp_path / "model", "transformer", TRANSFORMER, weights)
    assert pretrained_num_classes(path, 10) == 4
    assert pretrained_num_classes(tmp_path / "model", 12) == 2
    assert pretrained_num_classes(TRANSFORMER_CHECKPOINT, 64) == 10
    with pytest.raises(UserError, match="too few for 14 codes"):
        pretrained_num_classes(path, 14)
    other = written(tmp_path / "other", flax_bytes(tokenizer_tree))
    with pytest.raises(UserError, match="holds a tokenizer"):
        pretrained_num_classes(other, 10)


def test_the_other_model(tmp_path, tokenizer_tree, transformer_tree):
    one = written(tmp_path / "one", flax_bytes({"params": tokenizer_tree}))
    other = written(tmp_path / "other", flax_bytes({"params": transformer_tree}))
    fails(one, TRANSFORMER, "holds a tokenizer")
    fails(other, TOKENIZER, "holds a transformer")
    save_file({"fc.weight": torch.ones(2)}, tmp_path / "classifier")
    fails(tmp_path / "classifier", TOKENIZER, "fc.weight")


FLAX_KEY = "encoder/ResBlock_0/Conv_0/kernel"


def test_missing_and_unexpected_keys(tmp_path, tokenizer_tree):
    path = tmp_path / "weights"
    without = changed(tokenizer_tree, lambda key, x: None if key == FLAX_KEY else x)
    fails(written(path, flax_bytes({"params": without})), TOKENIZER, f"lacks {FLAX_KEY};")
    extra = tokenizer_tree | {"encoder": tokenizer_tree["encoder"] | {"Dense_0": torch.ones(2)}}
    fails(written(path, flax_bytes({"params": extra})), TOKENIZER, "unexpected encoder/Dense_0;")
    weights = Port(TOKENIZER).state_dict()
    weights["quantize.\nembedding.wieght"] = weights.pop("quantize.embedding.weight")
    torch.save(weights, path)
    fails(path, TOKENIZER, "lacks quantize.embedding.weight")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"filters": 64}, ["has shape", "tokenizer.*"]),
        ({"channels": 3}, ["(3, 3, 1, 32)", "(3, 3, 3, 32)", "data.channels"]),
        ({"codebook_size": 12}, ["quantizer/codebook"]),
        ({"multipliers": (1, 2)}, ["unexpected decoder/Conv_3/bias (and 15 more)"]),
        ({"res_blocks": 2}, ["ResBlock_"]),
    ],
)
def test_a_tokenizer_of_another_size(tmp_path, tokenizer_tree, changes, wanted):
    path = written(tmp_path / "flax", flax_bytes({"params": tokenizer_tree}))
    fails(path, replace(TOKENIZER, **changes), *wanted)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"hidden": 48}, ["has shape", "transformer.*"]),
        ({"heads": 4}, ["query/kernel", "(24, 3, 8) and not (24, 4, 6)"]),
        ({"layers": 1}, ["unexpected TransformerLayer_1/"]),
        ({"layers": 3}, ["lacks TransformerLayer_2/"]),
        ({"num_tokens": 9}, ["Embed_0/position_embeddings/embedding", "data.image_size"]),
    ],
)
def test_a_transformer_of_another_size(tmp_path, transformer_tree, changes, wanted):
    path = written(tmp_path / "flax", flax_bytes({"params": transformer_tree}))
    fails(path, replace(TRANSFORMER, **changes), *wanted)


def test_values_that_are_no_weights(tmp_path, transformer_tree):
    path, where = tmp_path / "flax", "TransformerLayer_1/Mlp_0/layer_output/bias"
    for value, wanted in (
        (torch.full((24,), torch.nan), "NaN or infinite"),
        (torch.full((24,), 1e300, dtype=torch.float64), "NaN or infinite"),
        (torch.ones(24, dtype=torch.int32), "int32"),
        (torch.ones(24, 1), "has shape (24, 1) and not (24,)"),
        (0.5, "not an array"),
    ):
        tree = changed(transformer_tree, lambda key, x, v=value: v if key == where else x)
        fails(written(path, flax_bytes({"params": tree})), TRANSFORMER, where, wanted)


def test_files_that_are_missing_or_no_weights(tmp_path):
    fails(tmp_path / "nothing", TOKENIZER, "missing")
    (tmp_path / "folder").mkdir()
    fails(tmp_path / "folder", TOKENIZER, "model.safetensors: missing")
    for name, content in {
        "empty": b"",
        "page": b"<!DOCTYPE html><html><body>Not found</body></html>",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    }.items():
        fails(written(tmp_path / name, content), TOKENIZER, "neither a flax checkpoint")
    torch.save([torch.ones(2)], tmp_path / "list.bin")
    fails(tmp_path / "list.bin", TOKENIZER, "a list and not a dict")


@pytest.fixture(scope="module")
def files(tmp_path_factory, tokenizer_tree) -> dict[str, bytes]:
    """A tokenizer in every format."""
    path, port = tmp_path_factory.mktemp("files") / "model", io.BytesIO()
    save_file(Tokenizer(TOKENIZER).state_dict(), path)
    torch.save(Port(TOKENIZER).state_dict(), port)
    flax = flax_bytes({"params": tokenizer_tree})
    return {"flax": flax, "port": port.getvalue(), "safetensors": path.read_bytes()}


@pytest.mark.parametrize("name", ["flax", "port", "safetensors"])
@pytest.mark.parametrize("kept", [0.001, 0.5, 0.999])
def test_truncated(tmp_path, files, name, kept):
    content = files[name][: int(kept * len(files[name]))]
    fails(written(tmp_path / name, content), TOKENIZER, "truncated or damaged")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_is_a_user_error_or_harmless(tmp_path, files, data):
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    # Half of the changes where the structure is: the beginning, and the end of a zip.
    where = st.integers(0, len(content) - 1) | st.integers(0, 200) | st.integers(-2000, -1)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(where)] = data.draw(st.integers(0, 255))
    path = written(tmp_path / name, bytes(content))
    try:
        weights = load_pretrained(path, TOKENIZER)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(weight.isfinite().all() for weight in weights.values())


@pytest.mark.parametrize(
    "content",
    [
        b"\x81\xa6params\xdf\xff\xff\xff\xff",  # a map of 2^32 - 1 keys
        b"\x81\xa6params\xc9\xff\xff\xff\xff\x01",  # an array of as many bytes
        b"\x81\xa1a" * 900 + b"\x01",  # nested deeply
        flax_bytes({"encoder": msgpack.ExtType(1, msgpack.packb(((1 << 60,), "float32", b"")))}),
        (2**60).to_bytes(8, "little")[:5] + b'\0\0\0{"a":1}',  # a header longer than the file
    ],
)
def test_sizes_that_are_lies(tmp_path, content):
    fails(written(tmp_path / "file", content), TOKENIZER, "truncated or damaged")


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_code_of_a_file_is_run(tmp_path):
    ran, path = tmp_path / "ran", tmp_path / "weights.bin"
    torch.save({"quantize.embedding.weight": Bomb(ran)}, path)
    message = fails(path, TOKENIZER, "holds more than tensors")
    assert "weights_only" not in message  # PyTorch's own advice is to load it all the same
    written(path, pickle.dumps({"quantize.embedding.weight": Bomb(ran)}))
    fails(path, TOKENIZER, "neither")
    assert not ran.exists()
    pickle.loads(path.read_bytes())
    assert ran.exists()  # so the bomb is one
