"""Where params may put runs and downloads: not where DVC, git or a stage has files, whatever links
lead there, and nowhere that is no folder."""

import shutil
from pathlib import Path

import pytest

from pipeline.config.params import load_params
from pipeline.config.presets import preset_names, preset_params
from pipeline.runtime.errors import UserError
from tests.params import PRESET
from tests.project import ROOT
from tests.test_params import message, write

STORAGE, DOWNLOADS = "ray.storage_path", "data.download_dir"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    """A fresh clone, with links in it."""
    folder = tmp_path / "project"
    for name in ("pipeline", "stages", "analysis", "presets", ".git", ".dvc"):
        (folder / name).mkdir(parents=True)
    for name, target in (("up", ".."), ("lp", "pipeline"), ("self", "."), ("away", "../away")):
        (folder / name).symlink_to(target)
    (tmp_path / "away").mkdir()
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copy(PRESET, folder / "params.yaml")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "away"))
    return folder


def said(folder: Path, key: str, place: str) -> str:
    """What is said of a place; the file that names it lies elsewhere."""
    return message(write(folder.parent, {key: place}))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        *((place, "the project lies in it") for place in ("up", "self", "self/self", "up/project")),
        *(
            (place, "which DVC hashes")
            for place in ("lp", "lp/x", "self/pipeline", "up/project/lp")
        ),
        ("self/data", "data/schedules, which a stage makes, would lie among its runs"),
        ("self/data/images/x", "whose content DVC deletes"),
        *((place, "which git keeps") for place in (".git", ".git/x", "self/.git")),
        *((place, "which dvc keeps") for place in (".dvc", ".dvc/tmp/x", "self/.dvc/cache")),
        *((place, f"{place} is no folder") for place in ("dvc.yaml", "params.yaml", "/dev/null")),
        ("/dev/null/x", "/dev/null is no folder"),
        ("self/params.yaml/x", "self/params.yaml is no folder"),
    ],
)
def test_runs_do_not_lie_there(project, place, words):
    text = said(project, STORAGE, place)
    assert STORAGE in text and words in text
    assert "such as runs" in text or "move it to another folder" in text


@pytest.mark.parametrize(
    ("place", "words"),
    [
        *((place, "which DVC hashes") for place in ("pipeline", "lp/x", "stages", "analysis/x")),
        *((place, "which git keeps") for place in (".git", "self/.git/x")),
        (".dvc/cache", "which dvc keeps"),
        *((place, f"{place} is no folder") for place in ("dvc.yaml", "/dev/null")),
        *((place, "no folder but an address; give a folder") for place in ("http://x", "s3://a/b")),
        ("https://me:hunter2@x", "https://me:***@x"),
        ("self/data/images", "whose content DVC deletes"),
    ],
)
def test_nor_do_downloads(project, place, words):
    text = said(project, DOWNLOADS, place)
    assert DOWNLOADS in text and words in text and "hunter2" not in text


@pytest.mark.parametrize("key", [STORAGE, DOWNLOADS])
@pytest.mark.parametrize("place", ["runs", "away", "away/new/x", "self/runs", "data/raw", "models"])
def test_they_may_lie_beside_them(project, key, place):
    assert load_params(write(project.parent, {key: place}))
    assert load_params(write(project.parent, {key: str(project / place)}))


@pytest.mark.parametrize("place", ["~/runs", "s3://bucket/folder", "/no/such"])
def test_runs_may_lie_far_away(project, place):
    assert load_params(write(project.parent, {STORAGE: place}))


def test_runs_may_lie_beside_what_dvc_deletes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("data/runs", "models", str(tmp_path / "runs"), "/data/images"):
        assert load_params(write(tmp_path, {"ray.storage_path": place}))
    with pytest.raises(UserError, match=r"ray\.storage_path.*move it to another folder"):
        load_params(write(tmp_path, {"ray.storage_path": str(tmp_path / "data/tokens/x")}))
    for place in (".", "..", "/", str(tmp_path), "a/.."):
        with pytest.raises(UserError, match=r"ray\.storage_path: the project lies in it"):
            load_params(write(tmp_path, {"ray.storage_path": place}))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_taken_in_a_fresh_clone(name):
    assert preset_params(name).preset == name


def test_a_file_beside_params_of_another_place_is_none_of_theirs(tmp_path, monkeypatch):
    """As where a model of another project is opened."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs", "data"):
        (tmp_path / name).touch()
    assert load_params(PRESET)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    with pytest.raises(UserError, match=r"ray\.storage_path: runs is no folder; give a folder"):
        load_params(PRESET)
