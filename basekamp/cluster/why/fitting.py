"""Which nodes could take a pod, and what each of them lacks: figures, where nodes and their pods may be read."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from basekamp.cluster.why.capacity import Amounts, Object, Room, amount_text, is_gpu, pod_requests, survey
from basekamp.cluster.why.finding import Finding
from basekamp.cluster.why.scene import Scene, Step

_UNITS = {"memory": "memory", "cpu": "CPU", "ephemeral-storage": "disk space"}
SHORTAGES = {"memory": "memory-shortage", "cpu": "cpu-shortage", "ephemeral-storage": "disk-shortage"}
_TYPE_LABELS = ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator", "node.kubernetes.io/instance-type")
_GPU_SIGNS = ("nvidia.com/gpu.present", "feature.node.kubernetes.io/pci-10de.present", "nvidia.com/gpu.product")
_SHOWN = 6


@dataclass(frozen=True)
class _View:
    """A pod that waits, with the nodes as it sees them."""

    step: Step
    asked: Amounts
    rooms: list[Room]
    holders: list[tuple[str, Decimal]]
    said: str

    @property
    def gpu(self) -> str:
        return next((resource for resource in self.asked if is_gpu(resource)), "")


def why_no_node_fits(step: Step, scene: Scene, said: str) -> Finding | None:
    """Explain with figures: what is free where the pods of all namespaces may be read, else what nodes offer."""
    if not scene.nodes:
        return None
    asked = pod_requests(step.pod)
    others = scene.everywhere
    rooms = survey(step.pod, scene.nodes, others or [])
    gpu = next((resource for resource in asked if is_gpu(resource)), "")
    view = _View(step, {**asked, "pods": Decimal(1)}, rooms, _holders(gpu, others or []), said)
    unfit = _gpu_absent(view) or _no_match(view)
    return unfit if unfit or others is None else _blocked(view) or _short(view)


def _holders(gpu: str, pods: Iterable[Object]) -> list[tuple[str, Decimal]]:
    """The running pods that hold the most of a GPU resource."""
    held = [
        (f"{pod['metadata']['namespace']}/{pod['metadata']['name']}", pod_requests(pod).get(gpu, Decimal(0)))
        for pod in pods
        if gpu and (pod.get("spec") or {}).get("nodeName") and pod["status"].get("phase") not in ("Succeeded", "Failed")
    ]
    return sorted((each for each in held if each[1]), key=lambda each: (-each[1], each[0]))


def _gpu_absent(view: _View) -> Finding | None:
    """No node offers the GPU resource: no GPU at all, another kind, or no device plugin."""
    gpu = view.gpu
    if not gpu or any(room.allocatable.get(gpu) for room in view.rooms):
        return None
    asked = f"{view.step.task} asks for {gpu_count(view.asked[gpu], gpu)}"
    offered = sorted(
        {
            resource
            for room in view.rooms
            for resource, amount in room.allocatable.items()
            if amount and is_gpu(resource)
        }
    )
    evidence = {"resource": gpu, "asked": int(view.asked[gpu]), "offered": offered}
    if offered:
        return Finding(
            "gpu-type-missing",
            view.step.name,
            f"{asked} and no node has this type: the cluster offers {', '.join(offered)}.",
            f"Ask for {offered[0]}, or have a node partitioned to offer {gpu}.",
            evidence,
        )
    bare = sorted(room.name for room in view.rooms if any(sign in room.labels for sign in _GPU_SIGNS))
    if bare:
        return Finding(
            "device-plugin-missing",
            view.step.name,
            f"{asked} and no node offers any, though {_list(bare)} carr{'ies' if len(bare) == 1 else 'y'} GPU "
            "labels: the device plugin does not report them.",
            "Look at the device plugin's pods (`kubectl get pods -A | grep device-plugin`) and at the driver on "
            "these nodes.",
            {**evidence, "nodes": bare},
        )
    return Finding(
        "no-gpu-node",
        view.step.name,
        f"{asked} and no node of the cluster has a GPU ({len(view.rooms)} in all).",
        'Train on the CPU with gpus="0", or add a node with GPUs and its device plugin.',
        evidence,
    )


def _no_match(view: _View) -> Finding | None:
    """No node carries the labels asked for."""
    if any(not room.mismatch for room in view.rooms):
        return None
    nearest = min(view.rooms, key=lambda room: len(room.mismatch))
    wanted = nearest.mismatch
    key = re.split(r"[= ]", wanted[0])[0]
    present = sorted({room.labels[key] for room in view.rooms if key in room.labels})
    evidence = {"wanted": list(wanted), "present": present, "nodes": len(view.rooms)}
    told = f"the cluster has {_list(present)}" if present else f"no node has the label {key}"
    if key in _TYPE_LABELS and view.gpu:
        return Finding(
            "gpu-type-missing",
            view.step.name,
            f"{view.step.task} asks for a GPU of the type {', '.join(wanted)} and no node has it: {told}.",
            "Name a type that the cluster has, or leave the type empty to take any.",
            evidence,
        )
    return Finding(
        "node-selector",
        view.step.name,
        f"{view.step.task} must run on a node with {', '.join(wanted)} and none of the {len(view.rooms)} nodes fits: "
        f"{told}.",
        "Correct the node selector or node pool, or label a node (`kubectl label node NAME KEY=VALUE`).",
        evidence,
    )


def _blocked(view: _View) -> Finding | None:
    """Nodes have room, and every node of use is blocked by a taint."""
    matching = _of_use(view)
    fitting = [room for room in matching if not room.short(view.asked)]
    is_open = any(not room.blocks for room in matching)
    if is_open or not fitting:
        return None
    pressed = [room for room in fitting if any("disk-pressure" in block for block in room.blocks)]
    evidence = {"blocks": {room.name: list(room.blocks) for room in matching}}
    if pressed and len(pressed) == len(fitting):
        return Finding(
            "disk-pressure",
            view.step.name,
            f"{view.step.task} cannot be placed: {_list(room.name for room in pressed)} "
            f"{'is' if len(pressed) == 1 else 'are'} short of disk space and take{'s' if len(pressed) == 1 else ''} "
            "no new pods.",
            "Free disk space there (old images, logs, emptyDir volumes) or add a node; the taint goes when space is "
            "back.",
            evidence,
        )
    return Finding(
        "taint-blocked",
        view.step.name,
        f"{view.step.task} would fit on {_list(room.name for room in fitting)}, and taints that it does not tolerate "
        f"keep it off: {_list(f'{room.name} has {_list(room.blocks)}' for room in fitting)}.",
        "Give the step a toleration for the taint, or run it on another node pool.",
        evidence,
    )


def _short(view: _View) -> Finding | None:
    """The nodes of use have too little of a resource: GPUs first, then memory, CPU, disk space, pods."""
    matching = _of_use(view)
    in_question = [room for room in matching if not room.blocks] or matching
    lacking = [set(room.short(view.asked)) for room in in_question]
    if not all(lacking):
        return None
    common = set.intersection(*lacking) or set.union(*lacking)
    resource = next((each for each in (view.gpu, "memory", "cpu", "ephemeral-storage", "pods") if each in common), "")
    if resource == view.gpu and resource:
        return _gpu_shortage(view, matching)
    return _room_shortage(view, in_question, resource) if resource else None


def _gpu_shortage(view: _View, rooms: list[Room]) -> Finding:
    gpu, asked = view.gpu, view.asked[view.gpu]
    free = {room.name: int(room.free.get(gpu, 0)) for room in rooms}
    usable = max((free[room.name] for room in rooms if not room.blocks), default=0)
    largest = max(int(room.allocatable.get(gpu, 0)) for room in rooms)
    told = [_share(room, gpu) for room in rooms]
    evidence = {
        "resource": gpu,
        "asked": int(asked),
        "free": free,
        "allocatable": {room.name: int(room.allocatable.get(gpu, 0)) for room in rooms},
        "blocks": {room.name: list(room.blocks) for room in rooms if room.blocks},
        "held_by": {name: int(amount) for name, amount in view.holders[:_SHOWN]},
    }
    if asked > largest:
        most = f"the largest node has {largest}"
        sentence = f"{view.step.task} asks for {gpu_count(asked, gpu)} and {most}: {_list(told)}."
        remedy = f'Ask for at most {largest} (gpus="{largest}"), or train on more than one node.'
    else:
        sentence = f"{view.step.task} asks for {gpu_count(asked, gpu)} and no node has as many free: {_list(told)}."
        choices = [f'ask for at most {usable} (gpus="{usable}")'] if usable else []
        if view.holders:
            choices.append("wait for " + _list(f"{name} (holds {amount})" for name, amount in view.holders[:3]))
        if any(room.blocks and free[room.name] >= asked for room in rooms):
            choices.append("give the step a toleration for the taint")
        remedy = _capital(_either(choices or ["wait, or add a node"])) + "."
    return Finding("gpu-shortage", view.step.name, sentence, remedy, evidence)


def _room_shortage(view: _View, rooms: list[Room], resource: str) -> Finding:
    if resource == "pods":
        return Finding(
            "node-full",
            view.step.name,
            f"{view.step.task} cannot be placed: {_list(room.name for room in rooms)} "
            f"run{'s' if len(rooms) == 1 else ''} as many pods as allowed.",
            "Delete finished pods and what is not needed, raise the node's pod limit, or add a node.",
            {"nodes": {room.name: int(room.allocatable.get("pods", 0)) for room in rooms}},
        )
    asked, what = view.asked[resource], _UNITS[resource]
    best = max(room.free.get(resource, Decimal(0)) for room in rooms)
    largest = max(room.allocatable.get(resource, Decimal(0)) for room in rooms)
    never = asked > largest
    told = _list(_share(room, resource) for room in rooms)
    return Finding(
        SHORTAGES[resource],
        view.step.name,
        f"{view.step.task} asks for {amount_text(resource, asked)}{'' if resource == 'cpu' else f' of {what}'} and "
        f"{'no node is that large' if never else 'no node has as much free'}: {told}.",
        "Ask for less than "
        f"{amount_text(resource, largest if never else best)}{'' if never else ', wait for other pods to end'}, or "
        f"add a {'larger ' if never else ''}node.",
        {
            "resource": resource,
            "asked": float(asked),
            "free": {room.name: float(room.free.get(resource, 0)) for room in rooms},
        },
    )


def _of_use(view: _View) -> list[Room]:
    """The nodes whose labels fit and, for a GPU, that have any."""
    fitting = [room for room in view.rooms if not room.mismatch]
    return [room for room in fitting if room.allocatable.get(view.gpu)] if view.gpu else fitting


def _share(room: Room, resource: str) -> str:
    total, free = room.allocatable.get(resource, Decimal(0)), room.free.get(resource, Decimal(0))
    text = f"{room.name} has {amount_text(resource, free).split()[0]} of {amount_text(resource, total)} free"
    return text + (f" but its taint {_list(room.blocks)} is not tolerated" if room.blocks else "")


def gpu_count(amount: Decimal, resource: str) -> str:
    """Write a number of GPUs with the name of the resource."""
    return f"{int(amount)} GPU{'' if amount == 1 else 's'} ({resource})"


def _list(words: Iterable[str]) -> str:
    every = list(words)
    rest = len(every) - _SHOWN
    return ", ".join(every[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _either(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])}, or {choices[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
