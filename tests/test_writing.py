"""Sets of images that are made batch by batch."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.runtime import arrays
from pipeline.runtime.errors import UserError
from tests.images import write_batches

SHAPE = (23, 3, 4, 4)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No time passes, whatever else runs on the machine."""
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("pipeline.runtime.progress.time", clock)


class Maker:
    """Ten images a batch, the last one shorter; killed when a batch is asked for."""

    def __init__(self, killed_at: int | None = None):
        pixels = torch.Generator().manual_seed(0)
        self.images = torch.randint(256, SHAPE, generator=pixels, dtype=torch.uint8)
        self.killed_at, self.made = killed_at, []

    def batches(self) -> list:
        return [partial(self.make, *batch) for batch in enumerate(self.images.split(10))]

    def make(self, number: int, images: Tensor) -> Tensor:
        if number == self.killed_at:
            raise KeyboardInterrupt
        self.made.append(number)
        # As networks give them on a GPU: the channels last in memory.
        return images.to(memory_format=torch.channels_last)


def test_batches_become_one_array(tmp_path, capsys):
    path, maker = tmp_path / "set.npy", Maker()
    write_batches(path, maker.batches(), "set")
    written = np.load(path)
    assert written.dtype == np.uint8
    np.testing.assert_array_equal(written, maker.images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.npy"]
    assert capsys.readouterr().out == ""  # quick work needs no progress
    content = path.read_bytes()
    write_batches(path, maker.batches(), "set")
    assert maker.made == [0, 1, 2] and path.read_bytes() == content


def write_killed(path: Path, killed_at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_batches(path, Maker(killed_at).batches(), "set")


def test_batches_made_before_a_kill_are_not_made_again(tmp_path, capsys):
    write_batches(tmp_path / "straight.npy", Maker().batches(), "set")
    path, maker = tmp_path / "killed.npy", Maker()
    write_killed(path, killed_at=2)
    assert not path.exists()
    write_batches(path, maker.batches(), "set")
    assert maker.made == [2]
    assert path.read_bytes() == (tmp_path / "straight.npy").read_bytes()
    assert capsys.readouterr().out == "set: going on from batch 2 of 3\n"


def test_a_kill_while_parts_are_joined_loses_nothing(tmp_path, monkeypatch):
    path, maker = tmp_path / "set.npy", Maker()
    load = np.load

    def killed(path, mmap_mode=None):
        """Shapes are read first, and then one part after the other is copied."""
        if mmap_mode is None:
            raise KeyboardInterrupt
        return load(path, mmap_mode)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(arrays.np, "load", killed)
        write_batches(path, maker.batches(), "set")
    assert not path.exists()
    write_batches(path, maker.batches(), "set")
    assert maker.made == [0, 1, 2]
    np.testing.assert_array_equal(np.load(path), maker.images)


def test_long_work_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(arrays, "PAUSE", 0.0)
    write_batches(tmp_path / "set.npy", Maker().batches(), "set")
    assert capsys.readouterr().out.splitlines() == ["set 1/3", "set 2/3", "set 3/3"]


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*set\.npy\.parts.* move it away"):
        write_batches(tmp_path / "run/set.npy", Maker().batches(), "set")
