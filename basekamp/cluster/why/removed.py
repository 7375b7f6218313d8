"""Why a pod that ran was taken off its node, or was turned away by it."""

import re

from basekamp.cluster.why.capacity import Object
from basekamp.cluster.why.finding import Finding
from basekamp.cluster.why.printed import one_line
from basekamp.cluster.why.scene import Scene, Step


def why_removed(step: Step, scene: Scene) -> Finding | None:
    """Explain a pod that was taken off its node, or that the node would not have."""
    status, disrupted = step.status, step.condition("DisruptionTarget")
    reason, message = str(status.get("reason") or ""), one_line(status.get("message"))
    if disrupted.get("reason") == "PreemptionByScheduler" or step.event("Preempted"):
        return _preempted(step, disrupted)
    if reason == "Evicted":
        return _evicted(step, message)
    if reason == "UnexpectedAdmissionError" or "Allocate failed" in message:
        return Finding(
            "gpu-not-allocated",
            step.name,
            f"The node {step.node} took {step.task} and could not give it its GPU: {message}.",
            "Look at the device plugin's log and the GPU's health on this node (`nvidia-smi`, XID errors); submit "
            "again.",
            {"node": step.node, "message": message},
        )
    if disrupted.get("reason") == "EvictionByEvictionAPI":
        return Finding(
            "drained",
            step.name,
            f"{step.task} was moved off {step.node}, as when a node is drained for maintenance.",
            "Submit again: training goes on from its checkpoint; a PodDisruptionBudget holds a drain back.",
            {"node": step.node, "message": one_line(disrupted.get("message"))},
        )
    lost = reason in ("NodeLost", "NodeShutdown", "Terminated", "Shutdown")
    lost = lost or disrupted.get("reason") in ("DeletionByTaintManager", "DeletionByPodGC")
    if lost or _is_off(step, scene):
        return _node_lost(step, scene, one_line(disrupted.get("message")) or message)
    if reason == "DeadlineExceeded":
        limit = step.spec.get("activeDeadlineSeconds")
        return Finding(
            "deadline-exceeded",
            step.name,
            f"{step.task} ran longer than it may{f' ({limit} s)' if limit else ''} and was stopped.",
            "Raise the deadline, or train less in one step: a training goes on from its checkpoint when run again.",
            {"deadline_seconds": limit},
        )
    return None


def _preempted(step: Step, disrupted: Object) -> Finding:
    event = step.event("Preempted") or {}
    message = one_line(event.get("message") or disrupted.get("message"))
    priority = step.spec.get("priorityClassName") or step.spec.get("priority") or 0
    return Finding(
        "preempted",
        step.name,
        f"{step.task} had to make room on {step.node or 'its node'} for a pod of higher priority than its own "
        f"({priority}): {message}.",
        "Submit again: training goes on from its checkpoint; or give the step a higher priority class.",
        {"node": step.node, "priority": priority, "message": message},
    )


def _evicted(step: Step, message: str) -> Finding:
    evidence = {"node": step.node, "message": message}
    if "DiskPressure" in message:
        return Finding(
            "disk-pressure",
            step.name,
            f"The node {step.node} turned {step.task} away, as it is short of disk space: {message}.",
            "Free disk space there (old images, logs, emptyDir volumes) or add a node, and submit again.",
            evidence,
        )
    volume = re.search(r'EmptyDir volume "([^"]+)" exceeds the limit "([^"]+)"', message)
    if volume:
        shm = _is_shm(step, volume[1])
        return Finding(
            "volume-limit",
            step.name,
            f"{step.task} was evicted: it wrote more than {volume[2]} to the volume "
            f"{volume[1]}{', its shared memory' if shm else ''}.",
            "Raise the volume's size limit"
            + (", or use fewer DataLoader workers." if shm else ", or write less to it."),
            {**evidence, "volume": volume[1], "limit": volume[2]},
        )
    own = re.search(r'(?:total limit of containers|local ephemeral storage limit) "?([0-9.]+\w*)', message)
    if own:
        return Finding(
            "ephemeral-storage-limit",
            step.name,
            f"{step.task} was evicted: it wrote more to its own disk than its limit of {own[1].rstrip('.')}.",
            "Raise the step's ephemeral-storage limit, or write large files to a volume or the store.",
            {**evidence, "limit": own[1].rstrip(".")},
        )
    low = re.search(r"low on resource: (\S+?)\.", message)
    what = {"memory": "memory", "ephemeral-storage": "disk space"}.get(low[1] if low else "", low[1] if low else "")
    used = re.search(r"Container (\S+) was using (\S+), request is (\S+?),", message)
    return Finding(
        "evicted",
        step.name,
        f"The node {step.node} ran short of {what or 'a resource'} and evicted {step.task}"
        + (f", whose container {used[1]} used {used[2]} and had asked for {used[3]}." if used else f": {message}."),
        f"Ask for as much {what or 'of it'} as the step needs, so that the node keeps it free, and submit again.",
        {
            **evidence,
            "resource": low[1] if low else "",
            "used": used[2] if used else "",
            "request": used[3] if used else "",
        },
    )


def _is_off(step: Step, scene: Scene) -> bool:
    """Whether the pod's node went away under it: an event says so, and nothing else ended the pod."""
    if not step.event("NodeNotReady", "TaintManagerEviction") or step.phase == "Succeeded" or step.failed():
        return False
    return step.phase != "Running" or _ready(step, scene).get("status") != "True"


def _ready(step: Step, scene: Scene) -> Object:
    """The condition Ready of the pod's node, {} where it is gone or may not be read."""
    node: Object = next((node for node in scene.nodes or [] if node["metadata"]["name"] == step.node), {})
    conditions = (node.get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == "Ready"), {})


def _node_lost(step: Step, scene: Scene, message: str) -> Finding:
    ready = _ready(step, scene)
    if scene.nodes is not None and not ready:
        state = "it is gone from the cluster"
    elif ready and ready.get("status") != "True":
        state = one_line(ready.get("message")) or "it is not ready"
    else:
        state = message or "it was not ready for a time"
    return Finding(
        "node-lost",
        step.name,
        f"{step.task} was lost with its node {step.node}: {state}.",
        "Submit again: training goes on from its checkpoint; look at the node if it happens often (spot instance, "
        "GPU fault, memory).",
        {"node": step.node, "message": message, "ready": ready.get("status", "")},
    )


def _is_shm(step: Step, volume: str) -> bool:
    mounts = [mount for each in step.spec.get("containers") or [] for mount in each.get("volumeMounts") or []]
    return any(mount.get("mountPath") == "/dev/shm" and mount["name"] == volume for mount in mounts)
