"""A command in a folder that was deleted is one line."""

import os
import subprocess
import sys

import pytest

from tests.project import ROOT


@pytest.mark.parametrize("module", ["pipeline", "analysis"])
def test_a_deleted_folder_is_one_line(tmp_path, module):
    (tmp_path / "gone").mkdir()
    script = f"cd {tmp_path}/gone && rmdir ../gone && exec {sys.executable} -m {module} params"
    given = os.environ | {"PYTHONPATH": str(ROOT)}
    given.pop("DVC_ROOT", None)
    ended = subprocess.run(["bash", "-c", script], env=given, capture_output=True, text=True)
    assert ended.returncode == 1
    line = "error: the current folder: cannot be read (No such file or directory); cd to"
    assert ended.stderr.startswith(line) and ended.stderr.count("\n") == 1
