"""Stages of the smoke preset killed in their middle: they go on, and end with the same bytes."""

import re
import shutil

import pytest

from pipeline.runtime.files import file_hash, tree_hash
from pipeline.training.loop.checkpoints import CHECKPOINT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("stage", "longer", "kept"),
    [
        ("train_tokenizer", {"tokenizer__steps": 36}, (CHECKPOINT, b"")),
        # Until Ray Train lists a checkpoint in its snapshot, it may be uploaded in part only.
        (
            "train_transformer",
            {
                "training__steps": 600,  # workers outlive the stage by a second or two
                "training__other_label_smoothings": [],
                "evaluation__seeds": [0],
                "ray__num_workers": 2,
            },
            ("checkpoint_manager_snapshot.json", b"checkpoint_dir_name"),
        ),
    ],
    ids=["tokenizer", "transformer"],
)
def test_killed_training_goes_on_and_ends_with_the_same_bytes(
    finished, tmp_path, stage, longer, kept
):
    project = finished.copy(tmp_path / "project")
    network, runs = stage.removeprefix("train_"), project.folder / "runs" / stage
    model = project.folder / "models" / network
    history = project.folder / "results" / network / "history.csv"
    file, text = kept
    project.set(**longer)  # smoke's own might be over before the kill
    project.stage(stage)
    expected = tree_hash(model), file_hash(history)
    shutil.rmtree(runs)
    shutil.rmtree(model)

    by_dvc = stage == "train_tokenizer"  # which has deleted the outputs, and holds its own lock
    project.kill_stage_when(
        stage,
        lambda: any(text in path.read_bytes() for path in runs.rglob(file)),
        by_dvc=by_dvc,
    )
    log = project.repro(stage)[1] if by_dvc else project.stage(stage)

    assert "going on from step" in log
    assert (tree_hash(model), file_hash(history)) == expected
    assert project.all_ended()


def test_killed_sweep_redoes_no_finished_trial(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    rows = project.folder / "results/sweep/rows.csv"
    expected = rows.read_bytes()
    trials = project.folder / "runs/sweep"
    shutil.rmtree(trials)
    rows.unlink()

    def one_trial_done():
        return "done, 1 of 3" in (project.folder / "sweep.killed.log").read_text()

    project.kill_stage_when("sweep", one_trial_done)
    cells = {p: p.stat().st_mtime_ns for p in trials.rglob("cells/*.json")}
    assert len(cells) >= 2  # of a trial's own
    log = project.stage("sweep")

    # More than one where all three ran at once and were told to end after the first had.
    assert re.search(r"3 trials, [123] finished before", log)
    assert {p: p.stat().st_mtime_ns for p in cells} == cells
    assert rows.read_bytes() == expected
    assert project.all_ended()
