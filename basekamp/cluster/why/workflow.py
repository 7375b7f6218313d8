"""What only Argo's Workflow knows: pods that were never made, or that are gone, and runs that were stopped."""

import re

from basekamp.cluster.why.capacity import Object
from basekamp.cluster.why.finding import Finding
from basekamp.cluster.why.scene import JOBSET_LABEL, NODE_ID, Scene, Step, event_time, task_name

_BAD = ("Failed", "Error", "Pending")


def why_without_pod(scene: Scene) -> list[tuple[str, Finding]]:
    """Explain each step whose pod was refused or is gone; gives (time, finding)."""
    seen = {(pod["metadata"].get("annotations") or {}).get(NODE_ID) for pod in scene.pods}
    done = {_attempted(node) for node in scene.workflow_nodes.values() if node.get("phase") == "Succeeded"}
    found: list[tuple[str, Finding]] = []
    for key, node in scene.workflow_nodes.items():
        if node.get("type") != "Pod" or key in seen or node.get("phase") not in _BAD or _attempted(node) in done:
            continue
        message = " ".join(str(node.get("message") or "").split()).rstrip(".")
        told = _refused(node, message) or _gone(node, message, scene)
        if told:
            found.append((str(node.get("finishedAt") or node.get("startedAt") or ""), told))
    return found


def why_stopped(scene: Scene) -> Finding | None:
    """Explain a run that a person stopped, or that ran longer than it may."""
    workflow = scene.workflow or {}
    spec, status = workflow.get("spec") or {}, workflow.get("status") or {}
    message = str(status.get("message") or "")
    if spec.get("shutdown"):
        return Finding(
            "stopped",
            "",
            f"The run was stopped on request (strategy {spec['shutdown']}); its steps ended because of that.",
            "Submit again to go on: finished steps come from the cache, training from its checkpoint.",
            {"strategy": spec["shutdown"]},
        )
    limit = spec.get("activeDeadlineSeconds")
    if limit and re.search(r"deadline|max duration", message, re.IGNORECASE):
        return Finding(
            "deadline-exceeded",
            "",
            f"The run took longer than it may ({limit} s) and was stopped.",
            "Raise the pipeline's time limit, or train less in one run.",
            {"deadline_seconds": limit},
        )
    return None


def why_not_trained(scene: Scene) -> list[tuple[str, Finding]]:
    """Explain each TrainJob that waits for its turn, or failed before it had pods; gives (time, finding)."""
    found = []
    for job in scene.trainjobs:
        name = str(job["metadata"]["name"])
        conditions = {each["type"]: each for each in (job.get("status") or {}).get("conditions") or []}
        held = next((conditions[kind] for kind in _HELD if conditions.get(kind, {}).get("status") == "True"), None)
        has_pods = any((pod["metadata"].get("labels") or {}).get(JOBSET_LABEL) == name for pod in scene.pods)
        if held and not has_pods:
            found.append((str(held.get("lastTransitionTime") or ""), _held_back(name, held)))
    return found


_HELD = ("Failed", "Suspended")


def _held_back(name: str, condition: Object) -> Finding:
    said = " ".join(str(condition.get("message") or condition.get("reason") or "").split()).rstrip(".")
    evidence = {"trainjob": name, "condition": condition["type"], "message": said}
    if condition["type"] == "Suspended":
        return Finding(
            "queued",
            "",
            f"The TrainJob {name}, which trains on several nodes, is held back: {said or 'it is suspended'}.",
            "Wait for the queue, or look at its use with `kubectl get clusterqueues` and ask for fewer nodes or GPUs.",
            evidence,
        )
    return Finding(
        "trainjob-failed",
        "",
        f"The TrainJob {name} failed before it had any pod: {said or 'it gives no reason'}.",
        f"Look at `kubectl describe trainjob {name}` and at the log of the Trainer's controller.",
        evidence,
    )


def _refused(node: Object, message: str) -> Finding | None:
    """Explain a pod that the API server would not make."""
    task = task_name(str(node.get("name", "")))
    quota = re.search(r"exceeded quota: ([^,]+), requested: (.+?), used: (.+?), limited: (.+)", message)
    if quota:
        return _over_quota(task, quota)
    security = re.search(r'violates PodSecurity "([^"]+)": (.*)', message)
    if security:
        return Finding(
            "pod-security",
            "",
            f'{task} breaks the rule "{security[1]}" of Pod Security in its namespace, so no pod was made: '
            f"{security[2]}.",
            "Set what it names in the step's security context, or label the namespace with a level that allows it.",
            {"level": security[1], "violations": security[2]},
        )
    webhook = re.search(r'admission webhook "([^"]+)" denied the request: ?(.*)', message)
    if webhook:
        return Finding(
            "admission-denied",
            "",
            f"The admission webhook {webhook[1]} refused the pod of {task}: {webhook[2] or 'it gave no reason'}.",
            "Do what the policy asks for, or ask who runs it for an exception.",
            {"webhook": webhook[1], "message": webhook[2]},
        )
    bounds = re.search(
        r"(maximum|minimum) (\S+) usage per (\w+) is ([^\s,]+), but (limit|request) is ([^\s,]+)", message
    )
    if bounds:
        most = {"maximum": "at most", "minimum": "at least"}[bounds[1]]
        return Finding(
            "limit-range",
            "",
            f"{task} asks for {bounds[6].rstrip('.')} of {bounds[2]}, and the namespace allows {most} {bounds[4]} "
            f"per {bounds[3].lower()}, so no pod was made.",
            "Ask for an amount within the bounds, or have the LimitRange changed.",
            {"resource": bounds[2], "allowed": bounds[4], "asked": bounds[6].rstrip(".")},
        )
    account = re.search(r'serviceaccount "([^"]+)" not found', message)
    if account:
        return Finding(
            "service-account-missing",
            "",
            f"{task} runs as the service account {account[1]}, and the namespace has none of this name, so no pod "
            "was made.",
            f"Create the service account {account[1]} with the pipeline's role, or name another one for the run.",
            {"service_account": account[1]},
        )
    if "is forbidden" in message:
        return Finding("forbidden", "", f"The pod of {task} may not be made: {message}.", _RIGHTS, {"message": message})
    return None


_RIGHTS = "Give the right it names, or change what the step asks for."


def _over_quota(task: str, quota: re.Match[str]) -> Finding:
    requested, used, limited = (_amounts(quota[at]) for at in (2, 3, 4))
    told = ", ".join(
        f"it asks for {amount} of {resource}, {used.get(resource, '?')} of {limited.get(resource, '?')} are in use"
        for resource, amount in requested.items()
    )
    return Finding(
        "quota-exceeded",
        "",
        f"{task} would exceed the quota {quota[1]} of its namespace, so no pod was made: {told}.",
        "Wait until other pods of the namespace end, ask for less, or have the quota raised; Argo tries again by "
        "itself.",
        {"quota": quota[1], "requested": requested, "used": used, "limited": limited},
    )


def _amounts(text: str) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in text.split(","))
    return {resource: amount for resource, _, amount in pairs if amount}


def _gone(node: Object, message: str, scene: Scene) -> Finding | None:
    """Explain a pod that was deleted, from what events and Argo remember of it."""
    if node.get("phase") == "Pending":
        return None
    task = task_name(str(node.get("name", "")))
    pod = _pod_name(node, scene)
    events = sorted(scene.events_of("Pod", pod), key=event_time) if pod else []
    reasons = {str(event.get("reason")): " ".join(str(event.get("message")).split()).rstrip(".") for event in events}
    evidence = {"message": message, "events": reasons}
    if "Preempted" in reasons:
        return Finding(
            "preempted",
            pod,
            f"{task} had to make room for a pod of higher priority, and its pod is gone: {reasons['Preempted']}.",
            "Submit again: training goes on from its checkpoint; or give the step a higher priority class.",
            evidence,
        )
    if reasons.keys() & {"NodeNotReady", "TaintManagerEviction"}:
        where = str(node.get("hostNodeName") or "")
        return Finding(
            "node-lost",
            pod,
            f"{task} was lost with its node {where}, and its pod is gone: "
            f"{reasons.get('NodeNotReady') or reasons['TaintManagerEviction']}.",
            "Submit again: training goes on from its checkpoint; look at the node if it happens often.",
            {**evidence, "node": where},
        )
    if "OOMKilled" in message:
        return Finding(
            "out-of-memory",
            pod,
            f"{task} was killed for want of memory (OOMKilled); its pod is gone, and with it the limit it had.",
            "Ask for more memory, or need less: a smaller batch_size, width or number of DataLoader workers.",
            evidence,
        )
    return Finding(
        "pod-gone",
        pod,
        f"{task} failed and its pod is gone; Argo says: {message or 'nothing'}.",
        "Open the run's artifact executor-logs in the Kubeflow UI; where pods go too soon, raise Argo's podGC delay.",
        evidence,
    )


def _pod_name(node: Object, scene: Scene) -> str:
    """Find the name that the pod had: Argo's node id with the template's name in the middle."""
    workflow, _, number = str(node.get("id", "")).rpartition("-")
    names = {str(event["involvedObject"].get("name")) for event in scene.events if event.get("involvedObject")}
    return next((name for name in sorted(names) if name.startswith(workflow) and name.endswith(f"-{number}")), "")


def _attempted(node: Object) -> str:
    return re.sub(r"\(\d+\)\Z", "", str(node.get("name", "")))


def phases(scene: Scene) -> dict[str, int]:
    """Count the run's pods by phase."""
    counted: dict[str, int] = {}
    for step in (Step(pod) for pod in scene.pods):
        counted[step.phase] = counted.get(step.phase, 0) + 1
    return counted
