"""Why a pod that has a node does not start: image, secret, config map, volume, rights."""

import re

from basekamp.cluster.why.finding import Finding
from basekamp.cluster.why.printed import cut
from basekamp.cluster.why.scene import Scene, Step, event_time

_IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_UNAUTHORIZED = re.compile(
    r"authorization failed|access denied|may require .*(authorization|login)|unauthorized|denied:|\b40[13]\b|forbidden",
    re.IGNORECASE,
)
_ABSENT = re.compile(r"not found|manifest unknown|does not exist|\b404\b|name unknown", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"no such host|connection refused|i/o timeout|deadline exceeded|TLS handshake|x509|network is unreachable",
    re.IGNORECASE,
)
_PLATFORM = re.compile(r"no match for platform", re.IGNORECASE)
_FULL = re.compile(r"no space left on device", re.IGNORECASE)
_RATE = re.compile(r"toomanyrequests|rate limit", re.IGNORECASE)


def why_not_started(step: Step, scene: Scene) -> Finding | None:
    """Explain a pod whose containers wait, or that could not be run at all."""
    for container, reason, message in step.waiting():
        if reason in _IMAGE_REASONS:
            return _image(step, container, reason, message)
        if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
            found = _missing(step, scene, message) or _config(step, container, message)
            if found:
                return found
    return _cannot_run(step) or _mount(step, scene)


def _image(step: Step, container: str, reason: str, message: str) -> Finding:
    image = str(step.container_spec(container).get("image", ""))
    said = message + "\n" + "\n".join(_pull_failures(step, image))
    evidence = {"image": image, "container": container, "reason": reason, "message": cut(said)}

    def found(cause: str, what: str, remedy: str) -> Finding:
        return Finding(cause, step.name, f"{step.task} waits for its image {image}: {what}.", remedy, evidence)

    if reason == "InvalidImageName":
        return found("image-name-invalid", "this is no image's name", "Write it as registry/name:tag, in lowercase.")
    if reason == "ErrImageNeverPull":
        return found(
            "image-not-loaded",
            f"the node {step.node} does not have it, and its pull policy is Never",
            f"Load it into the node (`kind load docker-image {image}`), or set another pull policy.",
        )
    if _PLATFORM.search(said):
        return found(
            "image-platform",
            f"it was not built for the processor of the node {step.node}",
            "Build the image for the node's platform (`docker build --platform linux/amd64`).",
        )
    if _RATE.search(said):
        return found(
            "image-rate-limited", "the registry limits pulls", "Wait, log in to the registry, or use a mirror."
        )
    if _UNREACHABLE.search(said):
        return found(
            "image-registry-unreachable",
            f"its registry cannot be reached ({_reason(said, _UNREACHABLE)})",
            f"Check the registry's name, and that the node {step.node} reaches it (proxy, DNS, certificate).",
        )
    if _FULL.search(said):
        return found(
            "image-no-space",
            f"the node {step.node} has no disk space left for it",
            "Free disk space on the node (`crictl rmi --prune`), or take a node with a larger disk.",
        )
    if _UNAUTHORIZED.search(said):
        return found(
            "image-unauthorized",
            "the registry does not let this cluster read it, or it does not exist there",
            "Check the name; for a private registry give the pipeline's service account an imagePullSecret.",
        )
    if _ABSENT.search(said):
        return found(
            "image-not-found",
            "the registry does not have it",
            "Check name and tag, and push the image (`docker push`); for kind, load it with `kind load docker-image`.",
        )
    return found("image-not-pulled", cut(message) or reason, "Look at the pod's events with `kubectl describe pod`.")


def _pull_failures(step: Step, image: str) -> list[str]:
    chosen = [event for event in step.events if event.get("reason") == "Failed" and image in str(event.get("message"))]
    return [str(event["message"]) for event in sorted(chosen, key=event_time)]


def _missing(step: Step, scene: Scene, message: str) -> Finding | None:
    """Name the secret or config map, or its key, that a container or a volume refers to in vain."""
    key = re.search(r"couldn't find key (\S+) in (Secret|ConfigMap) [^/\s]+/(\S+)", message) or re.search(
        r"(?:references non-existent )(?:secret|config) key: (\S+)()()", message
    )
    absent = re.search(r'(secret|configmap) "([^"]+)" not found', message)
    if absent:
        kind, name = absent[1], absent[2]
        words = {"secret": "secret", "configmap": "config map"}[kind]
        return Finding(
            f"{kind}-missing",
            step.name,
            f"{step.task} reads the {words} {name}, and the namespace {scene.namespace} has none of this name.",
            f"Create it (`kubectl create {'secret generic' if kind == 'secret' else 'configmap'} {name} -n "
            f"{scene.namespace} …`), or correct its name in the pipeline.",
            {kind: name, "namespace": scene.namespace},
        )
    if key is None:
        return None
    kind = "configmap" if key[2] == "ConfigMap" else "secret"
    name = key[3] or "that a volume mounts"
    return Finding(
        f"{kind}-key-missing",
        step.name,
        f"{step.task} reads the key {key[1]} of the {'config map' if kind == 'configmap' else kind} {name}, which "
        "has no such key.",
        f"Add the key {key[1]} to it, or correct the name of the key in the pipeline.",
        {kind: key[3], "key": key[1], "namespace": scene.namespace},
    )


def _config(step: Step, container: str, message: str) -> Finding | None:
    evidence = {"container": container, "message": cut(message)}
    if "runAsNonRoot" in message or "non-numeric user" in message:
        return Finding(
            "root-refused",
            step.name,
            f"{step.task} may not run as root, and its image would: {cut(message)}.",
            "Give the image a numeric user (`USER 1000`), or set runAsUser for the step.",
            evidence,
        )
    return _command_missing(step, container, message) or Finding(
        "container-not-created",
        step.name,
        f"{step.task} cannot be started: {cut(message)}.",
        "Correct what the message names; `kubectl describe pod` shows it whole.",
        evidence,
    )


def _cannot_run(step: Step) -> Finding | None:
    failed = step.failed()
    if failed and failed[1].get("reason") in ("StartError", "ContainerCannotRun"):
        return _command_missing(step, failed[0], str(failed[1].get("message", "")))
    return None


def _command_missing(step: Step, container: str, message: str) -> Finding | None:
    found = re.search(r'exec: "([^"]+)": (?:executable file not found|stat .*no such file|permission denied)', message)
    if found is None:
        return None
    image = step.container_spec(container).get("image", "")
    return Finding(
        "command-missing",
        step.name,
        f"{step.task} starts the command {found[1]}, which its image {image} does not have or may not run.",
        "Use an image that holds it: the pipeline's own, or one built FROM it.",
        {"command": found[1], "image": image, "container": container},
    )


def _mount(step: Step, scene: Scene) -> Finding | None:
    """Explain a volume that cannot be mounted, from events: the containers only say ContainerCreating."""
    if step.phase != "Pending":
        return None
    event = step.event("FailedMount", "FailedAttachVolume")
    if event is None:
        return None
    message = str(event.get("message", ""))
    missing = _missing(step, scene, message)
    if missing:
        return missing
    volume = re.search(r'volume "([^"]+)"', message)
    in_use = "Multi-Attach" in message
    return Finding(
        "volume-in-use" if in_use else "volume-not-mounted",
        step.name,
        f"{step.task} cannot mount the volume {volume[1] if volume else ''}: "
        + ("another node uses it, and it can be attached to one only." if in_use else f"{cut(message)}."),
        "Wait for the other pod to end, or use a volume that several nodes can mount (ReadWriteMany)."
        if in_use
        else "Correct what the message names: the volume's server, its name, or its rights.",
        {"volume": volume[1] if volume else "", "message": cut(message)},
    )


def _reason(said: str, pattern: re.Pattern[str]) -> str:
    found = pattern.search(said)
    return found[0] if found else ""
