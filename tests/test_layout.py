"""What a folder of pictures has beside its classes, or in place of them, is told of."""

import os
from pathlib import Path

import pytest

from tests.class_folders import folder_source, save


@pytest.fixture
def classes(tmp_path) -> Path:
    """Two classes of three images each."""
    for number in range(6):
        save(tmp_path / "pictures" / ("cat", "dog")[number % 2] / f"{number}.png", number)
    return tmp_path / "pictures"


def test_pictures_in_no_class_are_counted(classes, capsys):
    for number in range(3):
        save(classes / f"{number}.png", number)
    (classes / "notes.txt").touch()
    assert len(folder_source(classes).items) == 6
    assert "3 pictures beside the class folders of" in capsys.readouterr().out
    os.rename(classes, classes.with_name("train"))
    assert len(folder_source(classes.parent).items) == 6  # of `train`, where the same lie
    assert "3 pictures beside the class folders of" in capsys.readouterr().out


def test_a_folder_one_too_high_is_said_to_be_one_class(classes, capsys):
    upper = classes.parent / "upper"
    upper.mkdir()
    os.rename(classes, upper / "pictures")
    assert folder_source(upper).class_names == ["pictures"]
    assert f"all pictures are of one class, {upper / 'pictures'}; give" in capsys.readouterr().out
