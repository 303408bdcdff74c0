"""Folders of pictures as people have them: hidden files, links, pipes, names hard to write."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.exhibits.drawing import draw_mosaic
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.writing import write_manifest, write_shards
from pipeline.evaluation.image_files import open_images
from pipeline.prepare.split import stratified_split
from pipeline.runtime.errors import UserError
from tests.class_folders import folder_source, save, two_classes
from tests.errors import one_line

pytestmark = pytest.mark.usefixtures("ends")


@pytest.fixture
def classes(tmp_path) -> Path:
    return two_classes(tmp_path)


def test_what_programs_leave_is_no_class(classes):
    for name in (".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir", "$RECYCLE.BIN", "lost+found"):
        save(classes / name / "0.png", 9)
        save(classes / "cat" / name / "0.png", 9)
    (classes / "cat" / "._0.png").write_bytes(b"\0\5\x16\7")
    source = folder_source(classes)
    assert source.class_names == ["cat", "dog"] and len(source.items) == 6


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test", "Val", "VALIDATION"])
@pytest.mark.parametrize("train", ["train", "Training"])
def test_splits_have_many_names(tmp_path, name, train):
    save(tmp_path / train / "a" / "0.png", 0)
    save(tmp_path / name / "a" / "0.png", 1)
    source = folder_source(tmp_path)
    assert source.class_names == ["a"]
    assert [item.split for item in source.items] == ["train", "val"]


def test_folders_beside_the_splits_are_told(tmp_path, capsys):
    for seed, name in enumerate(("train", "val", "dev", "test", ".cache")):
        save(tmp_path / name / "a" / "0.png", seed)
    folder_source(tmp_path)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"data.source: dev, test in {tmp_path} passed over, beside train and val"


@pytest.mark.parametrize("name", ["train", "Training"])
def test_folders_beside_the_only_split_are_told(tmp_path, capsys, name):
    for seed, place in enumerate((f"{name}/steam", f"{name}/diesel", "plane/jet")):
        for i in range(2):
            save(tmp_path / place / f"{i}.png", 10 * seed + i)
    assert folder_source(tmp_path).class_names == ["diesel", "steam"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"data.source: plane in {tmp_path} passed over, beside {name}"


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (["x/train/a", "x/val/a"], "x has splits of its own .*; give that folder"),
        (["x/Train/a"], "x has splits of its own .*; give that folder"),
        (["cat/train", "cat/test", "dog/train", "dog/test"], "or put the splits above the classes"),
        (["train", "plane", "bus"], r"train has no class folders \(it is taken for a split"),
        (["test", "real"], "has test/ and no train/; add it, or rename test/ if it is a class"),
        ([" "], "has a blank name; rename it"),
        (["q\n", "q\\n"], r"2 names in .* are shown as q\\n; rename one"),
        (["caf\u00e9", "cafe\u0301"], "2 names in .* are shown as caf\u00e9; rename one"),
        (["train/caf\u00e9", "val/cafe\u0301"], r"composed otherwise than in train .* rename one"),
        (["train/a", "train/b", "val/a"], "val has no class folder b, which train has; add it"),
    ],
)
def test_folders_that_are_not_what_they_seem(tmp_path, places, words):
    for number, place in enumerate(places):
        save(f"{tmp_path}/{place}/{number}.png", number)
    with pytest.raises(UserError, match=words) as error:
        folder_source(tmp_path)
    one_line(error)


def test_pictures_whose_keys_would_be_the_same_are_refused(classes):
    for name in ("x\n.png", "x\\n.png"):
        save(classes / "cat" / name, 9)
    with pytest.raises(UserError, match=r"2 names in .* are shown as cat/x\\n\.png; rename one"):
        folder_source(classes)


@pytest.mark.parametrize("place", ["cat/train", "cat/val", "cat/2020/trains"])
def test_a_folder_in_a_class_may_have_the_name_of_a_split(classes, place):
    save(classes / place / "0.png", 9)
    assert len(folder_source(classes).items) == 7


def test_two_folders_of_one_split_are_refused(tmp_path):
    for seed, name in enumerate(("train", "val", "valid")):
        save(tmp_path / name / "a" / "0.png", seed)
    with pytest.raises(UserError, match=r"val/ and valid/.*keep one") as error:
        folder_source(tmp_path)
    one_line(error)


def test_what_is_skipped_is_counted_by_kind(classes, capsys):
    for name in ("a.heic", "b.HEIC", "c", "d.eps", "e.txt", ".hidden"):
        (classes / "cat" / name).write_text("x")
    (classes / "gone").symlink_to(classes / "nowhere")
    (classes / "circle").symlink_to(classes / "circle")
    assert len(folder_source(classes).items) == 6
    said = capsys.readouterr().out
    assert "8 files skipped" in said and said.count("\n") == 1
    assert "2 broken links in the place of classes" in said
    for kind in ("2 .heic", "1 without a suffix", "1 .eps", "1 .txt", "1 hidden"):
        assert kind in said


def test_a_class_of_unread_formats_says_so(classes):
    (classes / "bird").mkdir()
    (classes / "bird" / "a.heic").write_text("x")
    with pytest.raises(UserError, match=r"bird has no images \(only .heic\); add some, converted"):
        folder_source(classes)


def test_validation_with_the_images_of_training_is_refused(tmp_path, capsys):
    for number in range(3):
        save(tmp_path / "train" / "a" / f"{number}.png", number)
        save(tmp_path / "val" / "a" / f"other-{number}.png", number)
    with pytest.raises(UserError, match="same images as training; give it others") as error:
        folder_source(tmp_path)
    one_line(error)
    save(tmp_path / "val" / "a" / "own.png", 9)
    assert len(folder_source(tmp_path).items) == 7
    assert "3 of 4 validation images" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["fifo", "device", "large"])
def test_what_is_no_file_is_named_and_not_opened(classes, what):
    path = classes / "cat" / "a.png"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        with open(path, "wb") as handle:
            handle.truncate(2**40)
    source = folder_source(classes)
    index = [item.key for item in source.items].index("cat/a.png")
    why = "limit of 134,217,728|device or pipe"
    with pytest.raises(UserError, match=why) as error:
        source.read(index)
    assert f"data.source: {path}" in one_line(error)


@pytest.mark.parametrize("what", ["fifo", "long", "missing"])
def test_a_folder_that_is_none(tmp_path, what):
    path = tmp_path / "x"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "long":
        path = tmp_path / ("x" * 300)
    with pytest.raises(UserError, match=r"data\.source: ") as error:
        folder_source(path)
    assert len(one_line(error)) < 400


STRANGE = [
    b"new\nline",
    b"\xff\xfe bytes",
    "日本".encode(),
    b"$\\frac$",
    b"<b>&",
    b"a\\b",
    b"-rf *",
]


@pytest.fixture
def strange(tmp_path) -> Path:
    """A class for each strange name, with a file of that name; and one 600 characters down."""
    root = os.fsencode(tmp_path / "strange")
    for number, name in enumerate(STRANGE):
        for i in range(2):
            save(os.path.join(root, name, b"%d " % i + name + b".png"), 10 * number + i)
    deep = os.path.join(root, STRANGE[0], *[b"d" * 200] * 3)
    save(os.path.join(deep, b"x.png"), 99)
    return tmp_path / "strange"


def test_strange_names_reach_shards_manifest_and_figures(strange, tmp_path):
    source = folder_source(strange)
    assert set(source.class_names) == {
        "new\\nline", "\\udcff\\udcfe bytes", "日本", "$\\frac$", "<b>&", "a\\b", "-rf *",
    }  # fmt: skip
    splits, folder = stratified_split(source, 0.4, seed=0), tmp_path / "shards"
    folder.mkdir()
    shards = {split: write_shards(source, i, split, 64, folder) for split, i in splits.items()}
    write_manifest(folder, source.class_names, "folder:x", shards)
    json.loads((folder / "manifest.json").read_text())
    images = ImageShards(folder, "train")
    keys = [images.read(index)[0] for index in range(len(images))]
    assert images.class_names == source.class_names and len(set(keys)) == len(keys)
    assert any(len(key) > 600 for key in [*keys, *(item.key for item in source.items)])
    pictures = np.zeros((7, 1, 8, 8, 1), np.uint8)
    path = tmp_path / "figure.png"
    with warnings.catch_warnings(action="error"):  # one for each letter that no font has
        draw_mosaic(pictures, path, 50, row_labels=images.class_names)
    with Image.open(path) as drawn:
        assert min(drawn.size) > 10


def test_a_broken_file_of_a_strange_name_is_one_line(tmp_path):
    place = os.path.join(os.fsencode(tmp_path), b"a", b"x\n\xff\x1b[31m" + b"y" * 200 + b".png")
    save(place)
    with open(place, "wb") as handle:
        handle.write(b"no picture")
    with pytest.raises(UserError) as error:
        folder_source(tmp_path).read(0)
    line = one_line(error)
    assert line.isprintable() and len(line) < 400


@pytest.mark.parametrize("what", ["fifo", "device", "folder"])
def test_image_sets_open_files_only(tmp_path, what):
    folder = tmp_path / "set"
    save(folder / "0.png")
    for name in ("set/1.png", "set.npy", "set.npz"):
        path = tmp_path / name
        if what == "fifo":
            os.mkfifo(path)
        elif what == "device":
            path.symlink_to("/dev/zero")
        elif name == "set/1.png":
            path.mkdir()
        else:
            continue
        with pytest.raises(UserError, match=r"not a regular file") as error:
            open_images(folder if name == "set/1.png" else path)
        one_line(error)
