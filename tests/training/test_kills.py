"""Killed stages of the smoke preset resume and lose nothing."""

import shutil
from itertools import pairwise

import pytest
from mlflow import MlflowClient
from pandas import read_csv

from pipeline.runtime.files import file_hash, tree_hash
from pipeline.training.loop.checkpoints import CHECKPOINT
from tests.outages import sent
from tests.project import Project

pytestmark = pytest.mark.slow

# Until Ray Train lists a checkpoint in its snapshot, it may be uploaded in part only.
LISTED = "checkpoint_manager_snapshot.json", b"checkpoint_dir_name"
ONE_REPLICATE = {"training__other_label_smoothings": [], "evaluation__seeds": [0]}


def kill(smoke: Project, stage: str, what: tuple[str, bytes], by_dvc: bool = False) -> None:
    """Kill a stage as soon as a file with that name in its run directories holds the text."""
    file, text = what
    shutil.rmtree(runs := smoke.folder / "runs" / stage)
    smoke.kill_stage_when(
        stage,
        lambda: any(text in path.read_bytes() for path in runs.rglob(file)),
        by_dvc=by_dvc,
    )


@pytest.mark.parametrize(
    ("stage", "longer", "what"),
    [
        ("train_tokenizer", {"tokenizer__steps": 36}, (CHECKPOINT, b"")),
        (
            "train_transformer",  # whose workers outlive the stage by a second or two
            {"training__steps": 240, "ray__num_workers": 2} | ONE_REPLICATE,
            LISTED,
        ),
    ],
    ids=["tokenizer", "transformer"],
)
def test_killed_training_goes_on_and_ends_with_the_same_bytes(smoke, stage, longer, what):
    network = stage.removeprefix("train_")
    model = smoke.folder / "models" / network
    history = smoke.folder / "results" / network / "history.csv"
    # The preset's steps might be over before the kill. A new experiment has its files in the copy.
    smoke.set(mlflow__experiment="kills", **longer)
    smoke.stage(stage)
    expected = tree_hash(model), file_hash(history)
    shutil.rmtree(model)

    by_dvc = stage == "train_tokenizer"  # which has deleted the outputs, and holds its own lock
    kill(smoke, stage, what, by_dvc)
    log = smoke.repro(stage)[1] if by_dvc else smoke.stage(stage)

    assert "resuming from step" in log
    assert (tree_hash(model), file_hash(history)) == expected
    logs = [file.parent for file in (smoke.folder / "runs" / stage).rglob("run.json")]
    client = MlflowClient(f"sqlite:///{smoke.folder}/mlflow.db")
    assert sum(sent(client, log) for log in logs) > 0
    assert smoke.all_ended()


@pytest.mark.soak
@pytest.mark.parametrize(
    ("stage", "first", "then", "changes"),
    [
        ("train_classifier", 1, 2, {"classifier__steps": 400, "classifier__checkpoint_every": 10}),
        (
            "train_transformer",
            2,
            1,
            {"training__steps": 900, "training__checkpoint_every": 20} | ONE_REPLICATE,
        ),
    ],
    ids=["more", "fewer"],
)
def test_a_killed_elastic_training_goes_on_with_other_workers(smoke, stage, first, then, changes):
    smoke.set(ray__elastic=True, ray__num_workers=first, **changes)
    kill(smoke, stage, LISTED)
    smoke.set(ray__num_workers=then)
    assert "resuming from step" in smoke.stage(stage)
    rows = read_csv(smoke.folder / "results" / stage.removeprefix("train_") / "history.csv")
    found = list(rows["step"])
    assert found[-1] == next(iter(changes.values()))
    assert {after - before for before, after in pairwise([0, *found])} == {found[0]}
    assert list(rows["workers"].unique()) == [first, then]  # of each part of the run
    assert smoke.all_ended()
