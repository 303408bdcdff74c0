"""Jobs on a Ray head: in a shared folder, through a DVC remote, and where there is no head."""

import sys
from pathlib import Path

import pytest

from tests.job_elsewhere import KEYS, forget, run_elsewhere
from tests.project import SECRET, files_with_secret
from tests.ray_head import TOKEN, ray_head

pytestmark = pytest.mark.slow

AWAY = {"MLFLOW_TRACKING_URI": f"http://me:{SECRET}@127.0.0.1:9"}


def test_a_sweep_in_a_shared_folder_comes_back_by_itself(finished, tmp_path):
    """`make submit` on loopback: a head, a job, and the same rows as without one."""
    project = finished.copy(tmp_path / "project")
    rows = project.folder / "results/sweep/rows.csv"
    expected = rows.read_bytes()
    forget(project, "sweep")
    project.env |= TOKEN
    venv = Path(sys.executable).parents[1]
    (venv / ".ready").touch()
    with ray_head(project.env) as (address, temp, _):
        options = (f"ADDRESS={address}", "STAGE=sweep", f"VENV={venv}", "-o", f"{venv}/.ready")
        output = project.run("make", "submit", *options, **AWAY)
        output += project.run("ray", "job", "list", "--address", address)
        assert files_with_secret(project.folder, temp) == []
    assert "Running stage 'sweep'" in output and rows.read_bytes() == expected
    assert "WebSocket" not in output
    assert "up to date" in project.run("dvc", "status", "sweep")
    assert "still to be sent to http://me:***@127.0.0.1:9" in output and SECRET not in output


@pytest.mark.soak
def test_all_stages_elsewhere_leave_what_they_would_have_left_at_home(
    finished, tmp_path, monkeypatch
):
    """On two nodes, one killed in the sweep; at home nothing runs, and every hash is the same."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    assert run_elsewhere(finished, tmp_path, kill=True) == ([], [])
