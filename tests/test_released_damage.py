"""Damaged and hostile files in the place of pretrained weights."""

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import msgpack
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pipeline.runtime.errors import UserError
from pipeline.runtime.limits import FLAX_BYTES
from pipeline.tokenizer import Tokenizer
from pipeline.weights.released.checkpoint import load_pretrained
from tests.pretrained_files import TOKENIZER, fails, written
from tests.release import Port, flax_bytes, flax_chunks


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


def test_a_flax_checkpoint_of_more_bytes_than_any_is_not_read(tmp_path):
    path = written(tmp_path / "weights", b"\x81\xa6params\x81\xa1a\xc9\xff\xff\xff\xff\x01")
    os.truncate(path, FLAX_BYTES + 1)
    fails(path, TOKENIZER, "4,294,967,297 bytes, more than the limit")


def test_a_weight_that_a_flax_tree_names_in_two_ways_is_refused(tmp_path, tokenizer_tree):
    tree = tokenizer_tree | {"encoder/Conv_0/kernel": torch.ones(2)}
    path = written(tmp_path / "flax", flax_bytes({"params": tree}))
    fails(path, TOKENIZER, "encoder/Conv_0/kernel: it is in the tree twice")


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
    message = fails(path, TOKENIZER, "holds more than tensors")
    assert "weights_only" not in message  # PyTorch's own advice is to load it all the same
    torch.save({"quantize.embedding.weight": Bomb(ran)}, path, _use_new_zipfile_serialization=False)
    fails(path, TOKENIZER, "is neither")
    written(path, pickle.dumps({"quantize.embedding.weight": Bomb(ran)}))
    fails(path, TOKENIZER, "is neither")
    assert not ran.exists()
    pickle.loads(path.read_bytes())
    assert ran.exists()  # so the bomb is one


def test_other_zip_files(tmp_path):
    path = tmp_path / "port.bin"
    torch.save([torch.ones(2)], path)
    fails(path, TOKENIZER, "a list and not a dict")
    torch.save({"quantize.embedding.weight": "text"}, path)
    fails(path, TOKENIZER, "quantize.embedding.weight is not a dense tensor")
    torch.save({"state_dict": {"quantize.embedding.weight": torch.ones(2, 2)}}, path)
    fails(path, TOKENIZER, "if it is a dict of weights, save it by itself")
    torch.save({"quantize.embedding.weight": torch.ones(2, 2).to_sparse()}, path)
    fails(path, TOKENIZER, "quantize.embedding.weight is not a dense tensor")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    fails(path, TOKENIZER, "truncated or damaged")


def flax_array(shape: list[int]) -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb((shape, "float32", b"")))


@pytest.mark.parametrize(
    ("tree", "wanted"),
    [
        ({"Embed_0": flax_array([2**63 - 1] * 400_000)}, "max_array_len"),
        ({"Embed_0/" + "A" * 2_000_000: {str(i): 1 for i in range(4000)}}, "max_str_len"),
        ({"A" * 1000: {"B" * 1000: {str(i): 1 for i in range(4000)}}}, "longer than 1,024"),
        ({"a": [[{}] * 4000] * 20}, "too many things"),
        ({"Embed_0": {"a": bytes(100)}}, "max_bin_len"),
        ({"Embed_0": msgpack.ExtType(1, b"\xc1")}, "it is no msgpack"),
    ],
)
def test_a_flax_tree_of_claims_is_refused(tmp_path, tree, wanted):
    fails(written(tmp_path / "flax", msgpack.packb(tree)), TOKENIZER, wanted)
