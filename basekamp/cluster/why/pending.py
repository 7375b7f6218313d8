"""Why a pod was not placed on a node."""

import re
from decimal import Decimal

from basekamp.cluster.why.capacity import GPU, Object, amount_text, is_gpu, pod_requests
from basekamp.cluster.why.finding import Finding
from basekamp.cluster.why.fitting import SHORTAGES, gpu_count, why_no_node_fits
from basekamp.cluster.why.printed import one_line
from basekamp.cluster.why.scene import Scene, Step


def why_unplaced(step: Step, scene: Scene) -> Finding | None:
    """Explain a pod that the scheduler could not place."""
    if step.phase != "Pending" or step.node:
        return None
    condition = step.condition("PodScheduled")
    if condition.get("reason") == "SchedulingGated":
        return _queued(step)
    said = _scheduler_words(step)
    if not said:
        return None
    return _claim(step, scene, said) or why_no_node_fits(step, scene, said) or _by_words(step, said)


def _scheduler_words(step: Step) -> str:
    """The scheduler's newest reason, without its account of preemption."""
    condition = step.condition("PodScheduled")
    event = step.event("FailedScheduling")
    message = condition.get("message") if condition.get("reason") == "Unschedulable" else None
    return re.sub(r"\s*preemption: .*", "", str(message or (event or {}).get("message") or ""), flags=re.DOTALL).strip()


def _queued(step: Step) -> Finding:
    queue = (step.pod["metadata"].get("labels") or {}).get("kueue.x-k8s.io/queue-name", "")
    gates = [gate["name"] for gate in step.spec.get("schedulingGates") or []]
    return Finding(
        "queued",
        step.name,
        f"{step.task} waits to be admitted{f' by the queue {queue}' if queue else ''}: the gate {', '.join(gates)} "
        "holds it.",
        "Wait, or look at the queue's use with `kubectl get clusterqueues` and ask for less.",
        {"queue": queue, "gates": gates},
    )


def _claim(step: Step, scene: Scene, said: str) -> Finding | None:
    """Explain a pod whose volume claim is missing or unbound."""
    names = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in step.spec.get("volumes") or []
        if volume.get("persistentVolumeClaim")
    ]
    missing = re.search(r'persistentvolumeclaim "([^"]+)" not found', said)
    if missing:
        return Finding(
            "volume-claim-missing",
            step.name,
            f"{step.task} mounts the volume claim {missing[1]}, and the namespace {scene.namespace} has none of this "
            "name.",
            f"Create the claim {missing[1]}, or correct its name in the pipeline.",
            {"claim": missing[1], "present": scene.names("persistentvolumeclaims")},
        )
    if "unbound immediate PersistentVolumeClaims" not in said:
        return None
    claims = [scene.object(f"persistentvolumeclaims/{name}") for name in names]
    unbound = next((each for each in claims if each and (each.get("status") or {}).get("phase") != "Bound"), None)
    return _unbound(step, scene, unbound)


def _unbound(step: Step, scene: Scene, claim: Object | None) -> Finding:
    if claim is None:
        told, evidence = "a volume claim", {}
        reason = ""
    else:
        name, spec = claim["metadata"]["name"], claim["spec"]
        size = ((spec.get("resources") or {}).get("requests") or {}).get("storage", "")
        storage_class = spec.get("storageClassName") or "the default"
        told = f"the volume claim {name} ({size}, storage class {storage_class})"
        events = scene.events_of("PersistentVolumeClaim", name)
        reason = next((str(event.get("message")) for event in reversed(events) if event.get("message")), "")
        evidence = {"claim": name, "size": size, "storage_class": storage_class, "reason": reason}
    return Finding(
        "volume-claim-unbound",
        step.name,
        f"{step.task} waits for {told}, which no volume is bound to{f': {one_line(reason)}' if reason else ''}.",
        "Name a storage class that exists (`kubectl get storageclass`) and can provide the size and access mode "
        "asked for, or create a fitting volume.",
        evidence,
    )


def _by_words(step: Step, said: str) -> Finding:
    """Explain from the scheduler's own words, where nodes may not be read or would take the pod by now."""
    asked = pod_requests(step.pod)
    gpu = next((resource for resource in asked if is_gpu(resource)), GPU)
    evidence = {"scheduler": said, "asked": {resource: float(amount) for resource, amount in asked.items()}}
    told = f"the scheduler says: {one_line(said)}"
    for resource, cause in ((gpu, "gpu-shortage"), *SHORTAGES.items()):
        if f"Insufficient {resource}" in said:
            amount = asked.get(resource, Decimal(0))
            what = gpu_count(amount, gpu) if resource == gpu else f"{amount_text(resource, amount)} ({resource})"
            return Finding(
                cause,
                step.name,
                f"{step.task} asks for {what} and no node that it may use has as much free; {told}.",
                "Ask for less, wait for other pods to end, or add a node; who may read nodes gets the figures here.",
                evidence,
            )
    if "didn't match Pod's node affinity/selector" in said and "taint" not in said:
        cause, remedy = "node-selector", "Correct the node selector or node pool, or label a node."
    elif "untolerated taint" in said and "match" not in said:
        cause, remedy = "taint-blocked", "Give the step a toleration for the taint, or run it on another node pool."
    else:
        cause, remedy = "unschedulable", "Look at each reason; `kubectl describe nodes` shows what the nodes hold."
    return Finding(cause, step.name, f"{step.task} cannot be placed on a node; {told}.", remedy, evidence)
