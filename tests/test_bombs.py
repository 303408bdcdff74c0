"""Small files that hold gigabytes, and files of the system that say they are empty: one line each,
without what they hold."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import file_hash, read_file, require_file
from pipeline.training.loop import load_checkpoint, save_checkpoint
from tests.errors import one_line
from tests.project import ROOT


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({"weights": torch.zeros(9)}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("checkpoint/data/9", bytes(2**26))
    with pytest.raises(
        UserError, match=r"checkpoint\.pt is damaged \(its entries are comp"
    ) as error:
        load_checkpoint(path)
    one_line(error)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="there is no /proc")
def test_a_file_of_the_system_is_not_waited_for(tmp_path):
    link = tmp_path / "x.png"
    link.symlink_to("/proc/self/mounts")
    for path in (Path("/proc/self/mounts"), link):
        for look in (require_file, read_file, file_hash):
            with pytest.raises(UserError, match="is a file of the system; put a file of") as error:
                look(path)
            one_line(error)
    (tmp_path / "empty").touch()
    assert read_file(tmp_path / "empty") == b""


@pytest.mark.parametrize("module", ["pipeline", "stages.schedules", "analysis"])
def test_a_folder_whose_name_is_not_utf_8_is_one_line(tmp_path, module):
    folder = os.fsencode(tmp_path) + b"/pr\xff"
    os.mkdir(folder)
    command = (sys.executable, "-m", module, "params")
    given = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True)
    line = "error: the current folder's path is not UTF-8; rename the folder"
    assert ended.returncode == 1 and ended.stderr.startswith(line)
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("module", ["pipeline", "stages.schedules", "analysis"])
def test_a_deleted_folder_is_one_line(tmp_path, module):
    (tmp_path / "gone").mkdir()
    script = f"cd {tmp_path}/gone && rmdir ../gone && exec {sys.executable} -m {module} params"
    given = os.environ | {"PYTHONPATH": str(ROOT)}
    given.pop("DVC_ROOT", None)
    ended = subprocess.run(["bash", "-c", script], env=given, capture_output=True, text=True)
    assert ended.returncode == 1
    line = "error: the current folder cannot be read (No such file or directory); cd to the project"
    assert ended.stderr.startswith(line) and ended.stderr.count("\n") == 1
