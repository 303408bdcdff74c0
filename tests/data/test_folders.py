"""Folders of pictures as `data.source`: splits, classes, and what is refused or skipped."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.images.pixels import decode_image
from pipeline.data.images.shards import ImageShards, write_manifest, write_shards
from pipeline.prepare.datasets import open_source
from pipeline.prepare.pictures import FORMATS
from pipeline.prepare.split import stratified_split
from pipeline.runtime.errors import UserError
from tests.images import noise_image


def save(place: Path | str | bytes, seed: int = 0) -> None:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "wb") as file:
        noise_image(8, 8, seed=seed).save(file, "PNG")


def folder_source(root: Path):
    return open_source(f"folder:{root}", "nowhere", 28)


@pytest.fixture
def classes(tmp_path) -> Path:
    """Two classes of three images each."""
    for number in range(6):
        save(tmp_path / "pictures" / ("cat", "dog")[number % 2] / f"{number}.png", number)
    return tmp_path / "pictures"


def test_mnist5k_is_balanced_and_read():
    source = open_source("mnist5k", "nowhere", 28)
    assert source.class_names == [str(d) for d in range(10)]
    assert np.bincount([item.label for item in source.items]).tolist() == [500] * 10
    assert len({item.key for item in source.items}) == 5000
    image = decode_image(source.read(17), channels=1)
    assert image.size == (28, 28) and image.mode == "L" and np.asarray(image).max() > 100


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "test", "TEST"])
@pytest.mark.parametrize("train", ["train", "Training"])
def test_splits_have_many_names(tmp_path, name, train):
    save(tmp_path / train / "a/0.png", 0)
    save(tmp_path / train / "a/inner/deeper/x.PNG", 2)
    save(tmp_path / name / "a/0.png", 1)
    source = folder_source(tmp_path)
    assert source.class_names == ["a"]
    assert [(item.key, item.split) for item in source.items] == [
        (f"{train}/a/0.png", "train"),
        (f"{train}/a/inner/deeper/x.PNG", "train"),
        (f"{name}/a/0.png", "val"),
    ]
    assert source.read(0) == (tmp_path / train / "a/0.png").read_bytes()


@pytest.mark.parametrize("above", ["", "train"])
def test_a_folder_without_validation_has_no_split(classes, tmp_path, above):
    if above:
        os.rename(classes, tmp_path / above)
        classes = tmp_path
    source = folder_source(classes)
    assert source.class_names == ["cat", "dog"]
    assert [item.label for item in source.items] == [0, 0, 0, 1, 1, 1]
    assert {item.split for item in source.items} == {None}


def test_hidden_files_are_skipped_and_others_counted(classes, capsys):
    for name in (".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir", "$RECYCLE.BIN", "lost+found"):
        save(classes / name / "0.png", 9)
        save(classes / "cat" / name / "0.png", 9)
    (classes / "cat/._0.png").write_bytes(b"\0\5\x16\7")
    assert len(folder_source(classes).items) == 6
    assert capsys.readouterr().out == ""
    for name in ("a.txt", "b.TXT", "c"):
        (classes / "cat" / name).write_text("x")
    (classes / "cat/round").symlink_to(classes)
    assert len(folder_source(classes).items) == 6
    said = capsys.readouterr().out
    assert all(kind in said for kind in ("2 .txt", "1 without a suffix", "1 linked folders"))


@pytest.mark.parametrize("name", ["a.tif", "a.jp2", "a.HEIC", "a.psd"])
def test_unsupported_formats_are_refused_with_their_names(classes, name):
    if name == "a.HEIC" and "HEIF" in FORMATS:
        pytest.skip("the extra heif is installed")
    for number in range(5):
        (classes / "cat" / f"{number}{name}").write_text("x")
    with pytest.raises(UserError, match=rf"^data\.source: 5 pictures .*0{name}, ") as error:
        folder_source(classes)
    assert ("pillow-heif" if name == "a.HEIC" else "PNG or JPEG") in error.value.way_out


@pytest.mark.parametrize(
    ("places", "word"),
    [
        ([], "no class folders"),
        (["train/0.png"], "no class folders"),
        (["a/0.png", "b/"], "no pictures"),
        (["val/a/0.png"], "no train/"),
        (["test/a/0.png", "real/a/0.png"], "no train/"),
        (["train/a/0.png", "val/b/1.png"], r"different classes: \['a', 'b'\]"),
        (["train/a/0.png", "train/b/1.png", "val/a/2.png"], r"different classes: \['b'\]"),
        (["train/a/0.png", "val/a/1.png", "valid/a/2.png"], "same split"),
        (["train/a/0.png", "train/a/1.png", "val/a/2.png", "val/a/3.png"], "same pictures"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(tmp_path, places, word):
    for number, place in enumerate(places):
        if place.endswith("/"):
            (tmp_path / place).mkdir()
        else:
            save(tmp_path / place, number % 2)
    with pytest.raises(UserError, match=word) as error:
        folder_source(tmp_path)
    assert error.value.subject == "data.source" and str(tmp_path) in error.value.reason


@pytest.mark.parametrize("what", ["missing", "file", "long", "closed"])
def test_a_folder_that_cannot_be_read_is_refused(classes, monkeypatch, what):
    root = classes / {"missing": "x", "file": "cat/0.png", "long": "x" * 300, "closed": ""}[what]
    if what == "closed":
        scandir = os.scandir

        def refusing(path):
            if Path(path) == classes / "cat":
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)
        root = classes
    with pytest.raises(UserError) as error:
        folder_source(root)
    assert error.value.subject == "data.source"
    assert what == "long" or str(classes) in str(error.value)  # a long path is cut in the message


def test_a_few_validation_pictures_that_are_training_pictures_are_told(tmp_path, capsys):
    for number in range(3):
        save(tmp_path / "train/a" / f"{number}.png", number)
        save(tmp_path / "val/a" / f"other-{number}.png", number + 1)
    assert len(folder_source(tmp_path).items) == 6
    assert "2 of 3 validation pictures" in capsys.readouterr().out


def test_odd_names_reach_shards_and_manifest(tmp_path):
    root, names = os.fsencode(tmp_path / "odd"), [b"new\nline", b"\xff\xfe", "日本".encode(), b"<&"]
    for number, name in enumerate(names):
        for i in range(2):
            save(os.path.join(root, name, b"%d " % i + name + b".png"), 10 * number + i)
    source = folder_source(tmp_path / "odd")
    assert set(source.class_names) == {"new\\nline", "\\udcff\\udcfe", "日本", "<&"}
    splits, folder = stratified_split(source, 0.4, seed=0), tmp_path / "shards"
    shards = {split: write_shards(source, i, split, 64, folder) for split, i in splits.items()}
    write_manifest(folder, source.class_names, "folder:x", shards)
    json.loads((folder / "manifest.json").read_text())
    keys = [ImageShards(folder, "train").read(index)[0] for index in range(4)]
    assert len(set(keys)) == 4 and all(key.isprintable() for key in keys)


def test_a_folder_whose_pictures_were_written_again_is_another_version(classes):
    version = folder_source(classes).version
    assert folder_source(classes).version == version
    os.utime(classes / "cat/0.png", ns=(0, 1))
    assert folder_source(classes).version != version


def test_a_picture_that_went_away_is_named(classes):
    source = folder_source(classes)
    (classes / "cat/0.png").unlink()
    with pytest.raises(UserError) as error:
        source.read(0)
    assert error.value.subject == str(classes / "cat/0.png") and error.value.reason == "missing"
