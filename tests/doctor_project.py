"""A project for `maskgit doctor` to look at."""

import shutil
from pathlib import Path

import pytest

from pipeline.tools.doctor.examine import examine
from tests.project import ROOT


def enter_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the folder what doctor looks at of a project, and the working one."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in (".dvc", ".git"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def found(subject: str) -> tuple[str, str]:
    """State, and what is said of it."""
    finding = next(each for each in examine() if each.subject == subject)
    return finding.state, f"{finding.found} → {finding.way_out}"
