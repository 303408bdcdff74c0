"""Small or hostile files of weights and statistics take no more memory or time than real ones."""

import io
import os
import pickle
import resource
import signal
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import msgpack
import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from pipeline.evaluation.features import PretrainedExtractor
from pipeline.evaluation.statistics import load_statistics
from pipeline.runtime.errors import UserError
from pipeline.runtime.limits import CLASSES
from pipeline.runtime.pytorch_files import only_tensors
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.released.checkpoint import load_pretrained, pretrained_num_classes
from pipeline.weights.released.opening import open_pretrained_transformer
from tests.pretrained_files import TRANSFORMER

MEMORY, SECONDS = 3 << 29, 10  # beyond what this process has; more than any of these takes
EMBEDDING = "Embed_0/word_embeddings/embedding"
CPU = torch.device("cpu")


def refusal(open_it: Callable[[], object]) -> str:
    """The message of a user's error, of a process with little memory and time that prints
    nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        try:
            open_it()
        except UserError as error:
            os.write(writer, str(error).encode())
        except BaseException as error:
            os.write(writer, f"\n{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        message = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0 and message and "\n" not in message, message
    return message


def header_only(shape: list[int]) -> bytes:
    header = f'{{"token_embedding.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}'
    return struct.pack("<Q", len(header)) + header.encode()


def flax_array(shape: list[int]) -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb((shape, "float32", b"")))


def torch_bytes(value: object, new: bool = True) -> bytes:
    content = io.BytesIO()
    torch.save(value, content, _use_new_zipfile_serialization=new)
    return content.getvalue()


def pickled(body: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + body + b".")
        archive.writestr("x/version", "3\n")
        archive.writestr("x/byteorder", "little")
    return content.getvalue()


def deflated() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        archive.writestr("x/data/0", bytes(10_000))
    return content.getvalue()


def overlapping() -> bytes:
    """The same megabyte under a thousand names, whose checksums take as long as a gigabyte's."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        archive.writestr("x/data/0", bytes(1 << 20))
        archive.filelist += [archive.filelist[1]] * 1000
        archive.writestr("x/version", "3\n")
    return content.getvalue()


def crowded() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for i in range(30_000):
            archive.writestr(f"x/{i:0>40}", b"")
    return content.getvalue()


TEXT_KEYS = b"".join(b"X\x05\0\0\0%05dN" % i for i in range(20_000))
ROWS = torch.zeros(1, 1).expand(20_000_000, 24)
PICKLES = {
    "bytearray": (
        pickled(b"c__builtin__\nbytearray\n\x8a\x05\0\xe4\x0b\x54\x02\x85R"),
        "more than",
    ),
    "storage": (
        pickled(b"ctorch.storage\nUntypedStorage\n\x8a\x05\0\xe4\x0b\x54\x02\x85R"),
        "more than tensors",
    ),
    # Each tuple holds the one before twice, and a key is hashed.
    "tuples": (
        pickled(b"})" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"Ns"),
        "none that PyTorch writes",
    ),
    "copies": (
        pickled(
            b"](}q\0(" + TEXT_KEYS + b"u" + b"ccollections\nOrderedDict\nh\0\x85R" * 9000 + b"e"
        ),
        "none that PyTorch writes",
    ),
    "deep tuples": (pickled(b"})" + b"\x85" * 1_900_000 + b"Ns"), "none that PyTorch writes"),
    "long": (pickled(b"]" * 3_000_000), "more than 2,097,152 bytes"),
    "deflated": (deflated(), "its entries are compressed"),
    "overlapping": (overlapping(), "its entries overlap"),
    "crowded": (crowded(), "its list of entries has more than 2,097,152 bytes"),
}
WEIGHTS = {
    **PICKLES,
    "many rows": (header_only([20_000_000, 0]), "has no elements"),
    "more rows": (header_only([10**9, 0]), "has no elements"),
    "most rows": (header_only([2**62, 0]), "has no elements"),
    "a long list": (header_only([1] * 1_000_000), "more than 2,097,152 bytes"),
    "many dimensions": (
        header_only([1] * 9).replace(b"[0,0]", b"[0,4]") + bytes(4),
        "has 9 dimensions",
    ),
    "flax rows": (msgpack.packb({EMBEDDING: flax_array([20_000_000, 0])}), "has no elements"),
    "flax dimensions": (
        msgpack.packb({"Embed_0": flax_array([2**63 - 1] * 400_000)}),
        "max_array_len",
    ),
    "flax keys": (
        msgpack.packb({"Embed_0/" + "A" * 2_000_000: {str(i): 1 for i in range(4000)}}),
        "max_str_len",
    ),
    "flax names": (
        msgpack.packb({"A" * 1000: {"B" * 1000: {str(i): 1 for i in range(4000)}}}),
        "longer than 1,024",
    ),
    "flax things": (msgpack.packb({"a": [[{}] * 4000] * 20}), "too many things"),
    "flax bytes": (msgpack.packb({"Embed_0": {"a": bytes(100)}}), "max_bin_len"),
    "flax garbage": (msgpack.packb({"Embed_0": msgpack.ExtType(1, b"\xc1")}), "it is no msgpack"),
    "expanded": (torch_bytes({"token_embedding.weight": ROWS}), "more than there are in the file"),
    "one column": (
        save({"token_embedding.weight": torch.zeros(10 + 1 + CLASSES + 1, 1)}),
        "more than 10 codes, 65,536 classes",
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_pretrained(tmp_path, make_params, name):
    content, wanted = WEIGHTS[name]
    path = tmp_path / "weights"
    path.write_bytes(content)
    params = make_params(transformer={"pretrained": str(path)}, tokenizer={"codebook_size": 10})
    message = refusal(lambda: open_pretrained_transformer(params, CPU))
    assert str(path) in message and wanted in message, message
    assert "download" in message or "give the original" in message


@pytest.mark.parametrize("name", PICKLES)
def test_what_the_libraries_of_published_networks_load(tmp_path, name):
    content, wanted = PICKLES[name]
    path = tmp_path / "weights.pth"
    path.write_bytes(content)

    def load() -> None:
        try:
            with only_tensors():
                torch.load(path, weights_only=False)
        except ValueError as error:
            raise UserError(str(error)) from error

    assert wanted in refusal(load)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


BAD = {
    "zip": (torch_bytes({"a": Bomb()}), "more than tensors"),
    "legacy": (torch_bytes({"a": Bomb()}, new=False), "more than tensors"),
    "bare": (pickle.dumps(Bomb()), "no PyTorch state dict"),
    "other protocol": (pickled(pickle.dumps({"a": 1}, protocol=4)), "more than tensors"),
    "garbage": (b"garbage", "no PyTorch state dict"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "no PyTorch state dict"),
    "cut": (torch_bytes({"a": torch.ones(9)})[:-9], "File is not a zip file"),
    "cut legacy": (torch_bytes({"a": torch.ones(9)}, new=False)[:-9], "cannot be read"),
    "list": (torch_bytes([1]), "a list and not a dict"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_state_dict_is_told_in_our_words(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, wanted = BAD[name]
    Path("weights.pth").write_bytes(content)
    with pytest.raises((ValueError, BadZipFile), match=wanted) as error, only_tensors():
        torch.load("weights.pth", weights_only=False)
    assert "weights_only" not in str(error.value) and not Path("exploded").exists()


def test_a_pipe_in_the_place_of_an_extractors_weights(tmp_path):
    path = tmp_path / "weights"
    os.mkfifo(path)
    message = refusal(lambda: PretrainedExtractor("inception", str(path), CPU))
    assert "evaluation.inception_weights" in message and "is a pipe" in message


def test_a_description_beside_pretrained_weights(tmp_path):
    save_file(MaskGitTransformer(TRANSFORMER).state_dict(), tmp_path / "model.safetensors")
    description = tmp_path / "config.json"
    description.write_text('{"heads": "3"}')
    with pytest.raises(
        UserError, match=r"config\.json does not fit: heads is 3 \(str\) and not 3 \(int\);"
    ):
        load_pretrained(tmp_path, TRANSFORMER)
    description.touch()
    os.truncate(description, 20 << 30)
    message = refusal(lambda: load_pretrained(tmp_path, TRANSFORMER))
    assert str(description) in message and "more than the limit" in message


def array(dtype: str, *shape: int) -> bytes:
    """The header of an `.npy`, and next to none of its numbers."""
    content = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, header)
    return content.getvalue() + bytes(64)


@pytest.mark.parametrize(
    ("mu", "sigma", "wanted"),
    [
        (array("<f2", 22000), array("<f2", 22000, 22000), r"mu has shape \(22000,\), more than"),
        (array("<f8", 8), array("|i1", 32000, 32000), r"sigma has shape \(32000, 32000\)"),
        (array("<f8", 8), array("<f8", 1, 1, 1, 1), r"sigma has shape"),
        (array("<f8", 8), array("|V1000000000", 8, 8), "no real numbers"),
        (array("<f8", 8), b"\x93NUMPY\x02\0" + b"\xff" * 4 + bytes(64), "no array of numbers"),
    ],
)
def test_statistics_that_would_take_all_memory(tmp_path, mu, sigma, wanted):
    path = tmp_path / "statistics.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mu.npy", mu)
        archive.writestr("sigma.npy", sigma)
    with pytest.raises(UserError, match=rf"statistics\.npz.*{wanted}"):
        load_statistics(path)


def test_the_rows_of_a_real_checkpoint_are_its_classes(tmp_path):
    save_file({"token_embedding.weight": torch.zeros(10 + CLASSES + 1, 1)}, tmp_path / "weights")
    assert pretrained_num_classes(tmp_path / "weights", 10) == CLASSES
