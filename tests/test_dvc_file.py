"""What is read of dvc.yaml, and of git, whatever state they are in."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from pipeline.runtime.dag import (
    output_around,
    stage_deps,
    stage_description,
    stage_outputs,
    stage_params,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.runs import provenance
from tests.errors import one_line

READERS = [stage_deps, stage_description, stage_params]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("a: 1\n")
    return tmp_path


@pytest.mark.parametrize(
    "text", ["stages:\n", "a: 1\n", "stages: 5\n", "stages:\n  edit:\n", "stages: {7: {}}"]
)
@pytest.mark.parametrize("read", READERS)
def test_a_file_without_stages_is_one_line(text, read):
    Path("dvc.yaml").write_text(text)
    with pytest.raises(UserError, match=r"dvc\.yaml has no stages; bring it back") as error:
        read("edit")
    one_line(error)


@pytest.mark.parametrize("read", READERS)
def test_a_stage_that_is_not_there_is_named(read):
    Path("dvc.yaml").write_text("stages:\n  edit: {cmd: x}\n  cas: {cmd: y}\n")
    with pytest.raises(UserError, match=r"dvc\.yaml has no stage 'sweep'; it has edit, cas"):
        read("sweep")


@pytest.mark.parametrize(
    ("read", "kind", "listed", "words"),
    [
        *(
            (stage_params, "params", f"[{name}]", f"lists the param {name}, which params.yaml does")
            for name in ("nope.nope", "a.x", "b", "a.")
        ),
        *((stage_params, "params", entry, "no name") for entry in ("[{a: b}]", "[7]", "['']")),
        (stage_params, "params", "a", "params of the stage edit is no list"),
        (stage_deps, "deps", "7", "deps of the stage edit is no list"),
        (stage_deps, "deps", "[{a: b}]", "lists {'a': 'b'}, which is no name"),
        (stage_deps, "deps", "['data/${b.nope}.csv']", "lists the param b.nope, which params.yaml"),
        *(
            (stage_outputs, kind, entry, f"{kind} of the stage edit lists")
            for kind in ("outs", "metrics", "plots")
            for entry in ("[{}]", "[null]", "[[a]]", "[{a: {}, b: {}}]", "[{7: {}}]", "['']")
        ),
        (stage_outputs, "outs", "{a: b}", "outs of the stage edit is no list"),
    ],
)
def test_a_list_that_was_edited_by_hand_is_one_line(read, kind, listed, words):
    Path("dvc.yaml").write_text(f"stages:\n  edit:\n    {kind}: {listed}\n")
    with pytest.raises(UserError, match=re.escape(words)) as error:
        read("edit")
    assert "dvc.yaml: " in one_line(error) and "(`git checkout dvc.yaml`)" in str(error.value)
    assert output_around(Path("x")) is None  # it may be other people's


def test_what_lies_in_a_stages_output(folder, monkeypatch):
    assert output_around(Path("data/a.png")) is None  # no project
    Path("dvc.yaml").write_text("plots: []\n")  # of other people's
    assert output_around(Path("data/a.png")) is None
    Path("dvc.yaml").write_text(
        "stages:\n  a:\n    outs: [data, {b/c: {cache: false}}]\n  x:\n    outs:\n"
    )
    Path("link").symlink_to("data")
    for path in ("data/a.png", "data", "./x/../data/y", str(folder / "data/a"), "link/a.png"):
        assert output_around(Path(path)) == Path("data")
    assert output_around(Path("b/c/d")) == Path("b/c")
    (folder / "data").mkdir()
    (folder / "elsewhere").mkdir()
    for place in ("elsewhere", ".."):
        with monkeypatch.context() as away:
            away.chdir(folder / place)
            assert output_around(folder / "data/a.png") == folder / "data"
            assert output_around(Path(os.path.relpath(folder / "b/c/d"))) == folder / "b/c"
    for stage in ("a", "sub/dvc.yaml:a"):  # whose own output it is, as DVC names it
        monkeypatch.setenv("DVC_STAGE", stage)
        assert output_around(Path("b/c/d")) is None
    monkeypatch.delenv("DVC_STAGE")
    for path in ("b", "database/a.png", "/data/a.png", "../data"):
        assert output_around(Path(path)) is None


def test_names_that_are_no_text_stop_nothing(folder):
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run((*git, "init", "--quiet"), check=True)
    subprocess.run((*git, "config", "core.quotepath", "false"), check=True)
    name = b"caf\xe9.txt"
    Path(name.decode("utf-8", "surrogateescape")).write_text("a")
    subprocess.run((*git, "add", "."), check=True)
    subprocess.run((*git, "commit", "--quiet", "-m", "a"), check=True)
    assert provenance()["git.dirty"] == "false"
    Path(name.decode("utf-8", "surrogateescape")).write_text("b")
    assert provenance()["git.dirty"] == "true"
