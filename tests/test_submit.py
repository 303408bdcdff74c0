"""Jobs on a Ray head: in a shared folder, through a DVC remote, and where there is no head."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.runtime.dag import stages_up_to
from pipeline.runtime.files import read_json, read_yaml
from tests.project import ROOT, SECRET, Project, files_with_secret, free_port
from tests.ray_head import TOKEN, node_apart, ray_head

pytestmark = pytest.mark.slow

AWAY = {"MLFLOW_TRACKING_URI": f"http://me:{SECRET}@127.0.0.1:9"}


def test_a_sweep_in_a_shared_folder_comes_back_by_itself(finished, tmp_path):
    """`make submit` on loopback: a head, a job, and the same rows as without one."""
    project = finished.copy(tmp_path / "project")
    rows = project.folder / "results/sweep/rows.csv"
    expected = rows.read_bytes()
    forget(project, "sweep")
    project.env |= TOKEN
    venv = Path(sys.executable).parents[1]
    (venv / ".ready").touch()
    with ray_head(project.env) as (address, temp, _):
        options = (f"ADDRESS={address}", "STAGE=sweep", f"VENV={venv}", "-o", f"{venv}/.ready")
        output = project.run("make", "submit", *options, **AWAY)
        output += project.run("ray", "job", "list", "--address", address)
        assert files_with_secret(project.folder, temp) == []
    assert "Running stage 'sweep'" in output and rows.read_bytes() == expected
    assert "up to date" in project.run("dvc", "status", "sweep")
    assert "still to be sent to http://me:***@127.0.0.1:9" in output and SECRET not in output


def forget(project: Project, stage: str) -> None:
    """Let the project have nothing of a stage, nor of those after it, but in the workspace."""
    lock = read_yaml(project.folder / "dvc.lock")
    cache = project.folder / ".dvc/cache"
    for out in lock["stages"][stage]["outs"]:
        (cache / "files/md5" / out["md5"][:2] / out["md5"][2:]).unlink(missing_ok=True)
    known = list(lock["stages"])
    for name in known[known.index(stage) :]:
        del lock["stages"][name]
    (project.folder / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    for folder in (cache / "runs", project.folder / "runs"):
        shutil.rmtree(folder)


@pytest.fixture
def store(monkeypatch):
    """A store that talks S3, with one bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "me", "aws_secret_access_key": SECRET}
    boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys).create_bucket(
        Bucket="store"
    )
    yield url
    server.stop()


def test_a_job_elsewhere_leaves_nothing_to_compute_at_home(finished, store, tmp_path):
    """Another HOME, no folder in common: what both know is the store. The job gets from there what
    was made here, and home from there what the job made, all of it on a node that sees no folder of
    the job's."""
    home, stage = finished.copy(tmp_path / "home"), "train_transformer"
    forget(home, stage)
    home.run("dvc", "remote", "add", "--default", "store", "s3://store/maskgit")
    home.run("dvc", "remote", "modify", "store", "endpointurl", store)
    for name, value in (("access_key_id", "me"), ("secret_access_key", SECRET)):
        home.run("dvc", "remote", "modify", "--local", "store", name, value)
    away = tmp_path / "away"
    away.mkdir()
    away_env = {k: v for k, v in home.env.items() if k != "PYTHONPATH"} | {"HOME": str(away)}
    home.env |= TOKEN
    with ray_head(away_env, cpus=0) as head, node_apart(head, tmp_path, away_env):
        command = ("python", "-m", "pipeline", "submit", stage, "--address", head.address)
        output = home.run(*command, **AWAY)
        output += home.run("ray", "job", "list", "--address", head.address)
        assert files_with_secret(away, head.temp) == []
    assert re.findall(r"Running stage '(\w+)'", output) == [stage] and SECRET not in output
    ran, _ = home.repro("--pull", stage)
    assert ran == [] and outputs(home, stage) == outputs(finished, stage)
    record = read_json(home.folder / f"results/sources/{stage}.json")
    assert record["commit"] == home.run("git", "rev-parse", "HEAD").strip()
    assert record["dirty"] is True  # .dvc/config


def outputs(project: Project, stage: str) -> dict[str, str]:
    """Hashes of what the stages left, but for records, which hold times."""
    stages = read_yaml(project.folder / "dvc.lock")["stages"]
    entries = [out for name in stages_up_to(stage) for out in stages[name]["outs"]]
    return {e["path"]: e["md5"] for e in entries if "results/sources" not in e["path"]}


def test_submitting_without_a_head_is_one_line(tmp_path):
    project = Project(ROOT)
    address = f"http://127.0.0.1:{free_port()}"
    command = ("python", "-m", "pipeline", "submit", "--address", address)
    (line,) = project.run(*command, ok=False).splitlines()
    assert line.startswith(f"error: there is no Ray dashboard at {address}: Connection refused")
    assert "ray start --head" in line
