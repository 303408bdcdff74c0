"""What deploy/rayjob.yaml and raycluster.yaml may say to KubeRay: schemas of ours, which are not
KubeRay's own.

KubeRay's is a CRD of a megabyte that comes into a cluster with the operator, and was found in no
package to test with. These were written by hand after the types of KubeRay's ray.io/v1 and their
reference (https://ray-project.github.io/kuberay/reference/api/), 1.5.1 and later, for the fields
that the files have. Each of them is asked for, since each says something that is meant. No others
are taken: `kubectl create` refuses a field that the CRD has not, and who asks it not to look has
the field dropped. Who gives a file a new field looks it up there, and adds it here. Numbers have
bounds that only the operator looks at. Templates of pods are left out: Kubernetes' own schema holds
them.
"""

from typing import Any

from jsonschema import Draft202012Validator

Schema = dict[str, Any]


def fields(**of: Schema) -> Schema:
    """All of these and no others."""
    return {
        "type": "object",
        "properties": of,
        "required": list(of),
        "additionalProperties": False,
    }


TEXT: Schema = {"type": "string", "minLength": 1}
SHARE: Schema = {"type": "number", "minimum": 0}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}  # int32
POD: Schema = {"type": "object"}
START: Schema = {"type": "object", "additionalProperties": TEXT}  # of `ray start`, which takes text


def cluster(**more: Schema) -> Schema:
    """A RayClusterSpec."""
    return fields(
        rayVersion=TEXT,
        authOptions=fields(mode={"enum": ["disabled", "token"]}),
        headGroupSpec=fields(rayStartParams=START, template=POD),
        workerGroupSpecs={
            "type": "array",
            "items": fields(
                groupName=TEXT,
                replicas=COUNT,
                minReplicas=COUNT,
                maxReplicas=COUNT,
                rayStartParams=START,
                template=POD,
            ),
        },
        **more,
    )


JOB = fields(
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=fields(generateName=TEXT),
    spec=fields(
        entrypoint=TEXT,
        entrypointNumCpus=SHARE,
        entrypointNumGpus=SHARE,
        backoffLimit=COUNT,
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=COUNT,
        rayClusterSpec=cluster(),
    ),
)
CLUSTER = fields(
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata=fields(name=TEXT),
    spec=cluster(
        enableInTreeAutoscaling={"type": "boolean"},
        autoscalerOptions=fields(version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=COUNT),
    ),
)


def complaints(made: dict, schema: Schema) -> list[str]:
    """What is wrong with a RayJob or RayCluster: the place of each and what is said of it."""
    errors = Draft202012Validator(schema).iter_errors(made)
    return [f"{error.json_path}: {error.message}" for error in errors]
