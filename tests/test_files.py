"""Whole-or-not-at-all writes, hashes, and the run directories that are keyed by them."""

import errno
import json
import os
from pathlib import Path

import pytest

from pipeline.runtime.dag import flatten, stage_key
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import (
    atomic_file,
    atomic_folder,
    file_hash,
    publish_folder,
    read_json,
    tree_hash,
    value_hash,
    write_csv,
    write_json,
)
from pipeline.runtime.runs import run_dir
from pipeline.runtime.seeds import generator, mix


class Interrupted(BaseException):
    """As KeyboardInterrupt: not an Exception."""


def names(folder) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_interrupted_file_keeps_the_old_content(tmp_path, error):
    path = tmp_path / "deep" / "file.txt"
    with pytest.raises(error), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert names(path.parent) == []
    path.write_text("old")
    with pytest.raises(error), atomic_file(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise error
    assert names(path.parent) == ["file.txt"] and path.read_text() == "old"


def test_finished_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == ["file.txt"] and path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_interrupted_folder_keeps_the_old_content(tmp_path, error):
    path = tmp_path / "folder"
    with pytest.raises(error), atomic_folder(path) as temporary:
        (temporary / "a").write_text("half")
        raise error
    assert names(tmp_path) == []
    path.mkdir()
    (path / "a").write_text("old")
    with pytest.raises(error), atomic_folder(path) as temporary:
        (temporary / "a").write_text("half")
        raise error
    assert names(tmp_path) == ["folder"] and (path / "a").read_text() == "old"


def test_finished_folder_replaces_all_of_the_old_one(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "left over").write_text("old")
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("new")
    assert names(tmp_path) == ["folder"] and names(path) == ["a"]


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_unwritable_place_is_one_line(tmp_path, atomic):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="cannot write") as error, atomic(tmp_path / "file" / "x"):
        pass
    assert "\n" not in str(error.value)


def test_full_disk_is_one_line_and_keeps_the_old_content(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UserError, match="No space left") as error, atomic_file(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert str(path) in str(error.value)
    assert names(tmp_path) == ["file"] and path.read_text() == "old"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_published_folder_moves_from_any_file_system(tmp_path, monkeypatch, elsewhere):
    source, target = tmp_path / "runs/made", tmp_path / "data/images"
    source.mkdir(parents=True)
    (source / "new").write_text("new")
    target.mkdir(parents=True)
    (target / "old").write_text("old")
    if elsewhere:
        rename = os.rename

        def refuse(a, b, **options):
            if Path(a) == source:
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            rename(a, b, **options)

        monkeypatch.setattr("os.rename", refuse)
    publish_folder(source, target)
    assert [path.name for path in target.iterdir()] == ["new"] and not source.exists()
    assert [path.name for path in target.parent.iterdir()] == ["images"]


def test_tree_hash_sees_names_and_contents(tmp_path):
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "a").write_text("1")
    (root / "sub" / "b").write_text("2")
    hashes = [tree_hash(root)]

    (root / "sub" / "b").write_text("3")
    hashes.append(tree_hash(root))
    (root / "sub" / "b").rename(root / "sub" / "c")
    hashes.append(tree_hash(root))
    (root / "sub" / "c").rename(root / "c")
    hashes.append(tree_hash(root))
    (root / "d").write_text("")
    hashes.append(tree_hash(root))
    assert len(set(hashes)) == len(hashes)

    (root / "d").unlink()
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "a.pyc").write_text("x")
    os.utime(root / "a", (0, 0))
    assert tree_hash(root) == hashes[3]  # neither byte code nor times matter


def test_tree_hash_of_a_folder_with_a_manifest_is_the_manifests(tmp_path):
    write_json(tmp_path / "manifest.json", {"shards": [{"hash": "x"}]})
    before = tree_hash(tmp_path)
    (tmp_path / "other").write_text("x")
    assert tree_hash(tmp_path) == before == file_hash(tmp_path / "manifest.json")
    write_json(tmp_path / "manifest.json", {"shards": [{"hash": "y"}]})
    assert tree_hash(tmp_path) != before


def test_tree_hash_of_a_file_and_of_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert tree_hash(tmp_path / "a") == file_hash(tmp_path / "a") == known
    with pytest.raises(UserError, match="is missing"):
        tree_hash(tmp_path / "b")


def test_value_hash_ignores_key_order_only():
    assert value_hash({"a": 1, "b": 2}) == value_hash({"b": 2, "a": 1})
    assert value_hash([1, 2]) != value_hash([2, 1])
    assert value_hash({"a": 1}) != value_hash({"a": "1"})


def test_read_json_errors_are_one_line(tmp_path):
    write_json(tmp_path / "good.json", {"b": 1, "a": [1.5, None]})
    assert read_json(tmp_path / "good.json") == {"b": 1, "a": [1.5, None]}
    (tmp_path / "bad.json").write_text('{"a": ')
    for name, words in (("bad.json", "not valid JSON"), ("none.json", "is missing")):
        with pytest.raises(UserError, match=words) as error:
            read_json(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_write_csv(tmp_path):
    write_csv(tmp_path / "t.csv", [{"a": 1, "b": 1 / 3}, {"a": 2, "b": 1e-7}])
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,0.3333333333\n2,1e-07\n"


# --- run directories ------------------------------------------------------------------------------

DVC = """
stages:
  train:
    cmd: python train.py
    deps: [code.py, inputs]
    params: [seed, training, data.size]
"""
PARAMS = """
seed: 0
training: {lr: 1e-3, steps: 10}
data: {size: 8, flip: true}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").write_text(DVC)
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "x").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_stage_key_holds_what_dvc_watches(project):
    key = stage_key("train")
    assert key["params"] == {"seed": 0, "training.lr": 1e-3, "training.steps": 10, "data.size": 8}
    assert set(key["deps"]) == {"code.py", "inputs"}
    assert "training.steps" not in stage_key("train", ignore=["training.steps"])["params"]
    assert set(stage_key("train", ignore=["training", "dat"])["params"]) == {"seed", "data.size"}


def test_stage_key_holds_the_content_of_files_that_params_name(project):
    (project / "dvc.yaml").write_text(DVC.replace("data.size", "evaluation"))
    text = PARAMS + "evaluation: {vgg_weights: null, reference_statistics: reference.npz}"
    (project / "params.yaml").write_text(text)
    keys = [stage_key("train")]
    for content in ("one", "two"):
        (project / "reference.npz").write_text(content)
        keys.append(stage_key("train"))
    assert keys[0] != keys[1] != keys[2]
    ignored = [stage_key("train", ignore=["evaluation"])]
    (project / "reference.npz").unlink()
    assert ignored == [stage_key("train", ignore=["evaluation"])]


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("params.yaml", "lr: 1e-3", "lr: 0.001", True),
        ("params.yaml", "flip: true", "flip: false", True),
        ("params.yaml", "lr: 1e-3", "lr: 2e-3", False),
        ("params.yaml", "seed: 0", "seed: 1", False),
        ("code.py", "1", "2", False),
        ("inputs/x", "x", "y", False),
    ],
)
def test_run_dir_changes_with_what_the_run_depends_on(project, file, old, new, same):
    before = run_dir("train", stage_key("train"))
    assert before.is_absolute() and json.loads((before / "key.json").read_text())
    path = project / file
    path.write_text(path.read_text().replace(old, new))
    assert (run_dir("train", stage_key("train")) == before) == same


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": [2],
        "e": None,
    }


def test_seeds_are_named_by_all_their_parts():
    seeds = [mix(0), mix(1), mix(0, "a"), mix("0"), mix("a", 0), mix(0, "a", 1)]
    assert len(set(seeds)) == len(seeds) and all(0 <= s < 2**63 for s in seeds)
    assert generator(0, "a").initial_seed() == mix(0, "a")
