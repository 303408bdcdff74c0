"""Files that somebody copied from one run directory to another, with their list of hashes, are none
of that run's: they are made again."""

import json
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from pipeline.api.opening import EarlierRun, open_folder
from pipeline.runtime.checksums import as_noted, disown, keep_if_whole, note_hash, write_noted
from pipeline.runtime.dag import stage_outputs
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import SUMS, read_yaml, tree_hash, write_json
from pipeline.runtime.outbox import LOG
from pipeline.runtime.runs import run_dir
from pipeline.weights.published import load_model, save_model
from tests.outage_trial import TIMED
from tests.project import Project
from tests.test_damaged_outbox import begin, check, end, not_all_sent
from tests.tiny_project import CPU

# What a run directory has besides what it keeps.
OWN = {"key.json", ".lock", ".owner.json"}
# Those that have several run directories of the same files.
STAGES = ("evaluate", "sweep", "temperature", "reject", "cas", "train_transformer")


@pytest.fixture
def two(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """The run directories of two seeds."""
    monkeypatch.chdir(tmp_path)
    one, other = (run_dir("evaluate", {"seed": seed}) for seed in (0, 1))
    return one, other


@pytest.mark.parametrize("below", ["", "cells"])
def test_a_row_of_another_run_is_made_again(two, below, capsys):
    ours, theirs = (folder / below for folder in two)
    for folder, value in ((ours, 1), (theirs, 2)):
        folder.mkdir(exist_ok=True)
        write_noted(folder / "row.json", {"value": value})
    for name in ("row.json", SUMS):
        shutil.copy(theirs / name, ours / name)
    assert as_noted(theirs / "row.json") and not as_noted(ours / "row.json")
    assert not keep_if_whole(ours / "row.json")
    assert "row.json is damaged or was not finished; it is made again" in capsys.readouterr().out
    write_noted(ours / "row.json", {"value": 1})  # over the other's list
    assert keep_if_whole(ours / "row.json")


def test_nothing_is_removed_where_the_list_of_hashes_cannot_be_read(tmp_path):
    write_noted(tmp_path / "row.json", {"value": 1})
    (tmp_path / SUMS).rename(tmp_path / "list")
    (tmp_path / SUMS).mkdir()
    for look in (keep_if_whole, note_hash):
        with pytest.raises(UserError, match=f"{SUMS} is a folder and not a file: nobody knows"):
            look(tmp_path / "row.json")
    (tmp_path / SUMS).rmdir()
    (tmp_path / "list").rename(tmp_path / SUMS)
    assert keep_if_whole(tmp_path / "row.json")


def test_a_list_that_names_no_run_is_taken_where_none_is(two, tmp_path):
    """In a folder that somebody named as run directories are, and not in one."""
    plain = tmp_path / "plain"
    write_noted(plain / "row.json", {})
    for folder, taken in ((tmp_path / "0123456789abcdef", True), (two[0], False)):
        shutil.copytree(plain, folder, dirs_exist_ok=True)
        assert as_noted(folder / "row.json") == taken


def test_a_published_list_names_no_run(two, tmp_path):
    model, published = two[0] / "model", tmp_path / "models/main"
    model.mkdir()
    (model / "weights").write_bytes(b"1")
    note_hash(model / "weights")
    listed = (model / SUMS).read_text()
    assert listed.startswith(f"# of {two[0].name}\n")
    disown(shutil.copytree(model, published))
    assert (published / SUMS).read_text() == listed.partition("\n")[2]
    if shutil.which("sha256sum"):
        for folder in (model, published):
            command = ("sha256sum", "--strict", "-c", SUMS)
            result = subprocess.run(command, cwd=folder, capture_output=True, check=True)
            assert result.stdout == b"weights: OK\n" and not result.stderr


def test_records_of_another_run_are_not_sent_as_its_own(server, tmp_path):
    folder = tmp_path / "outbox"
    runs = [begin(folder, name) for name in ("one", "other")]
    one, other = map(end, runs)
    shutil.copy(one / LOG, other / LOG)
    said = not_all_sent(folder)
    assert "(open does not say which run begins, or another than the folder's)" in said
    assert f"delete the folder {other}" in said
    check(server, "one")


def test_a_model_that_was_copied_over_anothers_is_said_to_be_so(project, tmp_path):
    """And it has to fit the params as any."""
    folder = shutil.copytree(project, tmp_path / "project")
    model = folder / "models/tokenizer"
    outs = {"metrics": ["results/sources/train_tokenizer.json"]}
    stage = {"cmd": "x", "params": ["seed"], "outs": ["models/tokenizer"]} | outs
    (folder / "dvc.yaml").write_text(json.dumps({"stages": {"train_tokenizer": stage}}))
    record = {"params": {"seed": 0}, "outputs": {"models/tokenizer": tree_hash(model)}}
    write_json(folder / "results/sources/train_tokenizer.json", record)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_folder(folder, None, CPU)
    tokenizer = load_model(model, "tokenizer")
    other = {name: weights + 1 for name, weights in tokenizer.state_dict().items()}
    save_model(model, "tokenizer", tokenizer.config, other)
    said = "not as this project trained it: models/tokenizer is not what train_tokenizer wrote"
    with pytest.warns(EarlierRun, match=said):
        open_folder(folder, None, CPU)
    params = read_yaml(folder / "params.yaml")
    params["data"]["channels"] = 4 - params["data"]["channels"]  # grey or colour
    write_json(folder / "params.yaml", params)
    with pytest.warns(EarlierRun), pytest.raises(UserError, match=r": \d channels, where params"):
        open_folder(folder, None, CPU)


def outputs(project: Project, stage: str) -> dict[str, str]:
    """The content of all that the stage has made, but for times."""
    return {
        str(path): tree_hash(project.folder / path)
        for path in stage_outputs(stage, project.folder)
        if not any(timed in str(path) for timed in TIMED)
    }


def copy_over(theirs: Path, ours: Path) -> int:
    """Copy what both run directories keep, but for checkpoints: of another run's nothing begins."""
    copied = 0
    for file in filter(Path.is_file, theirs.rglob("*")):
        target = ours / file.relative_to(theirs)
        if target.is_file() and file.name not in OWN and file.suffix != ".pt":
            shutil.copyfile(file, target)
            copied += 1
    return copied


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_publishes_its_own(finished, tmp_path, stage):
    """Every run directory has the files of another one, where that has files of the same names."""
    project = finished.copy(tmp_path / "project")
    before, runs = outputs(project, stage), Path("runs", stage)
    folders = sorted(
        p.relative_to(project.folder).parent for p in project.folder.glob(f"{runs}/**/key.json")
    )
    copied = [
        copy_over(finished.folder / theirs, project.folder / ours)
        for ours, theirs in zip(folders, [*folders[1:], folders[0]], strict=True)
    ]
    assert sum(copied) > 1
    said = project.stage(stage)
    assert stage == "train_transformer" or "it is made again" in said
    assert outputs(project, stage) == before
