"""deploy/: what can be known of a job and a cluster for KubeRay where there is none. (SLURM:
tests/test_slurm.py.)"""

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from packaging.version import Version
from ray.autoscaler._private.kuberay import autoscaling_config

from pipeline.config.presets import preset_params
from pipeline.runtime.dag import flatten
from pipeline.runtime.files import read_yaml
from pipeline.runtime.node_checkout import Remote, cache_folder
from pipeline.runtime.process import THREADS
from pipeline.runtime.ray_cluster import AUTOSCALING
from tests import rayjob
from tests.params import PRESET
from tests.project import ROOT
from tests.rayjob import complaints

JOB, CLUSTER, SLURM = (
    ROOT / "deploy" / name for name in ("rayjob.yaml", "raycluster.yaml", "slurm.sh")
)
SCHEMAS = {JOB: rayjob.JOB, CLUSTER: rayjob.CLUSTER}
OF = "spec.rayClusterSpec"
PAPER = preset_params("imagenet256").ray
KUBERAY = pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def cluster_of(made: dict) -> dict:
    """The RayClusterSpec of a RayJob, or of a RayCluster."""
    return made["spec"].get("rayClusterSpec", made["spec"])


def pods(cluster: dict) -> list[dict]:
    """The head's and each group's of workers."""
    groups = (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("path", [JOB, CLUSTER, SLURM])
def test_params_that_a_file_names_exist(path):
    named = set(re.findall(r"\b((?:ray|sweep|cas|training)\.[a-z_]+)", path.read_text()))
    assert named >= {"ray.num_workers", "ray.cpus_per_worker"}
    assert named - set(flatten(read_yaml(PRESET))) <= {"ray.io"}


@KUBERAY
def test_a_file_has_fields_that_kuberay_knows(path):
    """By schemas of ours (tests/rayjob.py)."""
    assert complaints(read(path), SCHEMAS[path]) == []


@pytest.mark.parametrize(
    ("path", "place", "change", "told"),
    [
        (JOB, "$", {"kind": "RayCluster"}, "'RayJob' was expected"),
        (JOB, "$.spec", {"backofLimit": 2}, "'backofLimit' was unexpected"),
        (JOB, "$.spec", {"backoffLimit": "2"}, "'2' is not of type 'integer'"),
        (JOB, "$.spec", {"ttlSecondsAfterFinished": -1}, "-1 is less than the minimum"),
        (JOB, "$.spec", {"shutdownAfterJobFinishes": "yes"}, "'yes' is not of type 'boolean'"),
        (JOB, f"$.{OF}", {"headGroupSpecs": {}}, "'headGroupSpecs' was unexpected"),
        (JOB, f"$.{OF}", {"rayVersion": 2.6}, "2.6 is not of type 'string'"),
        (JOB, f"$.{OF}.authOptions", {"mode": "tokens"}, "'tokens' is not one of"),
        (JOB, f"$.{OF}.headGroupSpec.rayStartParams", {"num-cpus": 0}, "0 is not of type"),
        (JOB, f"$.{OF}.workerGroupSpecs[0]", {"replica": 1}, "'replica' was unexpected"),
        (JOB, f"$.{OF}.workerGroupSpecs[0]", {"maxReplicas": 1.5}, "1.5 is not of type"),
        (CLUSTER, "$", {"kind": "RayJob"}, "'RayCluster' was expected"),
        (CLUSTER, "$.metadata", {"generateName": "m-"}, "'generateName' was unexpected"),
        (CLUSTER, "$.spec", {"entrypoint": "dvc repro"}, "'entrypoint' was unexpected"),
        (CLUSTER, "$.spec", {"enableInTreeAutoscaling": "true"}, "'true' is not of type"),
        (CLUSTER, "$.spec.autoscalerOptions", {"version": 2}, "2 is not one of ['v1', 'v2']"),
        (CLUSTER, "$.spec.autoscalerOptions", {"idleTimeout": 9}, "'idleTimeout' was unexpected"),
        (CLUSTER, "$.spec.autoscalerOptions", {"idleTimeoutSeconds": -1}, "-1 is less than"),
        (CLUSTER, "$.spec.workerGroupSpecs[0]", {"minReplicas": "0"}, "'0' is not of type"),
    ],
)
def test_what_kuberay_does_not_take_is_told(path, place, change, told):
    """So that the schemas are some."""
    part = made = read(path)
    for key in re.findall(r"\w+", place):
        part = part[int(key) if key.isdigit() else key]
    part |= change
    (complaint,) = complaints(made, SCHEMAS[path])
    assert complaint.startswith(place) and told in complaint


@KUBERAY
def test_a_file_without_a_field_that_is_meant_is_told(path):
    made = read(path)
    del cluster_of(made)["authOptions"]
    (complaint,) = complaints(made, SCHEMAS[path])
    assert complaint.endswith(": 'authOptions' is a required property")


@KUBERAY
def test_kuberays_operator_finds_nothing_amiss(path):
    """It looks at what is made already, for what no schema says, and fails what it finds."""
    made = read(path)
    cluster = cluster_of(made)
    assert cluster["authOptions"] == {"mode": "token"}  # for which Ray is to be 2.52 or newer
    assert Version(cluster["rayVersion"]) >= Version("2.52.0")
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    if path == JOB:
        assert made["spec"]["shutdownAfterJobFinishes"]  # or ttlSecondsAfterFinished has no place
        name, most = made["metadata"]["generateName"] + "12345", 47  # as the API server makes it
    else:
        name, most = made["metadata"]["name"], 53
        for pod in pods(cluster):  # which its autoscaler's second version begins anew itself
            assert pod.get("restartPolicy", "Never") == "Never"
    assert len(name) <= most and re.fullmatch("[a-z][a-z0-9-]*[a-z0-9]", name)


@KUBERAY
def test_the_pods_are_what_kubernetes_takes(path):
    """By its own schema."""
    for spec in pods(cluster_of(read(path))):
        require_pod(spec)


def require_pod(spec: dict) -> None:
    pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "ray"}}
    kubernetes_validate.validate(pod | {"template": {"spec": spec}}, "1.30", strict=True)


@KUBERAY
def test_a_pod_that_kubernetes_does_not_take_is_told(path):
    """So that the schema is one."""
    pod, *_ = pods(cluster_of(read(path)))
    (container,) = pod["containers"]
    container["resources"]["limit"] = container["resources"].pop("limits")
    with pytest.raises(kubernetes_validate.ValidationError, match="limit"):
        require_pod(pod)


@KUBERAY
def test_pods_mount_what_they_name_and_run_the_tested_ray(path):
    made = read(path)
    version = cluster_of(made)["rayVersion"]
    assert f"ray=={version}\n" in (ROOT / "constraints.txt").read_text()
    for pod in pods(cluster_of(made)):
        (container,) = pod["containers"]
        named = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == named
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert path == CLUSTER or container["workingDir"] in made["spec"]["entrypoint"]


def limits_of(pod: dict) -> dict:
    return pod["containers"][0]["resources"]["limits"]


def test_workers_are_as_many_as_the_paper_needs_and_one_for_the_entrypoint():
    spec = read(JOB)["spec"]
    (worker,) = cluster_of({"spec": spec})["workerGroupSpecs"]
    limits = limits_of(worker["template"]["spec"])
    assert worker["replicas"] == worker["minReplicas"] == worker["maxReplicas"]
    assert worker["replicas"] == PAPER.num_workers + spec["entrypointNumGpus"]
    assert int(limits["cpu"]) == PAPER.cpus_per_worker == spec["entrypointNumCpus"]
    assert limits["nvidia.com/gpu"] == "1"


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
    assert known["idle_timeout_minutes"] > 1  # its own, within which a stage begins at times
    assert made["spec"]["enableInTreeAutoscaling"]


def test_pods_of_the_cluster_share_no_volume():
    kinds = [
        set(volume) - {"name"} for pod in pods(read(CLUSTER)["spec"]) for volume in pod["volumes"]
    ]
    assert kinds == [{"emptyDir"}] * 4
    job = [
        set(volume) - {"name"} for pod in pods(cluster_of(read(JOB))) for volume in pod["volumes"]
    ]
    assert {"persistentVolumeClaim"} in job  # so that it would be seen


def test_what_jobs_keep_lies_where_the_pods_have_room(monkeypatch):
    """In the home of the image's user, who is root where the Containerfile names no other."""
    assert "USER" not in (ROOT / "Containerfile").read_text()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/root")
    kept = cache_folder(Remote("store", {"url": "s3://bucket"}))
    for pod in pods(read(CLUSTER)["spec"]):
        mounts = {
            mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]
        }
        assert kept.is_relative_to(mounts["cache"]) and mounts["shared-memory"] == "/dev/shm"


def test_the_jobs_own_process_has_the_heads_cores():
    head, _ = pods(read(CLUSTER)["spec"])
    env = {variable["name"]: variable["value"] for variable in head["containers"][0]["env"]}
    assert env == {THREADS: limits_of(head)["cpu"], AUTOSCALING: "1"}


def test_the_page_names_what_kuberay_calls_after_the_cluster():
    """GenerateHeadServiceName and SetContainerTokenAuthEnvVars of its source."""
    page, name = (ROOT / "docs/cluster.md").read_text(), read(CLUSTER)["metadata"]["name"]
    assert f"kubectl port-forward service/{name}-head-svc 8265 " in page
    assert f"kubectl get secret {name} --output jsonpath='{{.data.auth_token}}' |" in page
    assert f"kubectl describe raycluster {name}`" in page
    for pod in pods(read(CLUSTER)["spec"]):
        (source,) = pod["containers"][0]["envFrom"]
        assert f"kubectl create secret generic {source['secretRef']['name']} " in page
        assert source["secretRef"]["name"] != name and source["secretRef"]["optional"]
