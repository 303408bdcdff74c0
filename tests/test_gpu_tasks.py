"""Tasks that have a GPU, on a cluster that says it has one."""

import os
import subprocess
import sys

import pytest

from tests.project import FAIR, ROOT


@pytest.mark.slow
def test_a_process_that_had_a_gpu_is_not_used_again():
    """It would keep that GPU's memory, and work on it where Ray gave it another."""
    command = (sys.executable, "-m", "tests.gpu_tasks")
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | FAIR
    said = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=True
    )
    processes = said.stdout.split()
    assert len(processes) == len(set(processes)) == 6
