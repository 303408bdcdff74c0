"""A folder source whose folders are links: to each other, to themselves, into each other."""

import os
import shutil

import pytest

from pipeline.runtime.errors import UserError
from tests.class_folders import folder_source, save, two_classes
from tests.errors import one_line

pytestmark = pytest.mark.usefixtures("ends")


def test_validation_that_is_a_link_to_training_is_refused(tmp_path):
    save(tmp_path / "train" / "a" / "0.png")
    (tmp_path / "val").symlink_to(tmp_path / "train")
    with pytest.raises(UserError, match="same images as training"):
        folder_source(tmp_path)


def test_links_in_a_circle(tmp_path):
    classes = two_classes(tmp_path)
    (classes / "cat" / "round").symlink_to(classes)
    (classes / "ends").symlink_to(classes / "nowhere")
    os.symlink(classes / "x", classes / "y")
    os.symlink(classes / "y", classes / "x")
    assert len(folder_source(classes).items) == 6
    (classes / "everything").symlink_to(classes)
    with pytest.raises(UserError, match=r"everything links back to .*delete the link"):
        folder_source(classes)
    (classes / "everything").unlink()
    (classes / "puss").symlink_to(classes / "cat")
    with pytest.raises(UserError, match="another class's folder too"):
        folder_source(classes)


@pytest.mark.parametrize(
    ("link", "target", "said"),
    [
        ("val/a", "val/b", r"val/b is another class's folder too \(.*val/a\); delete one"),
        ("val/a", "train/b", r"val/a is another class's folder too \(.*train/b\)"),
        ("val/a", "val", r"val/a links back to .*/val; delete the link"),
        ("val/a", "train", r"train/. lies in another class's folder, .*/val/a; delete one"),
        ("train/c", "train/a/sub", r"train/c lies in another class's folder, .*/train/a"),
    ],
)
def test_classes_that_link_to_pictures_of_others_are_refused_in_any_split(
    tmp_path, link, target, said
):
    seeds = iter(range(100))
    for place in ("train/a", "train/b", "train/a/sub", "val/a", "val/b", "val/c"):
        save(tmp_path / place / "0.png", seed=next(seeds))
    if link != "train/c":
        shutil.rmtree(tmp_path / "val/c")
        shutil.rmtree(tmp_path / link)
    (tmp_path / link).symlink_to(tmp_path / target)
    with pytest.raises(UserError, match=said) as error:
        folder_source(tmp_path)
    one_line(error)


def test_a_class_that_links_to_a_hidden_folder_of_another_is_taken(tmp_path):
    classes = two_classes(tmp_path)
    save(classes / "cat/.store/ox/0.png", seed=77)
    (classes / "ox").symlink_to(classes / "cat/.store/ox")
    source = folder_source(classes)
    assert [item.key for item in source.items if item.key.startswith("ox/")] == ["ox/0.png"]
    assert not any("store" in item.key for item in source.items)


def test_a_class_whose_training_folder_has_its_validation_may_be_linked(tmp_path):
    for split, place in (("train", "x"), ("val", "x/held out")):
        save(tmp_path / place / f"{split}.png", seed=len(place))
        (tmp_path / "set" / split).mkdir(parents=True)
        (tmp_path / "set" / split / "a").symlink_to(tmp_path / place)
    with pytest.raises(UserError, match="same images as training"):  # and not for their labels
        folder_source(tmp_path / "set")
