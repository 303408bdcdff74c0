"""Published weights are the bytes that were published, and run no code."""

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from pipeline.runtime.pytorch_files import (
    downloaded,
    only_tensors,
    read_safetensors,
    read_state_dict,
)

CONTENT = b"weights"
HASH = hashlib.sha256(CONTENT).hexdigest()
URL = f"https://example.org/net-{HASH[:8]}.pth"


@pytest.fixture
def published(tmp_path, monkeypatch) -> list[str]:
    """A server of `CONTENT`; what it was asked for."""
    asked: list[str] = []

    def send(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        assert HASH.startswith(hash_prefix)
        asked.append(url)
        Path(path).write_bytes(CONTENT)

    monkeypatch.setattr(torch.hub, "download_url_to_file", send)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return asked


def test_a_file_is_downloaded_once(published, tmp_path, capsys):
    for _ in range(2):
        path = downloaded(URL)
        assert path == tmp_path / "checkpoints" / Path(URL).name
        assert path.read_bytes() == CONTENT
    assert published == [URL]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("damaged", [b"", CONTENT[:-1], b"Weights"])
def test_a_damaged_file_is_downloaded_again_and_a_line_says_so(published, damaged, capsys):
    downloaded(URL).write_bytes(damaged)
    assert downloaded(URL).read_bytes() == CONTENT
    assert published == [URL, URL]
    (line,) = capsys.readouterr().out.splitlines()
    assert Path(URL).name in line and "damaged" in line


def test_a_damaged_file_stays_where_nothing_can_be_downloaded(published, monkeypatch):
    path = downloaded(URL)
    path.write_bytes(b"other")

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(OSError, match="no network"):
        downloaded(URL)
    assert path.read_bytes() == b"other"


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_no_library_can_ask_for_the_code_of_a_pickle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Bomb()}, "bomb.pth")
    with only_tensors(), pytest.raises(ValueError, match="more than tensors"):
        torch.load("bomb.pth", weights_only=False)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("new", [True, False])
def test_tensors_are_read_as_they_were_written(tmp_path, new):
    base = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).half()
    weights = {
        **base.state_dict(),
        "own": torch.nn.Parameter(torch.rand(3, 4)),
        "again": base[0].weight,
    }
    weights["part"] = weights["own"][1:, ::2]
    torch.save(weights, tmp_path / "weights", _use_new_zipfile_serialization=new)
    found = read_state_dict(tmp_path / "weights")
    assert found.keys() == weights.keys()
    assert all(
        torch.equal(found[k], weights[k]) and found[k].dtype == weights[k].dtype for k in found
    )


def test_torch_load_is_itself_again():
    before = torch.load
    with pytest.raises(FileNotFoundError), only_tensors():
        torch.load("missing")
    assert torch.load is before


def test_a_tensor_that_safetensors_list_twice_is_refused(tmp_path):
    content = save({"a": torch.zeros(2), "b": torch.ones(2)})
    size = int.from_bytes(content[:8], "little")
    listed = content[8 : 8 + size].rstrip()
    twice = listed[:-1] + b"," + listed[1:]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert read_safetensors(path).keys() == {"a", "b"}
    path.write_bytes(len(twice).to_bytes(8, "little") + twice + content[8 + size :])
    with pytest.raises(ValueError, match="a is in its list twice"):
        read_safetensors(path)


def test_numbers_of_which_two_share_a_byte_are_refused(tmp_path):
    """PyTorch reads them, and then can make no other number of them."""
    content = save({"a": torch.zeros(4, dtype=torch.uint8)})
    size = int.from_bytes(content[:8], "little")
    listed = content[8 : 8 + size].replace(b'"U8"', b'"F4"').replace(b"[4]", b"[8]")
    path = tmp_path / "model.safetensors"
    path.write_bytes(content[:8] + listed + content[8 + size :])
    with pytest.raises(ValueError, match="a is F4, no kind of number that weights have"):
        read_safetensors(path)
