"""Tasks that have a GPU, on a cluster that says it has one."""

import os
import re
import subprocess
import sys

import pytest

from tests.project import FAIR, ROOT


@pytest.mark.slow
def test_speed_is_timed_where_the_gpu_is_and_a_process_that_had_it_is_not_used_again():
    """It would keep the GPU's memory, and work on it where Ray gave it another."""
    command = (sys.executable, "-m", "tests.gpu_speed")
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | FAIR
    said = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=True
    ).stdout
    found = re.search(r"^by (\d+) \[0\] for (\d+)$", said, re.MULTILINE)
    assert found and found[1] != found[2] and "beside by 3 processes" in said
