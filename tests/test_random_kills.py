"""`dvc repro` of the smoke preset, all of whose processes are killed at random moments."""

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.job_elsewhere import outputs
from tests.project import Project

KILLS = int(os.environ.get("KILLS", "20"))
LATEST = 25.0  # seconds after which a start is killed

pytestmark = pytest.mark.soak


def processes_in(folder: Path) -> list[psutil.Process]:
    """The processes that work in a folder: DVC, a stage, and all of its Ray."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_bytes(finished, tmp_path):
    project = Project.clone(tmp_path / "project")
    shutil.copy2(finished.folder / "params.yaml", project.folder)
    seed = int(os.environ.get("KILL_SEED", random.randrange(10**6)))
    moments = [random.Random(f"{seed} {n}").uniform(1, LATEST) for n in range(KILLS)]
    print(f"KILL_SEED={seed}")
    for moment in moments:
        with open(tmp_path / "log", "a") as log:
            run = subprocess.Popen(
                ("dvc", "repro"), cwd=project.folder, env=project.env, stdout=log, stderr=log
            )
        time.sleep(moment)
        while alive := processes_in(project.folder):
            for process in alive:
                process.kill()
            psutil.wait_procs(alive, timeout=5)
        run.wait()
    project.repro()
    assert outputs(project, "analysis") == outputs(finished, "analysis")
    left = [p for p in project.folder.rglob("*.tmp") if ".dvc" not in p.parts]
    assert left == [] and not list(project.folder.rglob("*.parts"))
    assert project.all_ended()
