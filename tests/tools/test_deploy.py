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
from ray.autoscaler._private.kuberay import autoscaling_config

from pipeline.config.presets import preset_params
from pipeline.runtime.dag import flatten
from pipeline.runtime.files import read_yaml
from pipeline.runtime.node_checkout import Remote, cache_folder
from pipeline.runtime.process import THREADS
from pipeline.runtime.ray_cluster import AUTOSCALING
from tests.params import PRESET
from tests.project import ROOT

JOB, CLUSTER, SLURM = (
    ROOT / "deploy" / name for name in ("rayjob.yaml", "raycluster.yaml", "slurm.sh")
)
PAPER = preset_params("imagenet256").ray
KUBERAY = pytest.mark.parametrize("path", [JOB, CLUSTER], ids=lambda path: path.stem)


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def cluster_of(made: dict) -> dict:
    """The RayClusterSpec of a RayJob, or of a RayCluster."""
    return made["spec"].get("rayClusterSpec", made["spec"])


def pods(cluster: dict) -> list[dict]:
    """The head's and each group's of workers."""
    groups = (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    return [group["template"]["spec"] for group in groups]


def limits_of(pod: dict) -> dict:
    return pod["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize("path", [JOB, CLUSTER, SLURM])
def test_params_that_a_file_names_exist(path):
    named = set(re.findall(r"\b((?:ray|sweep|cas|training)\.[a-z_]+)", path.read_text()))
    assert named >= {"ray.num_workers", "ray.cpus_per_worker"}
    assert named - set(flatten(read_yaml(PRESET))) <= {"ray.io"}


@KUBERAY
def test_the_pods_are_what_kubernetes_takes_and_run_the_tested_ray(path):
    cluster = cluster_of(read(path))
    assert f"ray=={cluster['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    assert cluster["authOptions"] == {"mode": "token"}
    for spec in pods(cluster):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "ray"}}
        kubernetes_validate.validate(pod | {"template": {"spec": spec}}, "1.30", strict=True)
        (container,) = spec["containers"]
        named = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == named
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_job_has_a_worker_for_the_entrypoint_and_the_papers():
    spec = read(JOB)["spec"]
    (worker,) = cluster_of({"spec": spec})["workerGroupSpecs"]
    limits = limits_of(worker["template"]["spec"])
    assert worker["replicas"] == worker["minReplicas"] == worker["maxReplicas"]
    assert worker["replicas"] == PAPER.num_workers + spec["entrypointNumGpus"]
    assert int(limits["cpu"]) == PAPER.cpus_per_worker == spec["entrypointNumCpus"]
    assert limits["nvidia.com/gpu"] == "1" and spec["shutdownAfterJobFinishes"]


def test_rays_autoscaler_may_bring_the_papers_workers_and_take_all_away():
    """As it reads the cluster itself, which is how KubeRay runs it."""
    made = read(CLUSTER)
    made["metadata"]["namespace"] = "default"  # as the API server has it
    known = autoscaling_config._derive_autoscaling_config_from_ray_cr(made)
    kinds = known["available_node_types"]
    head, worker = (kinds[name] for name in (known["head_node_type"], "gpu"))
    assert head["resources"]["CPU"] == 0 and "GPU" not in head["resources"]
    assert (worker["min_workers"], worker["max_workers"]) == (0, PAPER.num_workers)
    has = {kind: worker["resources"][kind] for kind in ("CPU", "GPU")}
    assert has == {"CPU": PAPER.cpus_per_worker, "GPU": 1}
    assert known["idle_timeout_minutes"] > 1 and made["spec"]["enableInTreeAutoscaling"]


def test_the_cluster_without_a_volume_keeps_its_caches_where_the_pods_have_room(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/root")  # of the image's user
    kept = cache_folder(Remote("store", {"url": "s3://bucket"}))
    head, worker = pods(read(CLUSTER)["spec"])
    for pod in (head, worker):
        assert all(set(volume) - {"name"} == {"emptyDir"} for volume in pod["volumes"])
        mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
        assert kept.is_relative_to(mounts["cache"]) and mounts["shared-memory"] == "/dev/shm"
    env = {variable["name"]: variable["value"] for variable in head["containers"][0]["env"]}
    assert env == {THREADS: limits_of(head)["cpu"], AUTOSCALING: "1"}


def test_the_slurm_script_is_clean_and_its_nodes_hold_the_papers_workers():
    done = subprocess.run(["shellcheck", SLURM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", SLURM.read_text(), re.MULTILINE))
    gpus = int(options["gpus-per-node"])
    assert int(options["nodes"]) * gpus == PAPER.num_workers
    assert int(options["cpus-per-task"]) == gpus * PAPER.cpus_per_worker


# What the stand-ins for commands do besides noting their call: the head lives until the DAG has
# run, which begins when all have noted theirs.
DOES = {
    "ray": "echo $$ > head; exec sleep 600",
    "timeout": "until [ $(grep -c . calls) -ge $CALLS ] && [ -s head ]; do sleep 0.1; done",
    "dvc": "kill $(cat head)",
}


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "failing"), [(1, ""), (4, ""), (1, "ray"), (1, "srun")])
def test_the_slurm_script_starts_the_cluster_and_then_the_stages(tmp_path, nodes, failing):
    code, calls = run_slurm(tmp_path, nodes, failing)
    ran = [call for call in calls if call.startswith("dvc")]
    if failing:
        assert code and not ran
        return
    assert code == 0 and ran == ["dvc repro sweep cas 10.0.0.7:20123 64"]
    assert f"timeout 600 python deploy/wait_for_nodes.py {nodes} 10.0.0.7:20123 64" in calls
    started = [call for call in calls if "ray start" in call]
    assert len(started) == 1 + (nodes > 1) and all("--num-gpus=4" in call for call in started)


def run_slurm(tmp_path, nodes, failing):
    """Run the script with stand-ins for SLURM's, Ray's and DVC's commands, which note how they are
    called; returns its exit status and the calls."""
    (tmp_path / "deploy").mkdir()
    bin_folder = tmp_path / ".venv/bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "activate").write_text(f'PATH="{bin_folder}:$PATH"\n')
    for name in ("ray", "srun", "dvc", "timeout"):
        (bin_folder / name).write_text(
            f'#!/bin/sh\necho "{name} $* $RAY_ADDRESS ${{#RAY_AUTH_TOKEN}}" >> "{tmp_path}/calls"\n'
            f"{DOES.get(name, '') if name != failing else 'exit 1'}\n"
        )
        (bin_folder / name).chmod(0o755)
    (bin_folder / "hostname").write_text("#!/bin/sh\necho 10.0.0.7 172.17.0.1\n")
    (bin_folder / "hostname").chmod(0o755)
    environment = {"SLURM_SUBMIT_DIR": tmp_path, "SLURM_JOB_ID": "123", "SLURM_NNODES": nodes}
    environment |= {"SLURM_CPUS_PER_TASK": 32, "SLURM_GPUS_PER_NODE": "h100:4"}
    environment |= {"PATH": os.environ["PATH"], "CALLS": 3 if nodes == 1 else 4}
    script = subprocess.Popen(
        ["bash", SLURM, "sweep", "cas"],
        env={k: str(v) for k, v in environment.items()},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    code = script.wait(timeout=60)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(script.pid, signal.SIGKILL)  # SLURM ends what a job has left
    return code, (tmp_path / "calls").read_text().splitlines()
