"""A run directory belongs to one process at a time, and is swept when another takes it up."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime import runs
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
    """Another process that has the run directory of seed 0."""
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


def test_the_second_is_told_who_has_it(other, tmp_path):
    with pytest.raises(UserError, match=rf"evaluate is running already: process {other.pid} on "):
        run_dir("evaluate", {"seed": 0}, str(tmp_path))
    assert run_dir("evaluate", {"seed": 1}, str(tmp_path)) != other.folder


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_whoever_has_ended_has_it_no_more(other, tmp_path, end):
    if end:
        other.send_signal(end)
    other.communicate()  # its end of input ends it, too
    assert run_dir("evaluate", {"seed": 0}, str(tmp_path)) == other.folder
    assert json.loads((other.folder / ".owner.json").read_text())["pid"] == os.getpid()


def test_what_a_killed_process_left_half_written_is_swept(tmp_path):
    (folder := tmp_path / "evaluate").mkdir()
    kept = run_dir("other", {"seed": 0}, str(tmp_path))
    mine = folder / run_dir("name", {"seed": 0}, str(tmp_path)).name
    for parent in (mine, mine / "deep", kept):
        parent.mkdir(parents=True, exist_ok=True)
        (parent / ".checkpoint.pt.0123abcd.tmp").write_bytes(b"half")
        (parent / "checkpoint.pt").write_bytes(b"whole")
    (mine / "deep/.upload.0123abcd.tmp").mkdir()
    (mine / "deep/.upload.0123abcd.tmp/checkpoint.pt").write_bytes(b"whole")
    assert run_dir("evaluate", {"seed": 0}, str(tmp_path)) == mine
    left = sorted(str(path.relative_to(mine)) for path in mine.rglob("*") if path.is_file())
    assert left == [".lock", ".owner.json", "checkpoint.pt", "deep/checkpoint.pt", "key.json"]
    assert (kept / ".checkpoint.pt.0123abcd.tmp").exists()  # not the directory that was taken up


def test_a_folder_that_was_put_in_the_place_of_anothers_is_refused(tmp_path):
    first, second = (run_dir("stage", {"seed": seed}, str(tmp_path)) for seed in (0, 1))
    for folder in (first, second):
        runs._held.pop(folder).release()
    shutil.rmtree(second)
    first.rename(second)
    with pytest.raises(UserError, match=rf"^{second} is another run's, as its key\.json says; del"):
        run_dir("stage", {"seed": 1}, str(tmp_path))
    (second / "key.json").write_text("damaged")  # of which nobody can tell
    assert run_dir("stage", {"seed": 1}, str(tmp_path)) == second


def test_a_process_may_ask_again(tmp_path):
    first = run_dir("evaluate", {"seed": 0}, str(tmp_path))
    assert run_dir("evaluate", {"seed": 0}, str(tmp_path)) == first


MANY = """
import resource, sys
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
from pipeline.runtime.process import set_up
from pipeline.runtime.runs import run_dir
set_up()
print(len({run_dir("sweep", {"seed": seed}, sys.argv[1]) for seed in range(200)}))
"""


def test_a_stage_may_have_more_of_them_than_files_are_usually_open(tmp_path):
    """Each has a lock, which is an open file; 1,024 is usual."""
    command = (sys.executable, "-c", MANY, str(tmp_path))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "200\n", done.stderr


@pytest.mark.parametrize("hangs", ["status", "rev-parse"])
def test_a_git_that_does_not_answer_is_waited_for_once(hangs, tmp_path, monkeypatch, capsys):
    git = tmp_path / "git"
    command = f'#!/bin/sh\necho $1 >> "$0.calls"\n[ $1 = {hangs} ] && exec sleep 30\necho c0ffee\n'
    git.write_text(command)
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("MASKGIT_COMMIT", "MASKGIT_DIRTY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(runs, "GIT", 2.0)
    monkeypatch.setattr(runs, "_silent", set())
    for _ in range(2):
        tags = runs.provenance()
        lost = {"rev-parse": "git.commit", "status": "git.dirty"}[hangs]
        assert {name: tags[name] == "unknown" for name in ("git.commit", "git.dirty")} == {
            name: name == lost for name in ("git.commit", "git.dirty")
        }
    assert (tmp_path / "git.calls").read_text().count(hangs) == 1
    assert capsys.readouterr().err.count(f"note: git {hangs} took more than 2 s") == 1
