"""Sources of images: the digits and folders; broken ones are named."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.images.crops import center_crop
from pipeline.data.images.opening import decode_image
from pipeline.prepare.datasets import open_source
from pipeline.prepare.split import stratified_split
from pipeline.runtime.errors import UserError
from tests.errors import one_line
from tests.images import noise_image


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def folder_source(root: Path):
    return open_source(f"folder:{root}", str(root / "downloads"), 28)


def test_mnist5k_is_balanced_and_reads():
    source = open_source("mnist5k", "nowhere", 28)
    assert source.class_names == [str(d) for d in range(10)]
    assert np.bincount([item.label for item in source.items]).tolist() == [500] * 10
    assert len({item.key for item in source.items}) == 5000
    image = decode_image(source.read(17), channels=1)
    assert image.size == (28, 28) and image.mode == "L" and np.asarray(image).max() > 100


def test_folder_with_a_split_of_its_own(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                image = noise_image(8, 8, seed=i + 10 * (split == "val"))
                save(image, tmp_path / split / name / f"{i}.png")
    save(noise_image(8, 8), tmp_path / "train" / "dog" / "nested" / "deeper" / "x.JPG")
    (tmp_path / "train" / "dog" / "notes.txt").write_text("no image")
    source = folder_source(tmp_path)
    assert source.class_names == ["cat", "dog"]
    keys = [item.key for item in source.items if item.split == "train" and item.label == 1]
    assert keys == [
        "train/dog/0.png",
        "train/dog/1.png",
        "train/dog/2.png",
        "train/dog/nested/deeper/x.JPG",
    ]
    split = stratified_split(source, 0.5, seed=0)
    assert {name: len(indices) for name, indices in split.items()} == {"train": 7, "val": 4}
    assert all(source.items[i].split == name for name in split for i in split[name])


def test_test_folder_serves_as_validation(tmp_path):
    for seed, split in enumerate(("train", "test")):
        save(noise_image(8, 8, seed=seed), tmp_path / split / "a" / "0.png")
    assert {item.split for item in folder_source(tmp_path).items} == {"train", "val"}


def test_train_folder_alone_is_not_taken_for_a_class(tmp_path):
    for name, seeds in {"cat": (0, 1), "dog": (2, 3)}.items():
        for i in seeds:
            save(noise_image(8, 8, seed=i), tmp_path / "train" / name / f"{i}.png")
    assert folder_source(tmp_path).class_names == ["cat", "dog"]


def test_folder_without_a_split(tmp_path):
    for name, count in (("b", 5), ("a", 4)):
        for i in range(count):
            save(noise_image(8, 8, seed=i), tmp_path / name / f"{i}.png")
    source = folder_source(tmp_path)
    assert source.class_names == ["a", "b"]
    assert [item.label for item in source.items] == [0] * 4 + [1] * 5
    assert all(item.split is None for item in source.items)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["rgb", "grey", "palette", "rgba", "one_bit", "odd", "cmyk"])
def test_every_kind_of_image_becomes_grey_or_rgb(tmp_path, kind, channels):
    image = {
        "rgb": noise_image(20, 20),
        "grey": noise_image(20, 20, "L"),
        "palette": noise_image(20, 20).quantize(16),
        "rgba": noise_image(20, 20).convert("RGBA"),
        "one_bit": noise_image(20, 20, "L").convert("1"),
        "odd": noise_image(33, 7),
        "cmyk": noise_image(20, 20).convert("CMYK"),
    }[kind]
    save(image, tmp_path / "a" / ("0.jpg" if kind == "cmyk" else "0.png"))
    content = folder_source(tmp_path).read(0)
    decoded = decode_image(content, channels)
    assert decoded.mode == ("L" if channels == 1 else "RGB") and decoded.size == image.size
    assert center_crop(decoded, 16).size == (16, 16)


def test_a_folder_whose_images_were_written_again_is_another_version(tmp_path):
    path = tmp_path / "a" / "0.png"
    save(noise_image(32, 32), path)
    version = folder_source(tmp_path).version
    assert folder_source(tmp_path).version == version
    os.utime(path, ns=(0, 1))
    assert folder_source(tmp_path).version != version


def test_broken_files_are_named(tmp_path):
    good = tmp_path / "a" / "0.png"
    save(noise_image(32, 32), good)
    (tmp_path / "a" / "1.png").write_bytes(good.read_bytes()[:400])
    (tmp_path / "a" / "2.png").write_text("this is text")
    save(noise_image(64, 64), tmp_path / "a" / "3.jpg")
    jpeg = tmp_path / "a" / "3.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:-800])
    (tmp_path / "a" / "4.png").write_bytes(b"")
    (tmp_path / "a" / "5.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "a" / "6.png").mkdir()
    source = folder_source(tmp_path)
    assert source.read(0) == good.read_bytes()
    bad = "truncated or not an image"
    words = {"1.png": bad, "2.png": bad, "3.jpg": bad, "4.png": bad}
    words |= {"5.png": "broken link", "6.png": "a folder, not a regular"}
    for index, name in enumerate(words, 1):
        with pytest.raises(UserError, match=words[name]) as error:
            source.read(index)
        assert str(tmp_path / "a" / name) in one_line(error)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist") as error:
        folder_source(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in one_line(error)
    with pytest.raises(UserError, match="has no class folders") as error:
        folder_source(tmp_path)
    assert str(tmp_path) in one_line(error)
    save(noise_image(8, 8), tmp_path / "full" / "0.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no images") as error:
        folder_source(tmp_path)
    assert str(tmp_path / "empty") in one_line(error)


def test_validation_class_unknown_to_training_is_named(tmp_path):
    for place in ("train/a", "val/a", "val/b"):
        save(noise_image(8, 8), tmp_path / place / "0.png")
    with pytest.raises(UserError, match=r"\['b'\]") as error:
        folder_source(tmp_path)
    assert str(tmp_path / "val") in one_line(error)


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_held_out_folder_without_train_is_named(tmp_path, held_out):
    save(noise_image(8, 8), tmp_path / held_out / "a" / "0.png")
    with pytest.raises(UserError, match=f"{held_out}/ and no train/") as error:
        folder_source(tmp_path)
    assert str(tmp_path) in one_line(error)
