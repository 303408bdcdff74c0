"""Pictures that a folder source cannot see: said, and never left out in silence."""

import os
from pathlib import Path

import pytest

from pipeline.prepare.datasets import open_source
from pipeline.runtime.errors import UserError
from tests.images import noise_image


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes of three images each, in train/."""
    for number in range(6):
        folder = tmp_path / "pictures/train" / ("cat", "dog")[number % 2] / "inner"
        folder.mkdir(parents=True, exist_ok=True)
        noise_image(8, 8, seed=number).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def folder_source(root: Path):
    return open_source(f"folder:{root}", "nowhere", 28)


@pytest.mark.parametrize("place", ["train/cat", "train/cat/inner"])
def test_a_folder_that_may_not_be_read_is_named(root, monkeypatch, place):
    closed, scandir = root / place, os.scandir

    def refusing(path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match=rf"^data\.source: {closed} cannot be read \(Permission"):
        folder_source(root)


def test_folders_in_too_many_others_are_a_line(root, monkeypatch):
    def endless(*arguments, **options):
        raise RecursionError

    monkeypatch.setattr(os, "walk", endless)
    with pytest.raises(UserError, match="lie in too many others"):
        folder_source(root)


@pytest.mark.parametrize("name", ["val", "Validation", "test"])
def test_a_split_that_is_a_broken_link_is_refused(root, name):
    """As of a disk that is not mounted: validation would be other pictures."""
    (root / name).symlink_to("/nowhere/val")
    with pytest.raises(UserError, match=f"{root / name} is named as a split and is a broken link"):
        folder_source(root)


def test_a_picture_that_goes_away_is_no_broken_link(root):
    source = folder_source(root)
    (root / source.items[0].key).unlink()
    with pytest.raises(UserError, match=r"0\.png was there and is no more; bring it back"):
        source.read(0)
