"""A machine that is lost with its disk: another goes on from what the object store has."""

import os
import re
import signal
import time

import pytest
from pyarrow.fs import FileSelector, FileSystem

from tests.job_elsewhere import KEYS, s3_store
from tests.outage_trial import LONGER, fresh
from tests.project import SECRET, files_with_secret

pytestmark = pytest.mark.slow
STAGE = "train_transformer"


def test_another_machine_goes_on_from_the_store(finished, tmp_path, monkeypatch):
    for name, value in zip(KEYS, ("me", SECRET), strict=True):
        monkeypatch.setenv(name, value)
    whole = fresh(finished, STAGE, tmp_path / "whole", None)
    whole.run()
    with s3_store() as url:
        host = url.removeprefix("http://")
        address = f"s3://store/runs?endpoint_override={host}&scheme=http&region=us-east-1"
        env = dict(zip(KEYS, ("me", SECRET), strict=True))
        lost, other = (fresh(finished, STAGE, tmp_path / name, None) for name in ("lost", "other"))
        for trial in (lost, other):
            trial.project.set(ray__storage_path=address, **LONGER[STAGE])
        process = lost.start(**env)
        system, root = FileSystem.from_uri(address)
        everything = FileSelector(f"{root}/{STAGE}", allow_not_found=True, recursive=True)
        while "checkpoint.pt" not in [info.base_name for info in system.get_file_info(everything)]:
            assert process.poll() is None, lost.log.read_text()
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        other.run(**env)
        assert f"files brought from {address}" in other.said[-1]
        assert re.search(r"going on from step|[1-4] finished before", other.said[-1])
        assert other.outputs() == whole.outputs()
        other.no_password()
        assert files_with_secret(lost.project.folder) == []
