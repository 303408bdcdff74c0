"""Downloaded weights must have the published hash, and loading them runs no code."""

import hashlib
from pathlib import Path

import pytest
import torch

from pipeline.evaluation.features import open_extractor
from pipeline.runtime.pytorch_files import downloaded, only_tensors, read_state_dict
from tests.errors import refused
from tests.release import Bomb

CONTENT = b"weights"
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def url(tmp_path, monkeypatch) -> str:
    """The URL of a file with `CONTENT` whose name contains its hash. Torch's cache is empty."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    path = tmp_path / f"net-{HASH[:8]}.pth"
    path.write_bytes(CONTENT)
    return path.as_uri()


def test_a_file_is_downloaded_once_and_again_where_it_is_damaged(url, tmp_path, capsys):
    path = downloaded(url)
    assert path == tmp_path / "cache/checkpoints" / Path(url).name
    time = path.stat().st_mtime_ns
    assert downloaded(url) == path and path.stat().st_mtime_ns == time
    assert capsys.readouterr().out == ""
    path.write_bytes(b"Weights")
    assert downloaded(url).read_bytes() == CONTENT
    (line,) = capsys.readouterr().out.splitlines()
    assert str(path) in line and "damaged" in line


def test_a_file_of_another_hash_is_refused_and_what_was_there_stays(url, tmp_path):
    downloaded(url).write_bytes(b"mine")
    (tmp_path / Path(url).name).write_bytes(b"forged")
    with pytest.raises(RuntimeError, match="hash"):
        downloaded(url)
    (tmp_path / Path(url).name).unlink()
    with pytest.raises(OSError):
        downloaded(url)
    (left,) = (tmp_path / "cache/checkpoints").iterdir()
    assert left.read_bytes() == b"mine"


@pytest.mark.parametrize("new", [True, False])
def test_no_code_of_a_download_is_run(tmp_path, monkeypatch, make_params, new):
    """This holds for the formats since and before PyTorch 1.6, even with `weights_only=False`."""
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Bomb(Path("exploded"))}, "bomb.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match="more than tensors"), only_tensors():
        torch.load("bomb.pth", weights_only=False)
    for name in ("inception", "vgg"):
        given = make_params(evaluation={f"{name}_weights": "bomb.pth"}).evaluation
        with refused(f"evaluation.{name}_weights", "more than tensors") as error:
            open_extractor(name, None, given, torch.device("cpu"))
        assert "weights_only" not in str(error.value)  # PyTorch suggests turning it off
    assert not Path("exploded").exists()
    torch.load("bomb.pth", weights_only=False)
    assert Path("exploded").exists()  # the bomb works, and `torch.load` is unchanged


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([torch.ones(2)], "a list, not a dict"),
        ({"a": "text"}, "a is not a dense tensor"),
        ({"a": torch.ones(2).to_sparse()}, "a is not a dense tensor"),
        ({"state_dict": {"a": torch.ones(2)}}, "save only that dict"),
    ],
)
def test_what_is_no_dict_of_dense_tensors_is_refused(tmp_path, value, words):
    torch.save(value, tmp_path / "weights")
    with pytest.raises(ValueError, match=words):
        read_state_dict(tmp_path / "weights")
