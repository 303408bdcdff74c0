"""Outputs of commands are looked at before a model is opened, let alone anything drawn."""

import json
import os

import pytest

from pipeline.runtime.errors import UserError
from tests.command_line import maskgit


@pytest.fixture
def run(project, monkeypatch, capsys):
    monkeypatch.chdir(project)

    def opened(*_):
        raise UserError("a model was opened")

    for module in ("drawing", "edits"):
        monkeypatch.setattr(f"pipeline.cli.{module}.open_model", opened)
    return lambda *arguments: maskgit(*arguments, capsys=capsys)


def refused(done, reason: str) -> None:
    assert done.code == 1 and done.out == "" and done.err.count("\n") == 1
    assert reason in done.err


def test_what_cannot_be_written_is_refused_first(run, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").touch()
    (tmp_path / "folder.png").mkdir()
    for name, reason in (
        ("pipe.png", "is a pipe, socket or device"),
        ("file/a.png", "cannot write"),
        ("full", "is there already and no empty folder"),
        ("file", "is there already and no empty folder"),
        ("folder.png", "is a folder; name a file"),
        ("folder.png/", "is a folder; name a file"),
    ):
        refused(run("sample", "--output", f"{tmp_path}/{name}"), reason)
    refused(run("sample", "--output", "/proc/a.npz"), "cannot write")
    refused(run("reconstruct", "a.png", "--output", f"{tmp_path}/pipe.png"), "is a pipe")
    refused(run("export", "transformer", f"{tmp_path}/full"), "is there already")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png", "full", "pipe.png"]


@pytest.mark.parametrize("place", ["pipeline", "stages/x", "analysis", ".git", ".dvc/tmp"])
def test_no_output_lies_among_the_code(run, project, place):
    (project / "dvc.yaml").write_text(json.dumps({"stages": {"train_transformer": {"cmd": "x"}}}))
    for command in (("sample", "--output", f"{place}/a.png"), ("save", f"{place}/model")):
        refused(run(*command), f"lies in {place.partition('/')[0]}, which is the project's")
    assert not (project / place).exists()


def test_folders_of_the_same_names_in_another_project_are_free(run, project):
    (project / "dvc.yaml").write_text(json.dumps({"stages": {"a": {"cmd": "x"}}}))
    refused(run("save", "analysis/model"), "a model was opened")


def test_a_box_and_a_mask_are_one_too_many(run):
    done = run("edit", "a.png", "--class", "0", "--box", "0,0,5,5", "--mask", "m.png")
    refused(done, "--box and --mask: give one of them")
