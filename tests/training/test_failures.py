"""What goes wrong outside: one clear line, exit code 1, nothing made is lost."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.project import SECRET, Project, files_with_secret

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory) -> Project:
    """With tokens cached at smoke size, and nothing that was made of them."""
    project = finished.copy(tmp_path_factory.mktemp("failures") / "project")
    for made in ("runs", "mlruns", "models/transformer", "models/autoregressive", "results"):
        shutil.rmtree(project.folder / made)
    (project.folder / "mlflow.db").unlink()
    return project


def error_line(output: str) -> str:
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in output and "unexpected: traceback" not in output
    return line


def test_a_tracking_server_that_is_away_stops_nothing_and_no_password_is_left(project, tmp_path):
    copy = project.copy(tmp_path / "project")
    away = {"MLFLOW_TRACKING_URI": f"http://me:{SECRET}@127.0.0.1:9"}
    ray = Path(f"/tmp/rf{os.getpid()}")  # Ray's logs, in a folder with a short name
    copy.set(sweep__schedules=["cosine"], sweep__iterations=[2], sweep__crossed=[])
    output = copy.stage("cache_tokens", **away) + copy.stage("sweep", **away, RAY_TMPDIR=str(ray))
    assert output.count("logs are still to be sent to http://me:***@127.0.0.1:9") == 2
    assert (copy.folder / "data/tokens/manifest.json").exists()
    assert (copy.folder / "results/sweep/rows.csv").exists()
    synced = copy.run("python", "-m", "pipeline", "sync", ok=False, **away)
    assert "start the server" in error_line(synced)
    assert SECRET not in output + synced
    assert files_with_secret(copy.folder, ray) == []


def interrupted(copy: Project, stage: str, log: Path, ready: Callable[[], bool]) -> str:
    """What a stage says that Ctrl-C ends, once it is ready for that."""
    with open(log, "w") as output:
        process = subprocess.Popen(
            ("python", "-m", "stages", stage),
            cwd=copy.folder,
            env=copy.env,
            stdout=output,
            stderr=output,
            # A shell's background jobs ignore Ctrl-C, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        deadline = time.monotonic() + 120
        while not ready():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 1
    finally:
        process.kill()
    return log.read_text()


@pytest.mark.parametrize("stage", ["train_tokenizer", "train_transformer"])
def test_an_interruption_is_one_line_and_loses_nothing(project, tmp_path, stage):
    copy, log, again = project.copy(tmp_path / "project"), tmp_path / "log", tmp_path / "again"
    copy.set(tokenizer__steps=5000, training__steps=5000)
    kept = copy.folder / "runs" / stage
    said = interrupted(copy, stage, log, lambda: any(kept.glob("*/checkpoint.pt")))
    assert "interrupted; run again to go on" in error_line(said)
    said = interrupted(copy, stage, again, lambda: "going on from" in again.read_text())
    assert re.search(r"going on from step [1-9]\d* of 5000", said)
    deadline = time.monotonic() + 30
    while copy.strays() and time.monotonic() < deadline:
        time.sleep(1)
    assert copy.strays() == []


def test_a_bug_in_a_trial_names_the_file_with_its_traceback(project, tmp_path):
    copy = project.copy(tmp_path / "project")
    copy.set(sweep__schedules=["cosine"], sweep__crossed=[], ray__max_failures=0)
    start = '"""Decode samples from the trial\'s model in every way'
    copy.edit("pipeline/experiments/ablation.py", start, f"len(3); {start}")
    line = copy.stage("sweep", ok=False).splitlines()[-1]
    assert "TypeError: object of type 'int' has no len()" in line
    file = copy.folder / "runs/traceback-sweep.txt"
    assert str(file) in line and "ablation.py" in file.read_text()
