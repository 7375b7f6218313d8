"""What a pod asks for, what each node has left, and what keeps the pod off it."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

Object = dict[str, Any]
Amounts = dict[str, Decimal]

GPU = "nvidia.com/gpu"
_GPUS = re.compile(r"(nvidia\.com/(gpu|mig-.+)(\.shared)?|amd\.com/gpu|gpu\.intel\.com/.+|habana\.ai/gaudi)\Z")
_UNITS = {unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)}
_UNITS |= {unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), start=1)}
_UNITS |= {"m": Decimal("1e-3"), "u": Decimal("1e-6"), "n": Decimal("1e-9")}
_BYTES = ("memory", "ephemeral-storage")


@dataclass(frozen=True)
class Room:
    """A node, as one pod sees it.

    free       what its pods leave of `allocatable`; the same where pods of other namespaces may not be seen
    mismatch   the labels asked for that the node does not have
    blocks     the taints that the pod does not tolerate, and "cordoned"
    """

    name: str
    labels: dict[str, str]
    allocatable: Amounts
    free: Amounts
    mismatch: tuple[str, ...]
    blocks: tuple[str, ...]

    def short(self, asked: Amounts) -> list[str]:
        """Which of the resources asked for the node has too little of."""
        return [resource for resource, amount in asked.items() if self.free.get(resource, Decimal(0)) < amount]


def quantity(text: object) -> Decimal:
    """Read a Kubernetes quantity, such as 500m, 4Gi or 1e3; 0 for what is none."""
    written = str(text)
    unit = next((unit for unit in _UNITS if written.endswith(unit)), "")
    try:
        return Decimal(written.removesuffix(unit)) * _UNITS.get(unit, Decimal(1))
    except InvalidOperation:
        return Decimal(0)


def is_gpu(resource: str) -> bool:
    """Whether a resource is a GPU or a slice of one."""
    return _GPUS.match(resource) is not None


def amount_text(resource: str, amount: Decimal) -> str:
    """Write an amount as a person would: 4 GiB, 2.5 cores, 2."""
    if resource in _BYTES:
        return f"{amount / _UNITS['Gi']:.1f}".removesuffix(".0") + " GiB"
    plain = f"{amount:.2f}".rstrip("0").rstrip(".")
    return f"{plain} core{'' if amount == 1 else 's'}" if resource == "cpu" else plain


def pod_requests(pod: Object) -> Amounts:
    """Add up what a pod asks for, as the scheduler does: containers, or the largest init container."""
    spec = pod.get("spec") or {}
    inits = spec.get("initContainers") or []
    sidecars = [each for each in inits if each.get("restartPolicy") == "Always"]
    running = _sum([_requests(each) for each in [*(spec.get("containers") or []), *sidecars]])
    total = dict(running)
    for each in inits:
        for resource, amount in _requests(each).items():
            total[resource] = max(total.get(resource, Decimal(0)), amount)
    asked = _sum([total, {key: quantity(text) for key, text in (spec.get("overhead") or {}).items()}])
    return {resource: amount for resource, amount in asked.items() if amount}


def survey(pod: Object, nodes: Iterable[Object], others: Iterable[Object]) -> list[Room]:
    """Look at every node with the eyes of `pod`; `others` are the pods that hold room."""
    held: dict[str, list[Amounts]] = defaultdict(list)
    for other in others:
        if (other.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            held[(other.get("spec") or {}).get("nodeName") or ""].append({**pod_requests(other), "pods": Decimal(1)})
    return [_room(pod, node, _sum(held[node["metadata"]["name"]])) for node in nodes]


def _room(pod: Object, node: Object, used: Amounts) -> Room:
    name = node["metadata"]["name"]
    labels = node["metadata"].get("labels") or {}
    told = (node.get("status") or {}).get("allocatable") or {}
    allocatable = {resource: quantity(text) for resource, text in told.items()}
    spec = pod.get("spec") or {}
    return Room(
        name=name,
        labels=labels,
        allocatable=allocatable,
        free={resource: max(amount - used.get(resource, 0), Decimal(0)) for resource, amount in allocatable.items()},
        mismatch=tuple(_mismatches(spec, labels, name)),
        blocks=tuple(_blocks(node.get("spec") or {}, spec.get("tolerations") or [])),
    )


def _requests(container: Object) -> Amounts:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {resource: quantity(text) for resource, text in asked.items()}


def _sum(amounts: Iterable[Amounts]) -> Amounts:
    total: Amounts = defaultdict(Decimal)
    for each in amounts:
        for resource, amount in each.items():
            total[resource] += amount
    return dict(total)


def _mismatches(spec: Object, labels: dict[str, str], name: str) -> list[str]:
    """What of node selector and required node affinity the node does not fit; the terms are alternatives."""
    wrong = [f"{key}={value}" for key, value in (spec.get("nodeSelector") or {}).items() if labels.get(key) != value]
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = [_term_mismatches(term, labels, name) for term in required.get("nodeSelectorTerms") or []]
    return wrong + (min(terms, key=len) if terms else [])


def _term_mismatches(term: Object, labels: dict[str, str], name: str) -> list[str]:
    wrong = [_words(each) for each in term.get("matchExpressions") or [] if not _fits(each, labels)]
    fields = {"metadata.name": name}
    return wrong + [_words(each) for each in term.get("matchFields") or [] if not _fits(each, fields)]


def _fits(expression: Object, labels: dict[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "Gt":
            return key in labels and quantity(labels[key]) > quantity(values[0])
        case "Lt":
            return key in labels and quantity(labels[key]) < quantity(values[0])
    return True


def _words(expression: Object) -> str:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
    if operator == "In" and len(values) == 1:
        return f"{key}={values[0]}"
    return f"{key} {operator}{' ' if values else ''}{'|'.join(values)}"


def _blocks(node: Object, tolerations: list[Object]) -> list[str]:
    taints = [taint for taint in node.get("taints") or [] if taint.get("effect") != "PreferNoSchedule"]
    blocks = [taint_text(taint) for taint in taints if not any(_tolerates(each, taint) for each in tolerations)]
    cordon = "node.kubernetes.io/unschedulable"
    if node.get("unschedulable") and not any(block.startswith(cordon) for block in blocks):
        blocks.append("cordoned")
    return blocks


def taint_text(taint: Object) -> str:
    """Write a taint as kubectl does: key=value:effect."""
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint.get('effect', '')}"


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and (toleration.get("value") or "") == (taint.get("value") or "")
