"""Tasks that have a GPU, on a cluster that says it has one."""

import os
import re
import subprocess
import sys

import pytest

from tests.project import FAIR, ROOT


@pytest.mark.slow
def test_a_process_that_had_a_gpu_is_not_used_again():
    """It would keep that GPU's memory, and work on it where Ray gave it another."""
    processes = _said_by("tests.gpu_tasks").split()
    assert len(processes) == len(set(processes)) == 6


@pytest.mark.slow
def test_speed_is_timed_where_the_gpu_is():
    found = re.search(r"^by (\d+) \[0\] for (\d+)$", _said_by("tests.gpu_speed"), re.MULTILINE)
    assert found and found[1] != found[2]


def _said_by(module: str) -> str:
    command = (sys.executable, "-m", module)
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | FAIR
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=True
    ).stdout
