"""A job on a cluster that shares no folder with home: what both know is a DVC remote on S3.

`python -m tests.job_elsewhere PROJECT [--kill-node]` sends all stages of a project in which
`dvc repro` has run to two nodes, kills one of these in the sweep if asked to, and looks whether
home then has nothing to compute and the outputs of PROJECT; about five minutes on 2 cores.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from pipeline.runtime.dag import stages_up_to
from pipeline.runtime.files import read_json, read_yaml
from tests.project import SECRET, Project
from tests.ray_head import TOKEN, kill_node, node_apart, ray_head

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")  # which would go before those of a remote
# What no second run repeats: times.
TIMED = (
    *("results/sources", "results/speed"),
    *("analysis/timings", "analysis/sources", "analysis/figures", "analysis/report.html"),
)


@contextmanager
def s3_store() -> Iterator[str]:
    """The address of a store that talks S3, with one bucket, `store`."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "me", "aws_secret_access_key": SECRET}
    boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys).create_bucket(
        Bucket="store"
    )
    try:
        yield url
    finally:
        server.stop()


def store_environment(url: str) -> dict[str, str]:
    """What the store's own tools find its address and keys by."""
    keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": SECRET}
    return keys | {"AWS_ENDPOINT_URL": url}


def add_remote(project: Project, url: str) -> None:
    project.run("dvc", "remote", "add", "--default", "store", "s3://store/maskgit")
    project.run("dvc", "remote", "modify", "store", "endpointurl", url)
    for name, value in (("access_key_id", "me"), ("secret_access_key", SECRET)):
        project.run("dvc", "remote", "modify", "--local", "store", name, value)


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


def environment_of(project: Project, home: Path) -> dict[str, str]:
    """Of a cluster for the project's jobs: another HOME, and none of the project's code."""
    return {k: v for k, v in project.env.items() if k != "PYTHONPATH"} | {"HOME": str(home)}


def submitted(project: Project, stage: str, address: str, log: Path) -> subprocess.Popen:
    """`maskgit submit`, which goes on; what it prints is in the log."""
    with open(log, "w") as output:
        return subprocess.Popen(
            ("python", "-m", "pipeline", "submit", stage, "--address", address),
            cwd=project.folder,
            env=project.env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def outputs(project: Project, stage: str) -> dict[str, str]:
    """Hashes of what the stages up to this one left, but for what holds times."""
    stages = read_yaml(project.folder / "dvc.lock")["stages"]
    entries = [out for name in stages_up_to(stage) for out in stages[name]["outs"]]
    return {e["path"]: e["md5"] for e in entries if not e["path"].startswith(TIMED)}


def run_elsewhere(finished: Project, folder: Path, kill: bool) -> tuple[list[str], list[str]]:
    """Send all stages to two nodes, with the params of a finished project.

    Args:
        folder: for home, the nodes and what they say.
        kill: whether a node is killed in the sweep.

    Returns:
        The stages that then run at home, and the outputs that are not those of the project.
    """
    with ExitStack() as stack:
        home = Project.clone(folder / "home")
        shutil.copy2(finished.folder / "params.yaml", home.folder)
        add_remote(home, url := stack.enter_context(s3_store()))
        home.set(ray__storage_path="s3://store/runs")
        (folder / "away").mkdir()
        env = environment_of(home, folder / "away")
        home.env |= TOKEN | store_environment(url)
        head = stack.enter_context(ray_head(env, cpus=0))
        nodes = [stack.enter_context(node_apart(head, folder, env, number=n)) for n in (2, 3)]
        log = folder / "log"
        job = submitted(home, "all", head.address, log)
        if kill:
            while "Running stage 'sweep'" not in log.read_text() and job.poll() is None:
                time.sleep(0.2)
            time.sleep(15)
            kill_node(nodes[0])
            print("a node was killed", flush=True)
        assert job.wait(timeout=3600) == 0, log.read_text()[-3000:]
        ran, _ = home.repro("--pull")
        record = read_json(home.folder / "results/sources/sweep.json")
        assert record["commit"] == home.run("git", "rev-parse", "HEAD").strip()
        made, wanted = outputs(home, "analysis"), outputs(finished, "analysis")
        return ran, sorted(path for path in wanted if made.get(path) != wanted[path])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--kill-node", action="store_true")
    arguments = parser.parse_args()
    for name in KEYS:
        os.environ.pop(name, None)
    finished = Project(arguments.project.absolute())
    with tempfile.TemporaryDirectory(prefix="elsewhere") as name:
        began = time.monotonic()
        ran, other = run_elsewhere(finished, Path(name), arguments.kill_node)
        print(f"stages that ran at home: {ran}; other outputs: {other}")
        print(f"{time.monotonic() - began:.0f} s")
        assert ran == other == []


if __name__ == "__main__":
    main()
