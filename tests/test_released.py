"""Pretrained weights from every format against independent networks, and every way they fail."""

import io
import pickle
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pipeline.runtime.errors import UserError
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.published import save_model
from pipeline.weights.released import load_pretrained, pretrained_num_classes
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

TOKENIZER = TokenizerConfig(
    channels=1, filters=32, multipliers=(1, 2, 1), res_blocks=1, embedding_dim=6, codebook_size=10
)
TRANSFORMER = TransformerConfig(
    num_tokens=6, codebook_size=10, num_classes=4, layers=2, hidden=24, heads=3, mlp=40, dropout=0
)


@pytest.fixture(scope="module")
def tokenizer_tree() -> dict:
    return flax_tokenizer(torch.rand(1, 8, 8, 1, generator=seeded(0)), TOKENIZER)[0]


@pytest.fixture(scope="module")
def transformer_tree() -> dict:
    return flax_transformer(torch.zeros(1, 7, dtype=torch.long), TRANSFORMER)[0]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def changed(tree, change) -> dict:
    """The tree with `change(key, tensor)` for each of its tensors; None leaves one out."""

    def walk(node, prefix):
        if not isinstance(node, dict):
            return change(prefix, node)
        children = {k: walk(v, f"{prefix}/{k}".lstrip("/")) for k, v in node.items()}
        return {k: v for k, v in children.items() if v is not None}

    return walk(tree, "")


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# --- the authors' checkpoints ---------------------------------------------------------------------


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


# --- the port, and published models ---------------------------------------------------------------


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


def test_what_the_weights_of_a_published_model_do_not_show(tmp_path):
    weights = MaskGitTransformer(TRANSFORMER).state_dict()
    save_model(tmp_path / "model", "transformer", TRANSFORMER, weights)
    with pytest.raises(UserError, match=r"config\.json .*heads is 3 and not 4"):
        load_pretrained(tmp_path / "model", replace(TRANSFORMER, heads=4))
    other = replace(TRANSFORMER, codebook_size=11, num_classes=3)
    with pytest.raises(UserError, match=r"codebook_size is 10 and not 11"):
        load_pretrained(tmp_path / "model", other)
    save_model(tmp_path / "baseline", "autoregressive", TRANSFORMER, weights)
    with pytest.raises(UserError, match=r"kind is autoregressive and not transformer"):
        load_pretrained(tmp_path / "baseline", TRANSFORMER)
    (tmp_path / "model" / "config.json").write_text("[]")  # of some other project
    assert equal(load_pretrained(tmp_path / "model", TRANSFORMER), weights)


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


# --- what a user is told --------------------------------------------------------------------------


def fails(path, config, *wanted: str) -> str:
    with pytest.raises(UserError) as error:
        load_pretrained(path, config)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    for text in wanted:
        assert text in message, message
    return message


def test_missing_files_and_strange_ones(tmp_path):
    fails(tmp_path / "nothing", TOKENIZER, "is missing")
    (tmp_path / "folder").mkdir()
    fails(tmp_path / "folder", TOKENIZER, "folder/model.safetensors is missing")
    (tmp_path / "folder" / "model.safetensors").mkdir()
    fails(tmp_path / "folder", TOKENIZER, "cannot be read")
    for name, content in {
        "empty": b"",
        "page": b"<!DOCTYPE html><html><body>Not found</body></html>",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "short": b"\x01",
    }.items():
        fails(written(tmp_path / name, content), TOKENIZER, "is neither a flax checkpoint")


def test_the_other_model(tmp_path, tokenizer_tree, transformer_tree):
    one = written(tmp_path / "one", flax_bytes({"params": tokenizer_tree}))
    other = written(tmp_path / "other", flax_bytes({"params": transformer_tree}))
    fails(one, TRANSFORMER, "holds a tokenizer and not a transformer")
    fails(other, TOKENIZER, "holds a transformer and not a tokenizer")
    torch.save(Port(TOKENIZER).state_dict(), tmp_path / "port.bin")
    fails(tmp_path / "port.bin", TRANSFORMER, "holds a tokenizer and not a transformer")
    save_file({"fc.weight": torch.ones(2)}, tmp_path / "classifier")
    fails(tmp_path / "classifier", TOKENIZER, "fc.weight", "neither a tokenizer's nor")


FLAX_KEY = "encoder/ResBlock_0/Conv_0/kernel"
PORT_KEY = "decoder.up.1.block.0.nin_shortcut.weight"


def test_missing_and_unexpected_keys(tmp_path, tokenizer_tree):
    path = tmp_path / "flax"
    without = changed(tokenizer_tree, lambda key, x: None if key == FLAX_KEY else x)
    written(path, flax_bytes({"params": without}))
    fails(path, TOKENIZER, f"lacks {FLAX_KEY};", "whole file")
    extra = tokenizer_tree | {"encoder": tokenizer_tree["encoder"] | {"Dense_0": torch.ones(2)}}
    written(path, flax_bytes({"params": extra}))
    fails(path, TOKENIZER, "has an unexpected encoder/Dense_0;", "whole file")
    weights = Port(TOKENIZER).state_dict()
    weights["quantize.\nembedding.wieght"] = weights.pop("quantize.embedding.weight")
    torch.save(weights, path)
    fails(path, TOKENIZER, "lacks quantize.embedding.weight", "unexpected quantize. embedding.w")
    weights = Port(TOKENIZER).state_dict()
    del weights[PORT_KEY]
    torch.save(weights, path)
    fails(path, TOKENIZER, f"lacks {PORT_KEY}", "tokenizer.multipliers")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"filters": 64}, ["has shape", "tokenizer.filters (32 in the file, 64 here)"]),
        ({"channels": 3}, ["(3, 3, 1, 32)", "(3, 3, 3, 32)", "data.channels (1 in the file"]),
        ({"codebook_size": 12}, ["quantizer/codebook", "tokenizer.codebook_size (10 in"]),
        ({"embedding_dim": 5}, ["tokenizer.embedding_dim (6 in the file, 5 here)"]),
        ({"multipliers": (1, 1, 2)}, ["/Conv_2/kernel", "tokenizer.multipliers"]),
        ({"multipliers": (1, 3, 1)}, ["has shape", "agree on tokenizer.multipliers"]),
        ({"multipliers": (1, 2)}, ["unexpected encoder/ResBlock_2", "tokenizer.multipliers"]),
        ({"res_blocks": 2}, ["ResBlock_", "tokenizer.multipliers or tokenizer.res_blocks"]),
    ],
)
def test_a_tokenizer_of_another_size(tmp_path, tokenizer_tree, changes, wanted):
    path = written(tmp_path / "flax", flax_bytes({"params": tokenizer_tree}))
    fails(path, replace(TOKENIZER, **changes), *wanted)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"hidden": 48}, ["transformer.hidden (24 in the file, 48 here)"]),
        ({"mlp": 48}, ["Mlp_0/intermediate_output/kernel", "transformer.mlp (40 in the file"]),
        ({"heads": 4}, ["query/kernel", "(24, 3, 8) and not (24, 4, 6)", "transformer.heads"]),
        ({"layers": 1}, ["unexpected TransformerLayer_1/", "transformer.layers"]),
        ({"layers": 3}, ["lacks TransformerLayer_2/", "transformer.layers"]),
        ({"num_tokens": 9}, ["Embed_0/position_embeddings/embedding", "data.image_size", "(7 in"]),
        ({"num_classes": 9}, ["number of classes + 1 (15 in the file, 20 here)"]),
    ],
)
def test_a_transformer_of_another_size(tmp_path, transformer_tree, changes, wanted):
    path = written(tmp_path / "flax", flax_bytes({"params": transformer_tree}))
    fails(path, replace(TRANSFORMER, **changes), *wanted)


def test_values_that_are_no_weights(tmp_path, transformer_tree):
    path, where = tmp_path / "flax", "TransformerLayer_1/Mlp_0/layer_output/bias"
    for value, wanted in (
        (torch.full((24,), torch.nan), f"{where} holds values that are not finite"),
        (torch.full((24,), 1e300, dtype=torch.float64), "not finite"),
        (torch.ones(24, dtype=torch.int32), f"{where} is int32"),
        (torch.ones(24, 1), f"{where} has shape (24, 1) and not (24,)"),
        (msgpack.ExtType(2, msgpack.packb((1.0, 2.0))), f"{where}: not an array"),
        (0.5, f"{where}: not an array"),
        (flax_array(torch.tensor(0.5), code=3), f"{where} has shape ()"),
        (msgpack.ExtType(1, msgpack.packb(((24,), "object", b"x" * 24))), "arrays of object"),
    ):
        tree = changed(transformer_tree, lambda key, x, v=value: v if key == where else x)
        written(path, flax_bytes({"params": tree}))
        fails(path, TRANSFORMER, wanted)


# --- damaged and hostile files --------------------------------------------------------------------


def port_bytes() -> bytes:
    content = io.BytesIO()
    torch.save(Port(TOKENIZER).state_dict(), content)
    return content.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory, tokenizer_tree) -> dict[str, bytes]:
    """A tokenizer in every format."""
    path = tmp_path_factory.mktemp("files") / "model"
    save_file(Tokenizer(TOKENIZER).state_dict(), path)
    return {
        "flax": flax_bytes({"params": tokenizer_tree}),
        "port": port_bytes(),
        "safetensors": path.read_bytes(),
    }


@pytest.mark.parametrize("name", ["flax", "port", "safetensors"])
@pytest.mark.parametrize("kept", [0.001, 0.5, 0.999])
def test_truncated(tmp_path, files, name, kept):
    content = files[name][: int(kept * len(files[name]))]
    fails(written(tmp_path / name, content), TOKENIZER, "truncated or damaged", "download")


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


def test_a_bit_that_flipped_in_the_ports_file_is_seen(tmp_path):
    content = bytearray(port_bytes())
    content[len(content) // 2] ^= 1
    fails(written(tmp_path / "port.bin", content), TOKENIZER, "checksum")


@pytest.mark.parametrize(
    "content",
    [
        b"\x81\xa6params\xdf\xff\xff\xff\xff",  # a map of 2^32 - 1 keys
        b"\x81\xa6params\xdd\xff\xff\xff\xff",  # a list
        b"\x81\xa6params\xc9\xff\xff\xff\xff\x01",  # an array of as many bytes
        b"\x81\xa6params\xdb\xff\xff\xff\xff",  # a string
        b"\x81\xa1a" * 900 + b"\x01",  # nested deeply
        b"\x81\xa1a" * 5000 + b"\x01",
        b"\x81\xa6params\xdc\xff\xff" + b"\xc0" * 70_000,
        b"\x81\xa6params" * 2 + b"\x01",
        flax_bytes({"encoder": msgpack.ExtType(1, msgpack.packb(((1 << 60,), "float32", b"")))}),
        flax_bytes({"encoder": msgpack.ExtType(1, msgpack.packb(((-1, -4), "uint8", b"abcd")))}),
        flax_bytes({"encoder": msgpack.ExtType(1, msgpack.packb(7))}),
        flax_bytes({"encoder": msgpack.ExtType(1, b"\xc6\xff\xff\xff\xff")}),
        flax_bytes({"encoder": {"__msgpack_chunked_array__": True, "shape": 3, "chunks": {}}}),
        flax_bytes({"encoder": flax_chunks(torch.ones(4), 2) | {"shape": {"0": 1 << 62}}}),
        struct.pack("<Q", 1 << 39) + b"{}",  # safetensors whose header is longer than the file
        struct.pack("<Q", 95) + b'{"a":{"dtype":"F32","shape":[4611686018427387904],'
        b'"data_offsets":[0,18446744073709551615]}}   ',
    ],
)
def test_sizes_that_are_lies(tmp_path, content):
    fails(written(tmp_path / "file", content), TOKENIZER, "truncated or damaged")


def test_a_storage_that_claims_more_than_the_file_has(tmp_path):
    content, path = io.BytesIO(), tmp_path / "port.bin"
    torch.save({"quantize.embedding.weight": torch.ones(100_000)}, content)
    with zipfile.ZipFile(content) as archive, zipfile.ZipFile(path, "w") as shortened:
        for entry in archive.namelist():
            data = archive.read(entry)
            shortened.writestr(entry, data[:64] if entry.endswith("data/0") else data)
    fails(path, TOKENIZER, "truncated or damaged")


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_code_of_a_file_is_run(tmp_path):
    ran, path = tmp_path / "ran", tmp_path / "weights.bin"
    torch.save({"quantize.embedding.weight": Bomb(ran)}, path)
    message = fails(path, TOKENIZER, "it holds more than tensors")
    assert "weights_only" not in message  # PyTorch's own advice is to load it all the same
    torch.save({"quantize.embedding.weight": Bomb(ran)}, path, _use_new_zipfile_serialization=False)
    fails(path, TOKENIZER, "is neither")
    written(path, pickle.dumps({"quantize.embedding.weight": Bomb(ran)}))
    fails(path, TOKENIZER, "is neither")
    assert not ran.exists()
    pickle.loads(path.read_bytes())
    assert ran.exists()  # so the bomb is one


def test_other_zip_files(tmp_path, files):
    path = tmp_path / "port.bin"
    torch.save([torch.ones(2)], path)
    fails(path, TOKENIZER, "a list and not a dict")
    torch.save({"quantize.embedding.weight": "text"}, path)
    fails(path, TOKENIZER, "quantize.embedding.weight is not a dense tensor")
    torch.save({"quantize.embedding.weight": torch.ones(2, 2).to_sparse()}, path)
    fails(path, TOKENIZER, "quantize.embedding.weight is not a dense tensor")
    with zipfile.ZipFile(io.BytesIO(files["port"])) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as compressed:
        for name, data in entries.items():
            compressed.writestr(name, data)
    fails(path, TOKENIZER, "compressed")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    fails(path, TOKENIZER, "truncated or damaged")
