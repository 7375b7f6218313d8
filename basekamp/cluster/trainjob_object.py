"""The TrainJob that a training on several nodes becomes: its nodes get what this pod has.

Source of the fields: kubeflow/trainer v2.3.0, manifests/base/crds/trainer.kubeflow.org_trainjobs.yaml;
`runtimePatches` and `activeDeadlineSeconds` came with v2.2.0. No secret's value is ever written into it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from basekamp.errors import StoreError
from basekamp.storage.s3_access import AWS_KEYS, MINIO_KEYS
from basekamp.tracking.variables import TRACKING_SECRETS, TRACKING_SETTINGS

Object = dict[str, Any]

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
NODE = "node"
"""What Kubeflow Trainer calls the job and the container of its torch runtime."""

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
SECRETS = (*AWS_KEYS, *MINIO_KEYS, "AWS_SESSION_TOKEN")
SETTINGS = (
    "BASEKAMP_S3_ENDPOINT",
    "MINIO_ENDPOINT",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CA_BUNDLE",
    "SSL_CERT_FILE",
)
RESTRICTED = {  # what Pod Security asks for where it is strictest
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}

_HANDED_ON = ("emptyDir", "secret", "configMap")
_PLUMBING = ("var-run-argo", "argo-", "kfp-launcher", "tmp-dir-argument", "input-artifacts")


@dataclass(frozen=True)
class Nodes:
    """How many nodes, how many GPUs each, and what Kubernetes calls these."""

    count: int
    gpus: int
    gpu_type: str


def train_job(
    name: str, *, pod: Object, nodes: Nodes, command: Sequence[str], runtime: str, timeout_seconds: float
) -> Object:
    """Build the object; it belongs to `pod`, the one this runs in, and goes when that goes.

    From the pod come image, CPU and memory, the store's settings and secrets by reference, node selector,
    tolerations, pull secrets, mounted volumes and the queue. Raises StoreError for a secret that the pod holds by
    value, or not at all.
    """
    container = _main(pod)
    labels = {"app.kubernetes.io/name": "basekamp", "app.kubernetes.io/component": "training"}
    queue = (pod["metadata"].get("labels") or {}).get(QUEUE_LABEL)
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": name,
            "labels": {**labels, QUEUE_LABEL: queue} if queue else labels,
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
            ],
        },
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", "name": runtime},
            "activeDeadlineSeconds": int(timeout_seconds),
            "trainer": {
                "numNodes": nodes.count,
                "numProcPerNode": max(nodes.gpus, 1),
                "image": container["image"],
                "command": list(command),
                "env": _environment(container),
                "resourcesPerNode": _resources(container, nodes),
            },
            "runtimePatches": [_patch(pod, container)],
        },
    }


def _main(pod: Object) -> Object:
    """The container that runs the step's own code; Argo calls it main."""
    containers: list[Object] = pod["spec"]["containers"]
    return next((each for each in containers if each["name"] == "main"), containers[0])


def _environment(container: Object) -> list[Object]:
    """The variables through which the pod reaches its store and its trackers, as it was given them."""
    given = {each["name"]: each for each in container.get("env") or []}
    for name in (*SECRETS, *TRACKING_SECRETS):
        if name in given and "valueFrom" not in given[name]:
            raise StoreError(f"this pod holds {name} by value, which is not handed on: give it from a Secret.")
    if not any(set(pair) <= set(given) for pair in (AWS_KEYS, MINIO_KEYS)):
        raise StoreError(
            f"the nodes cannot be given credentials for the store: this pod has no {' and '.join(AWS_KEYS)} "
            "from a Secret, each as a variable of its own."
        )
    handed_on = (*SETTINGS, *SECRETS, *TRACKING_SETTINGS, *TRACKING_SECRETS)
    return [given[name] for name in handed_on if name in given]


def _resources(container: Object, nodes: Nodes) -> Object:
    """CPU and memory as the pod has them, and the nodes' own GPUs."""
    gpus = {nodes.gpu_type: str(nodes.gpus)} if nodes.gpus else {}
    found = {}
    for side in ("requests", "limits"):
        given = (container.get("resources") or {}).get(side) or {}
        found[side] = {**{name: str(given[name]) for name in ("cpu", "memory") if name in given}, **gpus}
    return {side: amounts for side, amounts in found.items() if amounts}


def _patch(pod: Object, container: Object) -> Object:
    """What the nodes' pods have beyond the runtime's."""
    spec = pod["spec"]
    mounted = {mount["name"] for mount in container.get("volumeMounts") or []}
    volumes = [each for each in spec.get("volumes") or [] if each["name"] in mounted and _is_handed_on(each)]
    kept = {volume["name"] for volume in volumes}
    node = {
        "name": NODE,
        "securityContext": {**(container.get("securityContext") or {}), **RESTRICTED},
        "volumeMounts": [mount for mount in container.get("volumeMounts") or [] if mount["name"] in kept],
    }
    patched = {
        "containers": [{key: value for key, value in node.items() if value}],
        "imagePullSecrets": spec.get("imagePullSecrets"),
        "nodeSelector": spec.get("nodeSelector"),
        "securityContext": spec.get("securityContext"),
        "tolerations": spec.get("tolerations"),
        "volumes": volumes,
    }
    pod_template = {"spec": {key: value for key, value in patched.items() if value}}
    job = {"name": NODE, "template": {"spec": {"template": pod_template}}}
    return {"manager": "basekamp", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}}}


def _is_handed_on(volume: Object) -> bool:
    """Shared memory, scratch space, certificates; not what Argo and Kubeflow Pipelines put in."""
    return any(kind in volume for kind in _HANDED_ON) and not volume["name"].startswith(_PLUMBING)
