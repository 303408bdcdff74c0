"""Atomic writes, hashes, files that users edit, and files of results."""

import errno
import json
import math
import os
from pathlib import Path

import pandas as pd
import pytest

from analysis.exhibits.results import FILES, read_results
from pipeline.runtime import files
from pipeline.runtime.errors import UserError
from pipeline.runtime.tables import has_param, read_metrics, read_rows
from tests.errors import refused
from tests.project import ROOT


class Interrupted(BaseException):
    """Like KeyboardInterrupt, this class is not an `Exception`."""


FULL = OSError(errno.ENOSPC, "No space left on device")


def content(folder: Path) -> dict[str, str]:
    """Return the text of every file in a folder by name, including hidden files."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


@pytest.mark.parametrize("error", [ValueError("x"), Interrupted(), FULL])
@pytest.mark.parametrize(
    ("atomic", "inside"), [(files.atomic_file, ""), (files.atomic_folder, "a")]
)
def test_a_failed_write_keeps_the_old_content_and_another_replaces_it(
    tmp_path, atomic, inside, error
):
    """This also holds if the path and its parent folder did not exist before."""
    path = tmp_path / "deep/name"
    before: dict[str, str] = {}
    for old in ("", "old"):
        if old:
            files.write_text(path / inside, old)
            before = content(tmp_path)
        with pytest.raises((ValueError, Interrupted, UserError)) as caught, atomic(path) as aside:
            files.write_text(aside / inside, "half")
            raise error
        assert content(tmp_path) == before
        if error is FULL:
            assert caught.value.subject == f"cannot write {path}"
            assert caught.value.reason == "No space left on device"
    with atomic(path) as aside:
        files.write_text(aside / inside, "new")
    assert content(tmp_path) == dict.fromkeys(before, "new")


WRITERS = {
    files.write_text: "x",
    files.write_json: {"a": 1},
    files.write_csv: [{"a": 1}],
    files.write_npz: {"a": [0.0]},
}


@pytest.mark.parametrize("write", WRITERS)
def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, write):
    done = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("on disk"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append(names[1]), rename(*names)))
    write(tmp_path / "content", WRITERS[write])
    assert done.index("on disk") < done.index(tmp_path / "content")


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path):
    kept = ["a.txt", "a.txt.tmp", ".a.txt.tmp", "a.0123abcd.tmp", ".x.0123ABCD.tmp"]
    for name in kept:
        with files.atomic_file(tmp_path / name) as aside:
            aside.write_text("old")
    aside.write_text("half")
    (tmp_path / ".b.89abcdef.tmp").mkdir()
    (tmp_path / ".b.89abcdef.tmp/half").write_text("half")
    assert len(content(tmp_path)) == len(kept) + 2
    files.remove_temporary(tmp_path)
    files.remove_temporary(tmp_path / "nowhere")
    assert content(tmp_path) == dict.fromkeys(kept, "old")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_folder_is_published_whole_or_not_at_all(tmp_path, monkeypatch, elsewhere):
    """The target may be on another file system (`elsewhere`). `to_disk` fails because a network
    file system may report a full disk only at `fsync`."""
    source, target = tmp_path / "runs/made", tmp_path / "data/images"
    files.write_text(source / "new", "new")
    files.write_text(target / "old", "old")
    before = content(tmp_path)

    def other_file_system(old, new):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def full(path):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    if elsewhere:
        monkeypatch.setattr("os.link", other_file_system)
    with monkeypatch.context() as patch:
        patch.setattr(files, "to_disk", full)
        with pytest.raises(UserError, match="Disk quota exceeded"):
            files.publish_folder(source, target)
    assert content(tmp_path) == before
    files.publish_folder(source, target)
    assert content(tmp_path) == {"data/images/new": "new"} and not source.exists()


def test_tree_hash_sees_names_and_contents_and_what_dvc_sees(tmp_path):
    from dvc.ignore import GitIgnoreSpecPattern
    from pathspec import PathSpec

    lines = (ROOT / ".dvcignore").read_text().splitlines()
    patterns = [line.removesuffix("/") for line in lines if line and line[:2] != "# "]
    assert patterns == list(files.IGNORED)
    dvc = PathSpec.from_lines(GitIgnoreSpecPattern, lines)
    hashes = []
    for name, text in [("a", "1"), ("a", "2"), ("sub/b.py", "1"), ("sub/swap.py", ""), ("c", "")]:
        assert not dvc.match_file(name)
        files.write_text(tmp_path / name, text)
        hashes.append(files.tree_hash(tmp_path))
    (tmp_path / "a").rename(tmp_path / "d")
    hashes.append(files.tree_hash(tmp_path))
    assert len(set(hashes)) == len(hashes)
    beside = ["__pycache__/a.cpython-312.pyc", ".DS_Store", "sub/Thumbs.db", ".a.py.swp"]
    for name in [*beside, "sub/a.py~", ".#a.py", ".ipynb_checkpoints/a.ipynb", ".nfs0001"]:
        assert dvc.match_file(name)
        files.write_text(tmp_path / name, name)
    os.utime(tmp_path / "d", (0, 0))
    assert files.tree_hash(tmp_path) == hashes[-1]
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    files.write_text(tmp_path / "abc", "abc")
    assert files.tree_hash(tmp_path / "abc") == files.file_hash(tmp_path / "abc") == known
    with pytest.raises(UserError, match="is missing"):
        files.tree_hash(tmp_path / "nothing")


def test_tree_hash_trusts_a_manifest_for_the_files_that_it_names_alone(tmp_path):
    files.write_json(tmp_path / "manifest.json", {"shards": [{"file": "a.npy", "hash": "x"}]})
    hashes = [files.tree_hash(tmp_path)]
    files.write_text(tmp_path / "a.npy", "x")
    assert [files.tree_hash(tmp_path)] == hashes == [files.file_hash(tmp_path / "manifest.json")]
    files.write_json(tmp_path / "manifest.json", {"shards": [{"file": "a.npy", "hash": "y"}]})
    hashes.append(files.tree_hash(tmp_path))
    files.write_text(tmp_path / "npy", "x")  # a part of a name in the manifest
    hashes.append(files.tree_hash(tmp_path))
    assert len(set(hashes)) == 3


def test_value_hash_ignores_key_order_only():
    assert files.value_hash({"a": 1, "b": 2}) == files.value_hash({"b": 2, "a": 1})
    assert len({files.value_hash(value) for value in ([1, 2], [2, 1], {"a": 1}, {"a": "1"})}) == 4


def test_what_people_name_is_a_regular_file_of_a_size(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name, most in (("pipe", None), ("zeros", None), ("folder", None), ("large", 2)):
        files.write_text(tmp_path / "large", "abc")
        with refused(tmp_path / name):
            files.require_file(tmp_path / name, most)
    files.require_file(tmp_path / "large", 3)
    with pytest.raises(UserError, match="File name too long"):
        files.require_file(tmp_path / ("x" * 300))


def test_json_and_csv_are_read_as_written_and_bad_json_is_one_line(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"b": 1, "a": [1.5, None]})
    assert files.read_json(path, "a") == {"b": 1, "a": [1.5, None]}
    for text, words in (('{"a": ', "not valid JSON"), ("[1]", "has no key"), (None, "is missing")):
        path.unlink() if text is None else path.write_text(text)
        with pytest.raises(UserError, match=f"{path}.*{words}"):
            files.read_json(path, "key")
    files.write_csv(tmp_path / "t.csv", [{"a": 1, "b": 1 / 3}, {"a": 2, "b": 1e-7}])
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,0.3333333333\n2,1e-07\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", 'line 2, column 1: found duplicate key "a"'),
        ("a: [1\nb: 2", "line 2, column 2: expected"),
        ("a: !!python/name:os.system\n", "line 1, column 4: could not determine a constructor"),
        ("a: 2001-99-99", "month must be in 1..12"),
    ],
)
def test_yaml_that_is_not_valid_is_named_with_its_line(tmp_path, text, words):
    (tmp_path / "params.yaml").write_text(text)
    with refused(tmp_path / "params.yaml", words):
        files.read_yaml(tmp_path / "params.yaml")


def test_yaml_is_read_as_dvc_reads_it(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("rate: 1e-4\non: yes\ndefaults: &d {a: 1}\nown: {<<: *d, b: 2}\n")
    values = {"rate": 1e-4, "on": "yes", "defaults": {"a": 1}, "own": {"a": 1, "b": 2}}
    assert files.read_yaml(path) == values
    files.read_yaml(path)["rate"] = 2  # must not change the cached values
    assert files.read_yaml(path) == values
    path.write_bytes(b"a: \xff")
    for text in (None, "- a\n", ""):
        if text is not None:
            path.write_text(text)
        with refused(path):
            files.read_yaml(path)


def test_rows_are_sorted_by_their_keys_and_none_is_a_word(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("name,seed,value\nnone,1,\nnan,2,3.5\nb,0,nan\n")
    rows = read_rows(path, ["name", "seed"], ["value"])
    assert rows["name"].fillna("?").tolist() == ["b", "none", "?"]
    assert [math.isnan(value) for value in rows["value"]] == [True, True, False]
    path.write_text("name,seed,value\n")
    assert read_rows(path, ["name", "seed"], ["value"]).empty
    with refused(path, "fid"):
        read_rows(path, ["name"], ["fid"])


def test_a_metric_that_was_not_measured_is_nan(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"fid": None, "is": 2.5}))
    found = read_metrics(path, "fid")
    assert math.isnan(found["fid"]) and found["is"] == 2.5
    with pytest.raises(UserError, match="psnr"):
        read_metrics(path, "psnr")


def test_values_of_a_param_are_told_apart(tmp_path):
    values = [0.1, 0.1000001, 1 / 3, 0.0, 1e-9]
    files.write_csv(tmp_path / "t.csv", [{"label_smoothing": value} for value in [*values, None]])
    column = pd.read_csv(tmp_path / "t.csv")["label_smoothing"]
    for row, value in enumerate(values):
        assert list(column.index[has_param(column, value)]) == [row]


@pytest.mark.parametrize("content", [None, b"\xff\0\xfe"])
@pytest.mark.parametrize("name", [name for name in FILES.values() if "." in name[2:]])
def test_a_result_that_is_missing_or_damaged_is_one_line(results, name, content):
    if content is None:
        (results / name).unlink()
    else:
        (results / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{results / name}.*dvc repro"):
        read_results(results)
