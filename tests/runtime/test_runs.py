"""A run directory belongs to one process at a time, and is cleaned when another takes it over."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime.errors import UserError
from pipeline.runtime.runs import run_dir
from tests.project import ROOT

HOLD = """
import sys
from pipeline.runtime.runs import run_dir
print(run_dir("evaluate", {"seed": 0}, sys.argv[1]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the run directory of seed 0."""
    process = subprocess.Popen(
        (sys.executable, "-c", HOLD, str(tmp_path)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
    )
    process.folder = Path(process.stdout.readline().strip())
    yield process
    process.kill()
    process.communicate()


def test_one_process_holds_it_until_it_is_killed(other, tmp_path):
    with pytest.raises(UserError) as error:
        run_dir("evaluate", {"seed": 0}, str(tmp_path))
    assert error.value.subject == "evaluate" and f"process {other.pid} on" in error.value.reason
    assert run_dir("evaluate", {"seed": 1}, str(tmp_path)) != other.folder
    other.send_signal(signal.SIGKILL)
    other.communicate()
    folder = run_dir("evaluate", {"seed": 0}, str(tmp_path))
    assert folder == other.folder == run_dir("evaluate", {"seed": 0}, str(tmp_path))
    assert str(os.getpid()) in (folder / ".owner").read_text()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    held = run_dir("other", {"seed": 0}, str(tmp_path))
    mine = tmp_path / "evaluate" / held.name
    for parent in (mine, mine / "deep", held):
        parent.mkdir(parents=True, exist_ok=True)
        (parent / ".checkpoint.pt.0123abcd.tmp").write_bytes(b"half")
        (parent / "checkpoint.pt").write_bytes(b"whole")
    (mine / "deep/.upload.0123abcd.tmp").mkdir()
    (mine / "deep/.upload.0123abcd.tmp/checkpoint.pt").write_bytes(b"whole")
    assert run_dir("evaluate", {"seed": 0}, str(tmp_path)) == mine
    left = sorted(str(path.relative_to(mine)) for path in mine.rglob("*") if path.is_file())
    assert left == [".lock", ".owner", "checkpoint.pt", "deep/checkpoint.pt", "key.json"]
    assert (held / ".checkpoint.pt.0123abcd.tmp").exists()  # in another run directory
