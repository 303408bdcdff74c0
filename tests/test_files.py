"""Whole-or-not-at-all writes, and hashes."""

import errno
import os
from pathlib import Path

import pytest

from pipeline.runtime import folders
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import (
    IGNORED,
    atomic_file,
    file_hash,
    read_json,
    tree_hash,
    value_hash,
    write_csv,
    write_json,
    write_text,
)
from pipeline.runtime.folders import atomic_folder, publish_folder
from tests.project import ROOT


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


def test_a_folder_that_may_not_be_replaced_stays_though_it_was_not_there_before(tmp_path):
    """`new/../kept` is no folder as long as `new` is none, which is made with the temporary one."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/a").write_text("old")
    path = tmp_path / "new/../kept"
    assert not path.exists()
    with (
        pytest.raises(UserError, match="kept is there already; give a new folder"),
        atomic_folder(path, lambda folder: False) as temporary,
    ):
        (temporary / "b").write_text("new")
    assert names(tmp_path / "kept") == ["a"]
    with atomic_folder(path, lambda folder: names(folder) == ["a"]) as temporary:
        (temporary / "b").write_text("new")
    assert names(tmp_path / "kept") == ["b"]


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
        replace = os.replace

        def refuse(a, b, **options):
            if Path(a) == source:
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            replace(a, b, **options)

        monkeypatch.setattr("os.replace", refuse)
    publish_folder(source, target)
    assert [path.name for path in target.iterdir()] == ["new"] and not source.exists()
    assert [path.name for path in target.parent.iterdir()] == ["images"]


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("error", [Interrupted(), OSError(errno.EDQUOT, "Disk quota exceeded")])
def test_what_fails_on_its_way_to_the_disk_loses_neither_the_old_nor_the_new(
    tmp_path, monkeypatch, elsewhere, error
):
    """As a disk of a network, which may say so when it is waited for alone."""
    source, target = tmp_path / "runs/made", tmp_path / "data/images"
    for folder, name in ((source, "new"), (target, "old")):
        folder.mkdir(parents=True)
        (folder / name).write_text(name)
    replace, to_disk = os.replace, folders.to_disk

    def other_file_system(a, b):
        if elsewhere and Path(a) == source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(a, b)

    def full(path):
        if not elsewhere or ".tmp" in str(path):
            raise error
        to_disk(path)

    monkeypatch.setattr("os.replace", other_file_system)
    monkeypatch.setattr(folders, "to_disk", full)
    with pytest.raises((Interrupted, UserError)):
        publish_folder(source, target)
    assert names(source) == ["new"] and names(target) == ["old"]
    assert names(target.parent) == ["images"]
    monkeypatch.setattr(folders, "to_disk", to_disk)
    monkeypatch.setattr("os.replace", lambda a, b: full(".tmp") if a == source else replace(a, b))
    with pytest.raises((Interrupted, UserError)):
        publish_folder(source, target)  # the name itself cannot be given
    assert names(source) == ["new"] and names(target) == ["old"]
    assert names(target.parent) == ["images"]


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


BESIDE_CODE = ["__pycache__/a.cpython-312.pyc", ".DS_Store", "sub/Thumbs.db", ".a.py.swp"]
BESIDE_CODE += ["sub/a.py~", ".#a.py", ".ipynb_checkpoints/a.ipynb", ".nfs0001"]


def test_what_others_put_beside_code_is_no_code_to_us_nor_to_dvc(tmp_path):
    from pathspec import PathSpec

    lines = (ROOT / ".dvcignore").read_text().splitlines()
    patterns = [line.removesuffix("/") for line in lines if line and line[:2] != "# "]
    assert patterns == list(IGNORED)
    dvc = PathSpec.from_lines("gitwildmatch", lines)
    for name in ("a.py", "sub/b.py", "swap.py", "nfs.py"):
        write_text(tmp_path / name, name)
        assert not dvc.match_file(name)
    before = tree_hash(tmp_path)
    for name in BESIDE_CODE:
        assert dvc.match_file(name)
        write_text(tmp_path / name, name)
        assert tree_hash(tmp_path) == before, name


def test_tree_hash_trusts_a_manifest_for_the_files_that_it_names_alone(tmp_path):
    write_json(tmp_path / "manifest.json", {"shards": [{"file": "a.npy", "hash": "x"}]})
    before = tree_hash(tmp_path)
    (tmp_path / "a.npy").write_text("x")
    assert tree_hash(tmp_path) == before == file_hash(tmp_path / "manifest.json")
    write_json(tmp_path / "manifest.json", {"shards": [{"file": "a.npy", "hash": "y"}]})
    assert tree_hash(tmp_path) != before
    hashes = {tree_hash(tmp_path)}
    for labels in ("1", "2"):
        (tmp_path / "npy").write_text(labels)  # a part of a name that is there
        hashes.add(tree_hash(tmp_path))
    assert len(hashes) == 3


def test_tree_hash_of_a_file_and_of_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert tree_hash(tmp_path / "a") == file_hash(tmp_path / "a") == known
    with pytest.raises(UserError, match="is missing"):
        tree_hash(tmp_path / "b")


def test_what_is_no_file_has_no_hash(tmp_path):
    """A pipe would be waited for, and a device never end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "zeros", "folder"):
        with pytest.raises(UserError, match=f"{name} is a .* and not a file"):
            file_hash(tmp_path / name)
    for name in ("pipe", "zeros"):
        with pytest.raises(UserError, match=f"{name} is a .* and not a file"):
            tree_hash(tmp_path / name)
    os.mkfifo(tmp_path / "folder/manifest.json")
    with pytest.raises(UserError, match=r"manifest\.json is a pipe"):
        tree_hash(tmp_path / "folder")
    (tmp_path / "folder/manifest.json").unlink()
    (tmp_path / "folder/manifest.json").write_bytes(b"\xff")
    assert tree_hash(tmp_path / "folder") == file_hash(tmp_path / "folder/manifest.json")


def test_value_hash_ignores_key_order_only():
    assert value_hash({"a": 1, "b": 2}) == value_hash({"b": 2, "a": 1})
    assert value_hash([1, 2]) != value_hash([2, 1])
    assert value_hash({"a": 1}) != value_hash({"a": "1"})


def test_read_json_errors_are_one_line(tmp_path):
    write_json(tmp_path / "good.json", {"b": 1, "a": [1.5, None]})
    assert read_json(tmp_path / "good.json") == {"b": 1, "a": [1.5, None]}
    (tmp_path / "bad.json").write_text('{"a": ')
    (tmp_path / "twice.json").write_text('{"b": [{"a": 1, "a": 1}]}')
    for name, words in (
        ("bad.json", "not valid JSON"),
        ("none.json", "is missing"),
        ("twice.json", r"not valid JSON \(a is in its list twice\); delete it and run again"),
    ):
        with pytest.raises(UserError, match=words) as error:
            read_json(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_write_csv(tmp_path):
    write_csv(tmp_path / "t.csv", [{"a": 1, "b": 1 / 3}, {"a": 2, "b": 1e-7}])
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,0.3333333333\n2,1e-07\n"


def test_a_pipe_or_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a pipe, socket or device"):
        write_text(tmp_path / "pipe", "text")
    assert (tmp_path / "pipe").is_fifo() and len(os.listdir(tmp_path)) == 1
