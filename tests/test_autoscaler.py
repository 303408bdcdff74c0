"""Whether nodes may come, as a head says that is started as KubeRay starts one without an
autoscaler."""

import os
import subprocess
import sys

import pytest

from pipeline.runtime.files import read_yaml
from tests.project import ROOT
from tests.ray_head import TOKEN, ray_head

# What KubeRay sets in every pod, from which Ray takes the autoscaler's second version.
KUBERAY = {
    "RAY_CLOUD_INSTANCE_ID": "maskgit-head",
    "RAY_NODE_TYPE_NAME": "headgroup",
    "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
}
PROBE = """
import ray
from pipeline.runtime.room import may_grow, require_resources

ray.init(log_to_driver=False, logging_level="error")
print(may_grow())
require_resources(2, 2, False, "ray.num_workers")
"""


@pytest.mark.slow
@pytest.mark.parametrize("told", [True, False])
def test_workers_that_a_job_of_kuberay_has_no_nodes_for(told):
    """They are refused, and at once, though the cluster is young; but for what `rayjob.yaml` sets
    they would wait for an autoscaler that there is not."""
    job = read_yaml(ROOT / "deploy/rayjob.yaml")
    (head,) = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    own = {each["name"]: each["value"] for each in head["env"]} if told else {}
    with ray_head(dict(os.environ) | KUBERAY | own, cpus=1) as ray:
        env = os.environ | TOKEN | {"RAY_ADDRESS": f"127.0.0.1:{ray.port}", "PYTHONPATH": str(ROOT)}
        command = (sys.executable, "-c", PROBE)
        found = subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, timeout=120
        )
    assert found.stdout.splitlines()[0] == str(not told), found.stderr
    lacking = "ray.num_workers: 2 workers need 4 CPUs and the Ray cluster has 1"
    if told:
        assert f"{lacking}; lower" in found.stderr
    else:
        assert f"{lacking}; they wait" in found.stdout
