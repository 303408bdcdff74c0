"""deploy/: the files for KubeRay and SLURM, checked without KubeRay and SLURM."""

import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from pipeline.config.presets import preset_params
from tests.project import ROOT

JOB, CLUSTER, SLURM = (
    ROOT / "deploy" / name for name in ("rayjob.yaml", "raycluster.yaml", "slurm.sh")
)
PAPER = preset_params("imagenet256").ray


def cluster_of(path: Path) -> tuple[dict, list[dict]]:
    """The RayClusterSpec of a RayJob or a RayCluster, and the pods of the head and the workers."""
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


def test_the_slurm_script_is_clean_and_its_nodes_hold_the_papers_workers():
    done = subprocess.run(["shellcheck", SLURM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", SLURM.read_text(), re.MULTILINE))
    gpus = int(options["gpus-per-node"])
    assert int(options["nodes"]) * gpus == PAPER.num_workers
    assert int(options["cpus-per-task"]) == gpus * PAPER.cpus_per_worker
