"""A machine that is lost in the middle of a stage: another goes on from the object store."""

import shutil
from pathlib import Path

import pytest

from pipeline.runtime.files import tree_hash
from tests.project import SECRET, Project, files_with_secret

pytestmark = pytest.mark.slow

ADDRESS = "s3://store/runs"
ALONE = {"training__other_label_smoothings": [], "evaluation__seeds": [0]}


def machine(finished: Project, folder: Path, stage: str, **values) -> Project:
    """A copy of the project on a machine that has nothing of the stage."""
    project = finished.copy(folder)
    project.set(ray__storage_path=ADDRESS, **values)
    shutil.rmtree(project.folder / "runs")
    shutil.rmtree(project.folder / "models" / stage.removeprefix("train_"))
    return project


def test_a_training_goes_on_where_the_lost_machine_was(finished, tmp_path, objects):
    stage, network = "train_transformer", "transformer"
    longer = {"training__steps": 700, "ray__num_workers": 2} | ALONE
    undisturbed = machine(finished, tmp_path / "undisturbed", stage, **longer)
    undisturbed.set(ray__storage_path="runs")
    undisturbed.stage(stage)
    lost = machine(finished, tmp_path / "lost", stage, **longer)

    def kept() -> list[str]:
        return [o.key for o in objects.objects.all() if "/checkpoint.pt@" in o.key]

    lost.kill_stage_when(stage, lambda: len(kept()) > 0)
    assert not (lost.folder / "models" / network).exists()
    shutil.rmtree(lost.folder)
    other = machine(finished, tmp_path / "other", stage, **longer)
    log = other.stage(stage)

    assert f"checkpoint comes from {ADDRESS}" in log and "going on from step" in log
    for path in (f"models/{network}", f"results/{network}/history.csv"):
        assert tree_hash(other.folder / path) == tree_hash(undisturbed.folder / path)
    assert SECRET not in log and files_with_secret(other.folder) == []
    assert len(kept()) == 2
