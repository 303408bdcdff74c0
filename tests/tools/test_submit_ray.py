"""A job on a Ray head, in a shared folder."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.runtime.files import read_yaml
from tests.project import SECRET, Project, files_with_secret
from tests.ray_head import TOKEN, ray_head

pytestmark = pytest.mark.slow

AWAY = {"MLFLOW_TRACKING_URI": f"http://me:{SECRET}@127.0.0.1:9"}


def forget(project: Project, stage: str) -> None:
    """Delete DVC's records of a stage and later stages, and all run directories."""
    lock = read_yaml(project.folder / "dvc.lock")
    cache = project.folder / ".dvc/cache"
    for out in lock["stages"][stage]["outs"]:
        (cache / "files/md5" / out["md5"][:2] / out["md5"][2:]).unlink(missing_ok=True)
    known = list(lock["stages"])
    for name in known[known.index(stage) :]:
        del lock["stages"][name]
    (project.folder / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    for folder in (cache / "runs", project.folder / "runs"):
        shutil.rmtree(folder)


def test_a_sweep_in_a_shared_folder_comes_back_by_itself(smoke):
    """`make submit` on loopback: a head, a job, and the same rows as without a cluster."""
    rows = smoke.folder / "results/sweep/rows.csv"
    expected = rows.read_bytes()
    forget(smoke, "sweep")
    smoke.env |= TOKEN
    venv = Path(sys.executable).parents[1]
    (venv / ".ready").touch()
    with ray_head(smoke.env) as (address, temp, _):
        options = (f"ADDRESS={address}", "STAGE=sweep", f"VENV={venv}", "-o", f"{venv}/.ready")
        output = smoke.run("make", "submit", *options, **AWAY)
        output += smoke.run("ray", "job", "list", "--address", address)
        assert files_with_secret(smoke.folder, temp) == []
    assert "Running stage 'sweep'" in output and rows.read_bytes() == expected
    assert "WebSocket" not in output
    assert "up to date" in smoke.run("dvc", "status", "sweep")
    assert "still to be sent to http://me:***@127.0.0.1:9" in output and SECRET not in output
