"""Everything the cluster knows of one run: its workflow, its pods, their events and logs.

A pod of Kubeflow Pipelines carries the label pipeline/runid and belongs to an Argo Workflow
(workflows.argoproj.io/workflow). Its annotation workflows.argoproj.io/node-name ends in TASK.executor for a
step and in TASK-driver for the driver that prepares it; init containers are init and kfp-launcher, containers
wait and main, and main runs the user's code under KFP's launcher.
"""

import base64
import gzip
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote

from basekamp.cluster.endpoint import OutageError
from basekamp.cluster.kube import AbsentError, Cluster, RefusedError
from basekamp.errors import InputError

Object = dict[str, Any]

RUN_LABEL = "pipeline/runid"
WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
NODE_NAME = "workflows.argoproj.io/node-name"
NODE_ID = "workflows.argoproj.io/node-id"
RUN_NAME = "pipelines.kubeflow.org/run_name"
JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
ROLE = "pipelines.kubeflow.org/runtime-role"
LOG_LINES = 200

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")
_TRAINJOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/{}/trainjobs"
_WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/{}/workflows"


@dataclass(frozen=True)
class Step:
    """A pod of the run, with what rules ask of it."""

    pod: Object
    events: list[Object] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The pod's name."""
        return str(self.pod["metadata"]["name"])

    @property
    def annotations(self) -> dict[str, str]:
        """The pod's annotations."""
        return self.pod["metadata"].get("annotations") or {}

    @property
    def task(self) -> str:
        """The pipeline's name for the step, else the pod's name."""
        name = task_name(self.annotations.get(NODE_NAME, "")) or self.name
        return f"KFP's driver of {name}" if self.is_driver else name

    @property
    def is_driver(self) -> bool:
        """Whether this is one of KFP's own pods that prepare a step."""
        node = self.annotations.get(NODE_NAME, "")
        return self.annotations.get(ROLE) == "driver" or bool(re.search(r"-driver(\(\d+\))?\Z", node))

    @property
    def spec(self) -> Object:
        """The pod's specification."""
        return self.pod.get("spec") or {}

    @property
    def status(self) -> Object:
        """The pod's status."""
        return self.pod.get("status") or {}

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded, Failed or Unknown."""
        return str(self.status.get("phase") or "Unknown")

    @property
    def node(self) -> str:
        """The node it was placed on, "" for none."""
        return str(self.spec.get("nodeName") or "")

    @cached_property
    def containers(self) -> list[Object]:
        """The statuses of its containers, init containers first, then main, then the others."""
        later = sorted(self.status.get("containerStatuses") or [], key=lambda each: each["name"] != "main")
        return [*(self.status.get("initContainerStatuses") or []), *later]

    def condition(self, kind: str) -> Object:
        """The pod's condition of a kind, {} for none."""
        return next((each for each in self.status.get("conditions") or [] if each.get("type") == kind), {})

    def container_spec(self, name: str) -> Object:
        """The specification of a container, {} for none."""
        every = [*(self.spec.get("initContainers") or []), *(self.spec.get("containers") or [])]
        return next((each for each in every if each["name"] == name), {})

    def waiting(self) -> list[tuple[str, str, str]]:
        """Container, reason and message of each container that waits."""
        states = [(each["name"], (each.get("state") or {}).get("waiting") or {}) for each in self.containers]
        return [(name, str(state.get("reason", "")), str(state.get("message", ""))) for name, state in states if state]

    def failed(self) -> tuple[str, Object] | None:
        """The first container that ended badly, with its terminated state."""
        for each in self.containers:
            for state in (each.get("state") or {}, each.get("lastState") or {}):
                ended = state.get("terminated")
                if ended and (ended.get("exitCode") or ended.get("reason") == "OOMKilled"):
                    return str(each["name"]), ended
        return None

    def event(self, *reasons: str) -> Object | None:
        """The newest event of one of the reasons."""
        fitting = [event for event in self.events if event.get("reason") in reasons]
        return max(fitting, key=event_time, default=None)

    @property
    def time(self) -> str:
        """When it went wrong, as RFC 3339 text: the end of a container, an event, or the pod's start."""
        failed = self.failed()
        ended = (failed[1].get("finishedAt") if failed else None) or self.condition("DisruptionTarget").get(
            "lastTransitionTime"
        )
        return str(ended or self.pod["metadata"].get("creationTimestamp") or "")


@dataclass
class Scene:
    """One run in one namespace; what costs a request is asked when a rule needs it."""

    client: Cluster
    namespace: str
    workflow: Object | None
    pods: list[Object]
    trainjobs: list[Object] = field(default_factory=list)

    @cached_property
    def steps(self) -> list[Step]:
        """The run's pods, without attempts that a later one made good."""
        done = {_attempted(pod) for pod in self.pods if (pod.get("status") or {}).get("phase") == "Succeeded"}
        kept = [
            pod
            for pod in self.pods
            if (pod.get("status") or {}).get("phase") != "Failed" or _attempted(pod) not in done
        ]
        return [Step(pod, self.events_of("Pod", pod["metadata"]["name"])) for pod in kept]

    @cached_property
    def events(self) -> list[Object]:
        """The namespace's events; none where they may not be read. Kubernetes forgets them after an hour."""
        return self._readable(f"/api/v1/namespaces/{quote(self.namespace)}/events") or []

    @cached_property
    def nodes(self) -> list[Object] | None:
        """The cluster's nodes, None where they may not be read."""
        return self._readable("/api/v1/nodes")

    @cached_property
    def everywhere(self) -> list[Object] | None:
        """The pods of all namespaces, None where they may not be read."""
        return self._readable("/api/v1/pods")

    @cached_property
    def workflow_nodes(self) -> dict[str, Object]:
        """Argo's own account of every step, by node id; large workflows hold it compressed."""
        status = (self.workflow or {}).get("status") or {}
        packed = status.get("compressedNodes")
        if packed:
            unpacked = json.loads(gzip.decompress(base64.b64decode(packed)))
            return dict(unpacked)
        return status.get("nodes") or {}

    def events_of(self, kind: str, name: str) -> list[Object]:
        """The events about an object."""
        return [
            event
            for event in self.events
            if (event.get("involvedObject") or {}).get("kind") == kind and event["involvedObject"].get("name") == name
        ]

    def node_events(self, node: str) -> list[Object]:
        """The events about a node, which lie in the namespace default."""
        chosen = f"involvedObject.kind=Node,involvedObject.name={node}"
        return self._readable("/api/v1/namespaces/default/events", fields=chosen) or []

    def log(self, step: Step, container: str) -> list[str]:
        """The last lines that a container printed; none where they are gone or may not be read."""
        status = next((each for each in step.containers if each["name"] == container), {})
        restarted = "terminated" not in (status.get("state") or {}) and bool(status.get("restartCount"))
        try:
            text = self.client.log(self.namespace, step.name, container, lines=LOG_LINES, previous=restarted)
        except (RefusedError, OutageError):
            return []
        return text.splitlines()

    def object(self, path: str) -> Object | None:
        """An object of the namespace by its path below it, None for absent or unreadable."""
        try:
            return self.client.get(f"/api/v1/namespaces/{quote(self.namespace)}/{path}")
        except RefusedError:
            return None

    def names(self, resource: str) -> list[str]:
        """The names of the namespace's objects of a kind; none where they may not be read."""
        found = self._readable(f"/api/v1/namespaces/{quote(self.namespace)}/{resource}") or []
        return sorted(each["metadata"]["name"] for each in found)

    def _readable(self, path: str, *, fields: str = "") -> list[Object] | None:
        try:
            return self.client.items(path, fields=fields)
        except RefusedError as error:
            if error.status == 401:
                raise
            return None


def find_scene(run: str, *, namespace: str, client: Cluster) -> Scene:
    """Find a run by its id, its name, its workflow's name or a pod's name; of several, the newest.

    Raises InputError for an unknown run or namespace, BasekampError for a cluster that does not answer.
    """
    run = run.strip()
    base = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"
    if _OBJECT_NAME.match(run):
        try:
            pod = client.get(f"{base}/{quote(run)}")
            return Scene(client, namespace, None, [pod])
        except AbsentError:
            pass
    workflow = _find_workflow(run, namespace=namespace, client=client)
    labels = [f"{RUN_LABEL}={run}", f"{WORKFLOW_LABEL}={run}", f"{JOBSET_LABEL}={run}"]
    if workflow is not None:
        labels = [f"{WORKFLOW_LABEL}={workflow['metadata']['name']}", *_run_id(workflow)]
    elif not _LABEL_VALUE.match(run):
        labels = []
    pods: dict[str, Object] = {}
    for label in labels:
        pods |= {pod["metadata"]["name"]: pod for pod in client.items(base, labels=label)}
    trainjobs = _trainjobs(pods.values(), namespace=namespace, client=client)
    for job in trainjobs:
        label = f"{JOBSET_LABEL}={job['metadata']['name']}"
        pods |= {pod["metadata"]["name"]: pod for pod in client.items(base, labels=label)}
    if workflow is None and not pods:
        client.require_namespace(namespace)
        raise InputError(
            f"Namespace {namespace} knows no run, workflow or pod {run!r}: copy the run's id from the address of its "
            "page in the Kubeflow UI, or name another namespace; a run's pods are deleted some time after its end."
        )
    return Scene(client, namespace, workflow, sorted(pods.values(), key=_created), trainjobs)


def task_name(node_name: str) -> str:
    """Read the task from Argo's name of a node: `….train-model.executor(0)`, `….train-model-driver`."""
    parts = [re.sub(r"\(\d+(:[^)]*)?\)\Z", "", part) for part in node_name.split(".")]
    if parts[-1] == "executor" and len(parts) > 1:
        parts.pop()
    return parts[-1].removesuffix("-driver")


def event_time(event: Object) -> str:
    """When an event was last seen, as RFC 3339 text."""
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(series or event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp") or "")


def _find_workflow(run: str, *, namespace: str, client: Cluster) -> Object | None:
    path = _WORKFLOWS.format(quote(namespace, safe=""))
    try:
        if _LABEL_VALUE.match(run):
            found = client.items(path, labels=f"{RUN_LABEL}={run}")
            if found:
                return max(found, key=_created)
        if _OBJECT_NAME.match(run):
            try:
                return client.get(f"{path}/{quote(run)}")
            except AbsentError:
                pass
        named = [
            each for each in client.items(path) if (each["metadata"].get("annotations") or {}).get(RUN_NAME) == run
        ]
        return max(named, key=_created, default=None)
    except RefusedError as error:
        if error.status in (403, 404):  # no right to see workflows, or no Argo at all: the pods may tell
            return None
        raise


def _trainjobs(pods: Iterable[Object], *, namespace: str, client: Cluster) -> list[Object]:
    """The TrainJobs that the run's pods own; none where Kubeflow Trainer is absent or they may not be read."""
    owners = {pod["metadata"].get("uid") for pod in pods}
    try:
        found = client.items(_TRAINJOBS.format(quote(namespace, safe="")))
    except RefusedError:
        return []
    return [
        job
        for job in found
        if any(owner.get("uid") in owners for owner in job["metadata"].get("ownerReferences") or [])
    ]


def _run_id(workflow: Object) -> list[str]:
    run = (workflow["metadata"].get("labels") or {}).get(RUN_LABEL)
    return [f"{RUN_LABEL}={run}"] if run else []


def _created(thing: Object) -> str:
    return str(thing["metadata"].get("creationTimestamp") or "")


def _attempted(pod: Object) -> str:
    """Name what a pod tried to do: Argo's node without the number of the attempt."""
    metadata = pod["metadata"]
    node = (metadata.get("annotations") or {}).get(NODE_NAME)
    return re.sub(r"\(\d+\)\Z", "", node) if node else str(metadata["name"])
