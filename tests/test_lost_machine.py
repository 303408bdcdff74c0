"""A machine that is lost in the middle of a stage: another goes on from the object store."""

import shutil
from pathlib import Path

import pytest

from pipeline.runtime.files import tree_hash
from pipeline.runtime.run_log import read_rows
from tests.project import SECRET, Project, files_with_secret

pytestmark = pytest.mark.slow

ADDRESS = "s3://store/runs"
STAGE, MADE = "train_classifier", ("models/classifier", "results/classifier/history.csv")
OFTEN = "from pipeline.runtime import courier\ncourier.ROUND = 0.2\n"


def machine(finished: Project, folder: Path) -> Project:
    """A copy of the project on a machine that has nothing of the stage, and looks often."""
    project = finished.copy(folder / "project")
    project.set(ray__storage_path=ADDRESS, classifier__steps=200, classifier__checkpoint_every=10)
    shutil.rmtree(project.folder / "runs")
    for path in MADE:
        (project.folder / path).rename(folder / Path(path).name)
    (folder / "sitecustomize.py").write_text(OFTEN)
    project.env["PYTHONPATH"] += f":{folder}"
    return project


def logged_steps(project: Project) -> list[int]:
    """Of the training's loss, as they were logged."""
    logs = (project.folder / "runs").glob("*/*/log/metrics.jsonl")
    rows = [row for log in logs for _, row in read_rows(log)]
    return [row["step"] for row in rows if "train/loss" in row["metrics"]]


def test_a_training_goes_on_where_the_lost_machine_was(finished, tmp_path, objects):
    undisturbed, lost, other = (
        machine(finished, tmp_path / name) for name in ("undisturbed", "lost", "other")
    )
    undisturbed.set(ray__storage_path="runs")
    undisturbed.stage(STAGE)

    def kept() -> list[str]:
        return [o.key for o in objects.objects.all() if "/checkpoint.pt@" in o.key]

    lost.kill_stage_when(STAGE, lambda: len(kept()) > 0)
    assert not (lost.folder / MADE[0]).exists()
    shutil.rmtree(lost.folder)
    log = other.stage(STAGE)

    assert f"checkpoint comes from {ADDRESS}" in log and "going on from step" in log
    for path in MADE:
        assert tree_hash(other.folder / path) == tree_hash(undisturbed.folder / path)
    assert sorted(logged_steps(other)) == logged_steps(undisturbed) == list(range(10, 201, 10))
    assert SECRET not in log and files_with_secret(other.folder) == []
    assert len(kept()) == 2
