"""Why a run on the cluster is stuck or failed, in plain words and with a remedy.

Rules read what the Kubernetes API says of the run's pods, their events and logs, the nodes, quotas and Argo's
Workflow. Each pod gives at most one finding, the first rule that fits; the root cause comes first.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from basekamp.cluster.kube import Cluster
from basekamp.cluster.why.failed import why_failed
from basekamp.cluster.why.finding import Finding, findings_as_json, findings_as_text
from basekamp.cluster.why.pending import why_unplaced
from basekamp.cluster.why.printed import one_line
from basekamp.cluster.why.removed import why_removed
from basekamp.cluster.why.scene import Scene, Step, event_time, find_scene
from basekamp.cluster.why.starting import why_not_started
from basekamp.cluster.why.workflow import phases, why_not_trained, why_stopped, why_without_pod

__all__ = ["Finding", "explain", "findings_as_json", "findings_as_text"]

_RULES: tuple[Callable[[Step, Scene], Finding | None], ...] = (why_removed, why_unplaced, why_not_started, why_failed)

_CONSEQUENCES = ("terminated", "killed", "argo-failure", "pod-gone")
"""What may be the result of something else: it comes after every other cause."""


def explain(run: str, *, namespace: str, client: Cluster) -> list[Finding]:
    """Give the causes why a run is stuck or failed, the root cause first; never empty.

    `run` is the run's id, its name, its workflow's name, or the name of one pod. Where nothing is wrong the one
    finding's cause is "succeeded" or "nothing-found", and it says where to look next.

    Raises:
        InputError: there is no such run or namespace.
        BasekampError: the cluster does not answer, or does not let the user look at pods.
    """
    scene = find_scene(run, namespace=namespace, client=client)
    timed = (
        [(step.time, found) for step in scene.steps if (found := _first(step, scene))]
        + why_without_pod(scene)
        + why_not_trained(scene)
    )
    stopped = why_stopped(scene)
    timed.sort(key=lambda each: (each[1].cause in _CONSEQUENCES, each[0]))
    findings = ([stopped] if stopped else []) + [found for _, found in timed]
    return _grouped(findings) or [_nothing(run, scene)]


def _first(step: Step, scene: Scene) -> Finding | None:
    return next((found for rule in _RULES if (found := rule(step, scene))), None)


def _grouped(findings: list[Finding]) -> list[Finding]:
    """Say once what several pods of a loop say alike."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.cause, finding.sentence), []).append(finding)
    return [_one_of(group) for group in alike.values()]


def _one_of(group: list[Finding]) -> Finding:
    first, others = group[0], len(group) - 1
    if not others:
        return first
    sentence = f"{first.sentence} The same holds for {others} other pod{'s' if others > 1 else ''}."
    return replace(first, sentence=sentence, evidence={**first.evidence, "pods": len(group)})


def _nothing(run: str, scene: Scene) -> Finding:
    counted = phases(scene)
    told = ", ".join(f"{number} {phase}" for phase, number in sorted(counted.items())) or "none"
    state = str(((scene.workflow or {}).get("status") or {}).get("phase") or "")
    evidence = {"pods": counted, "workflow": state}
    if state == "Succeeded" or (not state and set(counted) == {"Succeeded"}):
        return Finding(
            "succeeded", "", f"The run {run} succeeded (pods: {told}).", "Nothing: see `basekamp runs`.", evidence
        )
    if state in ("Failed", "Error"):
        return _forgotten(run, scene, evidence)
    doing = [_doing(step) for step in scene.steps if step.phase in ("Pending", "Running", "Unknown")]
    return Finding(
        "nothing-found",
        "",
        f"Nothing is wrong with the run {run} as far as the cluster shows (pods: "
        f"{told}){': ' + ', '.join(doing[:6]) if doing else ''}.",
        f"Look at the step's log in the Kubeflow UI, at `kubectl get events -n {scene.namespace}` (kept for an "
        "hour), and at the pods workflow-controller and ml-pipeline.",
        evidence,
    )


def _forgotten(run: str, scene: Scene, evidence: dict[str, Any]) -> Finding:
    said = one_line(((scene.workflow or {}).get("status") or {}).get("message"))
    return Finding(
        "nothing-found",
        "",
        f"The run {run} failed, and the cluster no longer shows why{f'; Argo says: {said}' if said else ''}.",
        "Open the failed step and its artifact executor-logs in the Kubeflow UI; pods and events are gone after a "
        "while.",
        {**evidence, "message": said},
    )


def _doing(step: Step) -> str:
    newest = max(step.events, key=event_time, default=None) if step.phase == "Pending" else None
    return f"{step.task} is {step.phase}" + (f" ({one_line(newest.get('message'))})" if newest else "")
