"""Why a container ended with an error: memory, signals, the step's own code, or KFP's parts around it."""

import re
from datetime import datetime, timedelta
from decimal import Decimal

from basekamp.cluster.why.capacity import Object, amount_text, quantity
from basekamp.cluster.why.finding import Finding
from basekamp.cluster.why.printed import Printed, cut, one_line, read_printed
from basekamp.cluster.why.scene import NODE_NAME, Scene, Step, event_time, task_name

_RSS = re.compile(r"anon-rss:(\d+)kB")
_OUT_OF_SHM = re.compile(
    r"insufficient shared memory|out of shared memory|unable to (?:mmap|open|write).*</?torch_", re.I
)
_CUDA_MEMORY = re.compile(
    r"CUDA out of memory\.?(?: Tried to allocate (\S+ \wi?B))?(?:.*?total capacity of (\S+ \wi?B))?"
)
_STORE = re.compile(
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|NoSuchBucket|ExpiredToken|RequestTimeTooSkewed|bucket|"
    r"remote storage|\bs3\b|credentials",
    re.I,
)
_METADATA = re.compile(r"ML Metadata|MLMD|metadata-grpc|metadata store", re.I)
_CODES = re.compile(
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|NoSuchBucket|ExpiredToken|RequestTimeTooSkewed|"
    r"connection refused|no such host|i/o timeout|x509[^,;]*"
)
_STATUSES = re.compile(r"StatusCode: \d+|Forbidden")
_LAUNCHER = re.compile(r"^failed to (execute component|create component launcher v2): ")
_NEARBY = timedelta(minutes=2)
_REFUSED = "Do what the sentence says, and try it first here with `basekamp run`."


def why_failed(step: Step, scene: Scene) -> Finding | None:
    """Explain a container that ended with an error: memory, signals, the step's own code, KFP's parts."""
    failed = step.failed()
    if failed is None:
        return _without_word(step)
    container, ended = failed
    if ended.get("reason") == "OOMKilled":
        return _out_of_memory(step, scene, container, ended)
    printed = read_printed(scene.log(step, container))
    if step.is_driver:
        return _driver(step, printed, ended)
    if container in ("wait", "init"):
        return _by_argo(step, printed, ended)
    return (
        _shared_memory(step, printed, container, ended)
        or _gpu_memory(step, printed)
        or _by_launcher(step, printed, container)
        or _by_signal(step, printed, ended)
        or _crash(step, printed, ended)
    )


def _without_word(step: Step) -> Finding | None:
    """A pod that failed with no container to blame."""
    if step.phase != "Failed":
        return None
    reason, message = str(step.status.get("reason") or ""), cut(step.status.get("message"))
    return Finding(
        "pod-failed",
        step.name,
        f"{step.task} failed on the node {step.node or 'that it never got'}: "
        f"{message or reason or 'no reason is given'}.",
        "Look at `kubectl describe pod` and at the node's events; submit again if the node was at fault.",
        {"node": step.node, "reason": reason, "message": message},
    )


def _out_of_memory(step: Step, scene: Scene, container: str, ended: Object) -> Finding:
    limit = ((step.container_spec(container).get("resources") or {}).get("limits") or {}).get("memory")
    peak = _peak_bytes(step, scene, ended)
    evidence = {"container": container, "limit": limit, "peak_bytes": int(peak) if peak else None, "node": step.node}
    bound = f"its limit is {amount_text('memory', quantity(limit))}" if limit else f"the node {step.node} had no more"
    remedy = "Ask for as much memory as the step needs, so that it lands on a node that has it."
    if step.is_driver:
        remedy = "Raise the driver's memory limit in the installation of Kubeflow Pipelines."
    elif limit:
        remedy = "Ask for more memory, or need less: a smaller batch_size, width or number of DataLoader workers."
    told = f" and it held {amount_text('memory', peak)}" if peak else ""
    return Finding(
        "out-of-memory",
        step.name,
        f"{step.task} was killed for want of memory (OOMKilled): {bound}{told}.",
        remedy,
        evidence,
    )


def _peak_bytes(step: Step, scene: Scene, ended: Object) -> Decimal:
    """The memory held when the kernel killed it, from the termination message or the node problem detector."""
    texts = [str(ended.get("message") or ""), *(str(event.get("message")) for event in step.events)]
    end = _moment(str(ended.get("finishedAt") or ""))
    for event in scene.node_events(step.node) if step.node and end else []:
        seen = _moment(event_time(event))
        if event.get("reason") == "OOMKilling" and seen and end and abs(seen - end) <= _NEARBY:
            texts.append(str(event.get("message")))
    return max((Decimal(held) * 1024 for text in texts for held in _RSS.findall(text)), default=Decimal(0))


def _shared_memory(step: Step, printed: Printed, container: str, ended: Object) -> Finding | None:
    bus_error = (
        ended.get("exitCode") == 135 or printed.signal.startswith("bus error") or "bus error" in printed.text.lower()
    )
    if not bus_error and not _OUT_OF_SHM.search(printed.text):
        return None
    size = _shm_size(step, container)
    return Finding(
        "shared-memory",
        step.name,
        f"{step.task} ran out of shared memory{' (bus error)' if bus_error else ''}: /dev/shm is {size}, and "
        "DataLoader workers hand batches over through it.",
        "Mount an emptyDir of medium Memory at /dev/shm, as these pipelines do for train-model, and give the step "
        "memory for it; or use fewer DataLoader workers.",
        {"shm": size, "exit_code": ended.get("exitCode"), "log": printed.tail},
    )


def _gpu_memory(step: Step, printed: Printed) -> Finding | None:
    found = _CUDA_MEMORY.search(printed.text)
    if found is None:
        return None
    wanted = f" when it wanted {found[1]} more" if found[1] else ""
    of = f" of {found[2]}" if found[2] else ""
    return Finding(
        "gpu-out-of-memory",
        step.name,
        f"{step.task} ran out of GPU memory{of}{wanted}.",
        "Use a smaller batch_size or width, a GPU with more memory, or a whole GPU instead of a slice.",
        {"wanted": found[1], "capacity": found[2], "log": printed.tail},
    )


def _by_launcher(step: Step, printed: Printed, container: str) -> Finding | None:
    """Explain a failure of KFP's launcher, which moves artifacts before and after the user's code."""
    if printed.is_of_user and container != "kfp-launcher":
        return None
    said = one_line(
        re.sub(r"^(failed to execute component|failed to create component launcher v2): ", "", printed.fatal)
    )
    evidence = {"launcher": said, "container": container, "log": printed.tail}
    code = _CODES.search(said) or _STATUSES.search(said)
    if _METADATA.search(said):
        return Finding(
            "metadata-unreachable",
            step.name,
            f"KFP's launcher of {step.task} could not reach the metadata store: {cut(said)}.",
            "Look at the pod metadata-grpc-deployment in Kubeflow's namespace, and at NetworkPolicies between.",
            evidence,
        )
    if _STORE.search(said):
        return Finding(
            "artifact-store",
            step.name,
            f"KFP's launcher of {step.task} could not use the artifact store{f' ({code[0]})' if code else ''}: "
            f"{cut(_upto_address(said))}.",
            "Check the bucket and the keys in the secret mlpipeline-minio-artifact, the config map kfp-launcher, "
            "and that the pod reaches the store; `basekamp doctor` tries them.",
            {**evidence, "code": code[0] if code else ""},
        )
    return Finding(
        "launcher-failure",
        step.name,
        f"KFP's launcher of {step.task} failed, not the step's own code: {cut(said) or 'it left no word'}.",
        "Look at what it names; a launcher and a driver of another KFP version than the server's fail alike.",
        evidence,
    )


def _driver(step: Step, printed: Printed, ended: Object) -> Finding:
    task = task_name(step.annotations.get(NODE_NAME, "")) or step.name
    said = one_line(printed.fatal or (printed.lines[-1] if printed.lines else ""))
    inner = cut(re.sub(r"^KFP driver: (driver\.\w+\(.*?\) failed: )?", "", said))
    return Finding(
        "driver-failure",
        step.name,
        f"KFP's driver could not prepare {task}, so the step never started: "
        f"{inner or 'it left no word, exit code ' + str(ended.get('exitCode'))}.",
        "Correct the parameter or input it names; if it speaks of a connection, look at the pods ml-pipeline and "
        "metadata-grpc-deployment.",
        {"driver": said, "exit_code": ended.get("exitCode")},
    )


def _by_argo(step: Step, printed: Printed, ended: Object) -> Finding:
    said = one_line(ended.get("message") or (printed.lines[-1] if printed.lines else ""))
    return Finding(
        "argo-failure",
        step.name,
        f"Argo's helper beside {step.task} failed (exit code {ended.get('exitCode')}): {said or 'it left no word'}.",
        "Check the rights of the pipeline's service account (workflowtaskresults: create, patch) and Argo's "
        "artifact repository.",
        {"message": said, "exit_code": ended.get("exitCode")},
    )


def _by_signal(step: Step, printed: Printed, ended: Object) -> Finding | None:
    code = ended.get("exitCode")
    evidence = {"exit_code": code, "signal": printed.signal, "log": printed.tail}
    if code == 143 or printed.signal == "terminated":
        killing = one_line((step.event("Killing", "TaintManagerEviction") or {}).get("message"))
        return Finding(
            "terminated",
            step.name,
            f"{step.task} was told to stop (SIGTERM){f': {killing}' if killing else ''}.",
            "See who stopped the run or drained the node; submit again, and training goes on from its checkpoint.",
            {**evidence, "event": killing},
        )
    if code == 137 or printed.signal == "killed":
        return Finding(
            "killed",
            step.name,
            f"{step.task} was killed (SIGKILL) without the mark of its own memory limit: a process in it ran out of "
            "memory, the node did, or it did not stop in time when told to.",
            "Ask for more memory, look at the node's events (`kubectl describe node`), and submit again.",
            {**evidence, "node": step.node},
        )
    return None


def _crash(step: Step, printed: Printed, ended: Object) -> Finding:
    code = ended.get("exitCode")
    status = re.search(r"exit status (\d+)", printed.fatal)
    shown = int(status[1]) if status else code
    evidence = {"exit_code": shown, "log": printed.tail}
    if printed.refusal:
        kind, sentence = printed.refusal
        return Finding("crash", step.name, f"{step.task} stopped: {sentence}", _REFUSED, {**evidence, "error": kind})
    if "exec format error" in printed.text:
        return Finding(
            "image-platform",
            step.name,
            f"{step.task} cannot run: its image was not built for the processor of the node {step.node}.",
            "Build the image for the node's platform (`docker build --platform linux/amd64`).",
            evidence,
        )
    if not printed.lines:
        return Finding(
            "crash",
            step.name,
            f"{step.task} failed with exit code {shown}, and its log is gone.",
            "Open the run's artifact executor-logs in the Kubeflow UI, or run the attempt here with `basekamp run`.",
            evidence,
        )
    last = cut(printed.lines[-1].rstrip("."))
    return Finding(
        "crash",
        step.name,
        f"{step.task} failed with exit code {shown}; its last line is: {last}.",
        "Mend what it names, and try it first here with `basekamp run`.",
        evidence,
    )


def _shm_size(step: Step, container: str) -> str:
    mounts = step.container_spec(container).get("volumeMounts") or []
    name = next((mount["name"] for mount in mounts if mount.get("mountPath") == "/dev/shm"), None)
    for volume in step.spec.get("volumes") or []:
        if volume["name"] == name and volume.get("emptyDir") is not None:
            limit = volume["emptyDir"].get("sizeLimit")
            return amount_text("memory", quantity(limit)) if limit else "as large as the pod's memory allows"
    return "64 MiB"


def _upto_address(said: str) -> str:
    """Leave out the chain of causes after the artifact's address; the code already tells the cause."""
    found = re.match(r'.*? remote storage URI "[^"]+"', said)
    return found[0] if found else said


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
