"""Folders of pictures as `data.source`: splits, classes, refused and skipped files."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from pipeline.data.images.pixels import decode_image
from pipeline.data.images.shards import ImageShards, View, write_manifest, write_shards
from pipeline.prepare.datasets import open_source
from pipeline.runtime.errors import UserError
from pipeline.runtime.limits import PICTURE_FORMATS
from tests.errors import refused
from tests.images import noise_image


def save(place: Path, seed: int = 0) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    noise_image(8, 8, seed=seed).save(place)


def folder_source(root: Path):
    return open_source(f"folder:{root}", "nowhere", 112)


@pytest.fixture
def classes(tmp_path) -> Path:
    """Two classes of three images each."""
    for number in range(6):
        save(tmp_path / "pictures" / ("cat", "dog")[number % 2] / f"{number}.png", number)
    return tmp_path / "pictures"


@pytest.mark.slow  # reading a CSV of 8 MB takes two seconds
def test_mnist5k_is_balanced_and_read():
    source = open_source("mnist5k", "nowhere", 28)
    assert source.class_names == [str(d) for d in range(10)]
    assert np.bincount([item.label for item in source.items]).tolist() == [500] * 10
    assert len({item.key for item in source.items}) == 5000
    image = decode_image(source.read(17), channels=1)
    assert image.size == (28, 28) and image.mode == "L" and np.asarray(image).max() > 100


@pytest.mark.parametrize(
    ("train", "val"), [("train", "val"), ("Training", "valid"), ("TRAIN", "test")]
)
def test_splits_have_many_names(tmp_path, train, val):
    save(tmp_path / train / "a/0.png", 0)
    save(tmp_path / train / "a/inner/deeper/x.PNG", 2)
    save(tmp_path / val / "a/0.png", 1)
    if val != "test":
        save(tmp_path / "test/b/0.png", 3)  # is skipped
    source = folder_source(tmp_path)
    assert source.class_names == ["a"]
    assert [(item.key, item.split) for item in source.items] == [
        (f"{train}/a/0.png", "train"),
        (f"{train}/a/inner/deeper/x.PNG", "train"),
        (f"{val}/a/0.png", "val"),
    ]


@pytest.mark.parametrize("above", ["pictures", "train"])
def test_a_folder_without_validation_has_no_split(classes, tmp_path, above):
    os.rename(classes, tmp_path / above)
    source = folder_source(tmp_path if above == "train" else tmp_path / above)
    assert source.class_names == ["cat", "dog"]
    assert [(item.label, item.split) for item in source.items] == 3 * [(0, None)] + 3 * [(1, None)]


def test_photographs_reach_trainings_in_their_colours(tmp_path, make_params):
    """The photographs are crops of scikit-learn's temple and flower, in folders with unusual names.
    Their sizes cover every way of storing them."""
    pieces, names = {}, {"日本\n": "日本\\n", os.fsdecode(b"\xff<&"): "\\udcff<&"}
    for name, photo in zip(names, load_sample_images().images, strict=True):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number, side in enumerate((40, 64, 65, 80, 200, 300)):
            for kind in ("png", "jpg"):
                piece = pieces[f"{names[name]}/{number}.{kind}"] = photo[50:, 70:][:side, :side]
                place = tmp_path / "photos" / name / f"{number}.{kind}"
                Image.fromarray(piece).save(os.fsencode(place), quality=95)
    source, folder = folder_source(tmp_path / "photos"), tmp_path / "shards"
    shards = {"train": write_shards(source, range(24), "train", 10, folder)}
    write_manifest(folder, source.class_names, "x", shards)
    images, data = ImageShards(folder, "train"), make_params(data={"channels": 3}).data
    shown = View(images, data).centers(range(24)).double().mean(dim=(2, 3))
    assert images.class_names == sorted(names.values(), reverse=True)
    for index, (item, label) in enumerate(zip(source.items, images.labels, strict=True)):
        key, content = images.read(index)
        piece = pieces.pop(key)
        assert key == item.key and images.class_names[label] == key.split("/")[0]
        assert decode_image(content, 3).width == min(len(piece), 112)
        np.testing.assert_allclose(shown[index], piece.mean(axis=(0, 1)), atol=4)
    assert not pieces


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
    assert "2 .txt" in said and "1 without a suffix" in said


@pytest.mark.parametrize("name", ["a.tif", "a.jp2", "a.HEIC"])
def test_unsupported_formats_are_refused_with_their_names(classes, monkeypatch, name):
    monkeypatch.setattr("pipeline.prepare.datasets.FORMATS", PICTURE_FORMATS)  # without the extra
    for number in range(5):
        (classes / "cat" / f"{number}{name}").write_text("x")
    way_out = "pillow-heif" if name == "a.HEIC" else "PNG or JPEG"
    with refused("data.source", way_out=way_out, match=rf": 5 pictures .*0{name}, "):
        folder_source(classes)


@pytest.mark.parametrize(
    ("places", "word"),
    [
        ([], "no class folders"),
        (["0.png"], "not a folder"),
        (["train/0.png"], "no class folders"),
        (["a/0.png", "b/"], "no pictures"),
        (["val/a/0.png"], "no train/"),
        (["test/a/0.png", "real/a/0.png"], "no train/"),
        (["train/a/0.png", "val/b/1.png"], r"different classes: \['a', 'b'\]"),
        (["train/a/0.png", "train/b/1.png", "val/a/2.png"], r"different classes: \['b'\]"),
        (["train/a/0.png", "train/a/1.png", "val/a/2.png", "val/a/3.png"], "also training"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(tmp_path, places, word):
    for number, place in enumerate(places):
        if place.endswith("/"):
            (tmp_path / place).mkdir()
        else:
            save(tmp_path / place, number % 2)
    with refused("data.source", str(tmp_path), match=word):
        folder_source(tmp_path / places[0] if word == "not a folder" else tmp_path)


def test_a_few_validation_pictures_that_are_training_pictures_are_told(tmp_path, capsys):
    for number in range(3):
        save(tmp_path / "train/a" / f"{number}.png", number)
        save(tmp_path / "val/a" / f"other-{number}.png", number + 1)
    assert len(folder_source(tmp_path).items) == 6
    assert "2 of 3" in capsys.readouterr().out


def test_a_folder_whose_pictures_were_written_again_is_another_version(classes):
    version = folder_source(classes).version
    assert folder_source(classes).version == version
    os.utime(classes / "cat/0.png", ns=(0, 1))
    source = folder_source(classes)
    assert source.version != version
    (classes / "cat/0.png").unlink()
    with refused(classes / "cat/0.png", "missing"):
        source.read(0)
    (classes / "cat/0.png").symlink_to("moved away")
    with pytest.raises(UserError, match=r"cat/0\.png cannot be read"):
        folder_source(classes)
