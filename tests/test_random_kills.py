"""`dvc repro` of the smoke preset, with all processes killed at random moments."""

import json
import os
import random
import shutil
import time
from pathlib import Path

import psutil
import pytest

from tests.project import Project

KILLS = int(os.environ.get("KILLS", "20"))
LATEST = 25.0  # seconds after which a start is killed


def valid(file: Path) -> bool:
    """Whether a file, if it exists, is JSON."""
    try:
        json.loads(file.read_text() if file.exists() else "{}")
    except ValueError:
        return False
    return True


@pytest.mark.soak
def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_bytes(finished, tmp_path):
    project = Project.clone(tmp_path / "project")
    shutil.copy2(finished.folder / "params.yaml", project.folder)
    seed = int(os.environ.get("KILL_SEED", random.randrange(10**6)))
    print(f"KILL_SEED={seed}")
    for number in range(KILLS):
        run = project.start("dvc", "repro", log=tmp_path / f"log{number}")
        time.sleep(random.Random(f"{seed} {number}").uniform(1, LATEST))
        while alive := project.processes():
            for process in alive:
                process.kill()
            psutil.wait_procs(alive, timeout=5)
        run.wait()
        # DVC does not write these files atomically: docs/stages.md says what to do.
        if not valid(project.folder / ".dvc/tmp/rwlock"):
            print(f"rwlock is damaged by kill {number}")
            (project.folder / ".dvc/tmp/rwlock").unlink()
        if project.start("dvc", "status", log=tmp_path / "status").wait() == 255:
            print(f"dvc.lock is damaged by kill {number}")
            (project.folder / "dvc.lock").unlink()
    project.repro()
    assert project.outputs() == finished.outputs()
    left = [p for p in project.folder.rglob("*.tmp") if ".dvc" not in p.parts]
    assert left == [] and not list(project.folder.rglob("*.parts"))
    assert project.all_ended()
