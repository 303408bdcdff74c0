"""deploy/: what can be known of KubeRay's and SLURM's files without either of them."""

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from pipeline.config.presets import preset_params
from pipeline.runtime.node_checkout import Remote, cache_folder
from tests.project import ROOT

JOB, CLUSTER, SLURM = (
    ROOT / "deploy" / name for name in ("rayjob.yaml", "raycluster.yaml", "slurm.sh")
)
PAPER = preset_params("imagenet256").ray


def cluster_of(path: Path) -> tuple[dict, list[dict]]:
    """The RayClusterSpec of a RayJob or a RayCluster, and the pods of its head and its workers."""
    spec = yaml.safe_load(path.read_text())["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    groups = (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    return cluster, [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("path", [JOB, CLUSTER], ids=lambda path: path.name)
def test_the_pods_are_what_kubernetes_takes_and_run_the_tested_ray(path):
    cluster, pods = cluster_of(path)
    assert f"ray=={cluster['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    assert cluster["authOptions"] == {"mode": "token"}
    for spec in pods:
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "ray"}}
        kubernetes_validate.validate(pod | {"template": {"spec": spec}}, "1.30", strict=True)
        (container,) = spec["containers"]
        named = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == named
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_both_have_the_workers_of_the_paper():
    job = yaml.safe_load(JOB.read_text())["spec"]
    for path, least, spare in ((JOB, PAPER.num_workers + 1, 1), (CLUSTER, 0, 0)):
        cluster, (_, pod) = cluster_of(path)
        (group,) = cluster["workerGroupSpecs"]
        assert (group["minReplicas"], group["maxReplicas"]) == (least, PAPER.num_workers + spare)
        limits = pod["containers"][0]["resources"]["limits"]
        assert (int(limits["cpu"]), limits["nvidia.com/gpu"]) == (PAPER.cpus_per_worker, "1")
    assert (job["entrypointNumGpus"], job["entrypointNumCpus"]) == (1, PAPER.cpus_per_worker)
    assert job["shutdownAfterJobFinishes"] and cluster["enableInTreeAutoscaling"]


def test_the_cluster_without_a_volume_has_its_cache_where_the_pods_have_room(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/root")  # of the image's user
    cache = cache_folder(Remote("store", {"url": "s3://bucket"}))
    for pod in cluster_of(CLUSTER)[1]:
        mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
        assert cache.is_relative_to(mounts["cache"]) and mounts["shared-memory"] == "/dev/shm"


def test_the_slurm_script_is_clean_and_its_nodes_hold_the_papers_workers():
    done = subprocess.run(["shellcheck", SLURM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", SLURM.read_text(), re.MULTILINE))
    gpus = int(options["gpus-per-node"])
    assert int(options["nodes"]) * gpus == PAPER.num_workers
    assert int(options["cpus-per-task"]) == gpus * PAPER.cpus_per_worker


# What the stand-ins for commands do besides noting their call: the head lives until the DAG has
# run, which begins when all have noted theirs.
HEAD = "10.0.0.7:20123 64"  # its address, and the length of the token
DOES = {
    "ray": "echo $$ > head; exec sleep 600",
    "timeout": "until [ $(grep -c . calls) -ge 4 ] && [ -s head ]; do sleep 0.1; done",
    "dvc": "kill $(cat head)",
    "hostname": "echo 10.0.0.7 172.17.0.1",
    "srun": "",
}


@pytest.mark.slow
@pytest.mark.parametrize("failing", [[], ["ray"]], ids=["all well", "no head"])
def test_the_slurm_script_starts_the_cluster_and_then_the_stages(tmp_path, failing):
    bin_folder = tmp_path / ".venv/bin"
    bin_folder.mkdir(parents=True)
    (tmp_path / "deploy").mkdir()
    (bin_folder / "activate").write_text(f'PATH="{bin_folder}:$PATH"\n')
    for name, does in {**DOES, **dict.fromkeys(failing, "exit 1")}.items():
        noted = f'echo "{name} $* $RAY_ADDRESS ${{#RAY_AUTH_TOKEN}}" >> "{tmp_path}/calls"\n'
        command = bin_folder / name
        command.write_text(f"#!/bin/sh\n{noted if name != 'hostname' else ''}{does}\n")
        command.chmod(0o755)
    environment = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "123", "SLURM_NNODES": "4"}
    environment |= {"SLURM_CPUS_PER_TASK": "32", "SLURM_GPUS_PER_NODE": "h100:4"}
    script = subprocess.Popen(
        ["bash", SLURM, "sweep", "cas"],
        env=environment | {"PATH": os.environ["PATH"]},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    code = script.wait(timeout=60)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(script.pid, signal.SIGKILL)  # SLURM ends what a job has left
    calls = (tmp_path / "calls").read_text().splitlines()
    ran = [call for call in calls if call.startswith("dvc")]
    assert (code == 0, ran) == (not failing, [] if failing else [f"dvc repro sweep cas {HEAD}"])
    if not failing:
        assert f"timeout 600 python deploy/wait_for_nodes.py 4 {HEAD}" in calls
        started = [call for call in calls if "ray start" in call]
        assert len(started) == 2 and all("--num-gpus=4" in call for call in started)
