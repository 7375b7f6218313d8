"""Renders manifests/ and walks what it rendered: who selects, names, may reach and may do what.

A finding is a sentence; a function that looks for findings returns a list of them, empty when all is well.
"""

import ipaddress
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
STUB = ROOT / "tests/data/kfp_stub"
REMOTE = re.compile(r"https://github\.com/kubeflow/pipelines//manifests/kustomize/(?:env/)?([a-z-]+)\?ref=([\w.]+)\S*")
ARGO = re.compile(r"https://github\.com/(argoproj/argo-workflows/[\w/-]+)\?ref=\S+")
VARIANTS: dict[str, list[str]] = {
    "kubeflow": [],
    "kind": [],
    "gpu-cluster": ["minio-tls"],
    "gpu-cluster-queue": ["minio-tls", "kueue"],
    "gpu-cluster-elsewhere": ["external-s3"],
}
"""What is rendered: kubeflow/ or an overlay; where components are named, gpu-cluster with these in place of its own."""

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod template, or a pod that Kubernetes would see: its owner, labels, spec and namespace."""

    owner: str
    labels: dict[str, str]
    spec: Manifest = field(default_factory=dict)
    namespace: str = "kubeflow"

    @property
    def containers(self) -> list[Manifest]:
        return [*self.spec.get("containers", []), *self.spec.get("initContainers", [])]


# --- rendering


def program(name: str) -> str | None:
    """Where a program is: on the PATH, or beside this Python, where pip puts it."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def copy_manifests(folder: Path, upstream: Path | None = None) -> Path:
    """Copy manifests/ to `folder`, with upstream's URL replaced by the stub, or by the clones in `upstream`.

    Each variant of the overlay gpu-cluster becomes an overlay beside it.
    """
    shutil.copytree(ROOT / "manifests", folder / "manifests")
    kfp = folder / "kfp"
    if upstream is None:
        shutil.copytree(STUB, kfp)
    else:
        shutil.copytree(upstream / "pipelines/manifests/kustomize", kfp)
        shutil.copytree(upstream / "argo-workflows/manifests", folder / "argoproj/argo-workflows/manifests")
        for path in (kfp / "third-party/argo").rglob("kustomization.yaml"):
            up = os.path.relpath(folder, path.parent)
            path.write_text(ARGO.sub(lambda found, up=up: f"{up}/{found[1]}", path.read_text()))
    for path in (folder / "manifests/kubeflow").rglob("kustomization.yaml"):
        up = os.path.relpath(kfp if upstream is None else kfp / "env", path.parent)
        local = REMOTE.sub(lambda found, up=up: f"{up}/{found[1]}", path.read_text())
        path.write_text(local.replace("env/cluster-scoped-resources", "cluster-scoped-resources"))
    for variant, components in VARIANTS.items():
        if components:
            _write_variant(folder / "manifests/overlays", variant, components)
    return folder / "manifests"


def _write_variant(overlays: Path, variant: str, components: list[str]) -> None:
    if not (overlays / variant).exists():
        shutil.copytree(overlays / "gpu-cluster", overlays / variant)
    path = overlays / variant / "kustomization.yaml"
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | {"components": [f"../../components/{name}" for name in components]}))


def render_variant(manifests: Path, variant: str) -> list[Manifest]:
    """Render one of VARIANTS from a folder that `copy_manifests` made."""
    return render(manifests / (variant if variant == "kubeflow" else f"overlays/{variant}"))


def render(folder: Path) -> list[Manifest]:
    """Run `kubectl kustomize` on a folder; raises `RuntimeError` with its words when it fails."""
    done = subprocess.run([program("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [each for each in yaml.load_all(done.stdout, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if each]


# --- looking around


def of_kind(objects: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    return [each for each in objects if each["kind"] in kinds]


def named(objects: Iterable[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (each for each in of_kind(objects, kind) if each["metadata"]["name"] == name)
    return found


def pods(objects: Iterable[Manifest]) -> list[Pod]:
    owners = of_kind(objects, "Deployment", "StatefulSet", "DaemonSet", "Job")
    templates = [(owner, owner["spec"]["template"]) for owner in owners]
    return [
        Pod(f"{owner['kind']} {owner['metadata']['name']}", template["metadata"]["labels"], template["spec"])
        for owner, template in templates
    ]


def container(objects: Iterable[Manifest], owner: str, name: str) -> Manifest:
    (pod,) = (pod for pod in pods(objects) if pod.owner == owner)
    return next(each for each in pod.containers if each["name"] == name)


def environment(container: Manifest) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container.get("env", []) if "value" in each}


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector selects the labels; an empty one selects all."""
    for rule in selector.get("matchExpressions", []):
        value = labels.get(rule["key"])
        has = {
            "In": value in rule.get("values", []),
            "NotIn": value not in rule.get("values", []),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not has[rule["operator"]]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


# --- findings


def lost_services(objects: list[Manifest]) -> list[str]:
    """Services that select no pod, or name a port that their pods do not open."""
    findings = []
    for service in of_kind(objects, "Service"):
        name, spec = service["metadata"]["name"], service["spec"]
        chosen = [pod for pod in pods(objects) if selects({"matchLabels": spec["selector"]}, pod.labels)]
        if not chosen:
            findings.append(f"Service {name} selects no pod.")
            continue
        ports = [port for pod in chosen for each in pod.containers for port in each.get("ports", [])]
        open_ports = {port["containerPort"] for port in ports} | {port.get("name") for port in ports}
        for port in spec["ports"]:
            if (target := port.get("targetPort", port["port"])) not in open_ports and port.get("name") != "webhook-api":
                findings.append(f"Service {name} names port {target}, which no container opens.")
    return findings


def references(pod: Pod) -> Iterator[tuple[str, str, str]]:
    """Every object that a pod cannot start without: its kind, its name and the key in it, or ''."""
    for each in pod.containers:
        for source in (variable.get("valueFrom", {}) for variable in each.get("env", [])):
            for kind, ref in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
                if ref in source and not source[ref].get("optional"):
                    yield kind, source[ref]["name"], source[ref]["key"]
        for source in each.get("envFrom", []):
            for kind, ref in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
                if ref in source and not source[ref].get("optional"):
                    yield kind, source[ref]["name"], ""
    for volume in pod.spec.get("volumes", []):
        secret, config = volume.get("secret", {}), volume.get("configMap", {})
        if secret and not secret.get("optional"):
            yield from (("Secret", secret["secretName"], item["key"]) for item in secret.get("items", [{"key": ""}]))
        if config and not config.get("optional"):
            yield from (("ConfigMap", config["name"], item["key"]) for item in config.get("items", [{"key": ""}]))
        if claim := volume.get("persistentVolumeClaim"):
            yield "PersistentVolumeClaim", claim["claimName"], ""
    for kind, name in (("ServiceAccount", "serviceAccountName"), ("PriorityClass", "priorityClassName")):
        if name in pod.spec:
            yield kind, pod.spec[name], ""


def lost_references(objects: list[Manifest], at_install: dict[str, set[str]]) -> list[str]:
    """What pods refer to and nothing provides; `at_install` maps Secrets made by others to their keys."""
    secrets = dict(at_install)
    for certificate in of_kind(objects, "Certificate"):
        secrets[certificate["spec"]["secretName"]] = {"tls.crt", "tls.key", "ca.crt"}
    known: dict[tuple[str, str], set[str]] = {("Secret", name): keys for name, keys in secrets.items()}
    for each in objects:
        known.setdefault((each["kind"], each["metadata"]["name"]), set()).update(each.get("data") or {})
    findings = []
    for pod in pods(objects):
        for kind, name, key in references(pod):
            if (kind, name) not in known:
                findings.append(f"{pod.owner} needs {kind} {name}, which does not exist.")
            elif key and key not in known[kind, name]:
                findings.append(f"{pod.owner} needs the key {key} of {kind} {name}, which has none.")
        for each in pod.containers:
            volumes = {volume["name"] for volume in pod.spec.get("volumes", [])} | claims(objects, pod)
            findings += [
                f"{pod.owner} mounts {mount['name']}, which is no volume of it."
                for mount in each.get("volumeMounts", [])
                if mount["name"] not in volumes
            ]
    return findings


def claims(objects: list[Manifest], pod: Pod) -> set[str]:
    """The names of the volumes that a StatefulSet makes for its pods."""
    kind, name = pod.owner.split()
    templates = named(objects, kind, name)["spec"].get("volumeClaimTemplates", [])
    return {template["metadata"]["name"] for template in templates}


def lost_bindings(objects: list[Manifest]) -> list[str]:
    """Bindings of a role that does not exist, or to an account that does not exist."""
    known = {(each["kind"], each["metadata"]["name"]) for each in objects}
    findings = []
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        ends = [binding["roleRef"], *(each for each in binding["subjects"] if each["kind"] == "ServiceAccount")]
        findings += [
            f"{binding['kind']} {binding['metadata']['name']} names {end['kind']} {end['name']}, which does not exist."
            for end in ends
            if (end["kind"], end["name"]) not in known
        ]
    return findings


def idle_policies(objects: list[Manifest], others: Iterable[Pod]) -> list[str]:
    """Network policies that select no pod of the namespace, or name a peer that is none."""
    all_labels = [pod.labels for pod in [*pods(objects), *others]]
    findings = []
    for policy in of_kind(objects, "NetworkPolicy"):
        name, spec = policy["metadata"]["name"], policy["spec"]
        rules = [*spec.get("ingress", []), *spec.get("egress", [])]
        peers = [peer for rule in rules for peer in [*rule.get("from", []), *rule.get("to", [])]]
        inside = [peer["podSelector"] for peer in peers if "podSelector" in peer and "namespaceSelector" not in peer]
        for selector in [spec["podSelector"], *inside]:
            if not any(selects(selector, labels) for labels in all_labels):
                findings.append(f"NetworkPolicy {name} selects {selector}, which is no pod.")
    return findings


def security_findings(pod: Pod) -> list[str]:
    """What Pod Security `restricted` refuses in a pod."""
    whole = pod.spec.get("securityContext", {})
    findings = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(key)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for volume in pod.spec.get("volumes", []):
        if kinds := set(volume) - {"name"} - allowed:
            findings.append(f"volume {volume['name']} is of the kind {kinds.pop()}")
    for each in pod.containers:
        own = each.get("securityContext", {})
        both = whole | own
        checks = {
            "runAsNonRoot is not true": both.get("runAsNonRoot") is True and both.get("runAsUser") != 0,
            "seccompProfile is not set": both.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is False,
            "capabilities are not all dropped": "ALL" in own.get("capabilities", {}).get("drop", []),
            "capabilities are added": not set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"},
            "it is privileged": not own.get("privileged"),
            "a host port is used": not any("hostPort" in port for port in each.get("ports", [])),
        }
        findings += [f"container {each['name']}: {finding}" for finding, fine in checks.items() if not fine]
    return [f"{pod.owner}: {finding}." for finding in findings]


# --- reachability


def reaches(objects: list[Manifest], source: Pod | str, target: Pod | str, port: int, protocol: str = "TCP") -> bool:
    """Whether the network policies let `source` open a connection to `target`: pods, or addresses outside.

    An `ipBlock` matches addresses only, as the API leaves open whether it matches pods.
    """
    policies = of_kind(objects, "NetworkPolicy")
    return _permits(policies, "Egress", source, target, port, protocol) and _permits(
        policies, "Ingress", target, source, port, protocol
    )


def _permits(policies: list[Manifest], way: str, pod: Pod | str, peer: Pod | str, port: int, protocol: str) -> bool:
    if isinstance(pod, str):
        return True
    holes, end = ("egress", "to") if way == "Egress" else ("ingress", "from")
    specs = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and way in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], pod.labels)
    ]
    rules = [rule for spec in specs for rule in spec.get(holes, [])]
    return not specs or any(
        (end not in rule or any(_is_peer(each, peer, pod.namespace) for each in rule[end]))
        and ("ports" not in rule or any(_is_port(each, port, protocol) for each in rule["ports"]))
        for rule in rules
    )


def _is_peer(rule: Manifest, peer: Pod | str, namespace: str) -> bool:
    if isinstance(peer, str):
        block = rule.get("ipBlock")
        return block is not None and ipaddress.ip_address(peer) in ipaddress.ip_network(block["cidr"])
    if "ipBlock" in rule:
        return False
    home = {"kubernetes.io/metadata.name": peer.namespace}
    at_home = selects(rule["namespaceSelector"], home) if "namespaceSelector" in rule else peer.namespace == namespace
    return at_home and selects(rule.get("podSelector", {}), peer.labels)


def _is_port(rule: Manifest, port: int, protocol: str) -> bool:
    return rule.get("protocol", "TCP") == protocol and rule.get("port", port) == port


# --- amounts


def amount(quantity: str) -> float:
    """Read a Kubernetes quantity: cores or bytes."""
    number, suffix = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(quantity)).groups()
    powers = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    return float(number) * powers[suffix]


def requested(objects: list[Manifest], resource: str) -> float:
    """What all pods of one replica request together, with the LimitRange's default where one requests nothing."""
    (limits,) = named(objects, "LimitRange", "default-requests")["spec"]["limits"]
    total = 0.0
    for pod in pods(objects):
        asked = [
            amount(
                each.get("resources", {}).get("requests", {}).get(resource)
                or each.get("resources", {}).get("limits", {}).get(resource)
                or limits["defaultRequest"][resource]
            )
            for each in pod.spec["containers"]
        ]
        total += sum(asked)
    return total
