"""Follow a TrainJob to its end: say what it waits for, print the first node's log, tell why it failed."""

import time
from collections.abc import Iterator
from typing import Any

from basekamp.cluster.endpoint import OutageError
from basekamp.cluster.kube import AbsentError, Cluster, RefusedError
from basekamp.cluster.trainjob_node import USER_ERROR
from basekamp.cluster.trainjob_object import GROUP, NODE, PLURAL, VERSION
from basekamp.errors import BasekampError

Object = dict[str, Any]

JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
OUTAGE_SECONDS = 300.0
"""How long the cluster may fail to answer while the nodes go on training."""

_IMAGE = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_START = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_PEER_LOST = ("closed by peer", "reset by peer", "Broken pipe", "timed out", "NCCL", "DistStoreError")


class Follower:
    """Watches one TrainJob of `nodes` nodes by asking every `poll_seconds`.

    `start_seconds` bounds the wait for running nodes, without the time in a queue; `timeout_seconds` the whole.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        *,
        nodes: int,
        start_seconds: float,
        timeout_seconds: float,
        poll_seconds: float,
    ) -> None:
        self.cluster, self.namespace, self.name, self.nodes = cluster, namespace, name, nodes
        self.start_seconds, self.timeout_seconds, self.poll_seconds = start_seconds, timeout_seconds, poll_seconds
        self.created = self.waiting_since = self.answered = time.monotonic()
        self.has_run = False
        self.said = self.last_line = ""
        self.log_read_at: float | None = None
        self.endings: dict[str, Object] = {}

    def follow(self) -> None:
        """Return when the training is complete.

        Raises BasekampError, one sentence, when it failed, cannot start, was deleted or takes too long.
        """
        while True:
            try:
                if self._look():
                    return
                self.answered = time.monotonic()
            except OutageError:
                if time.monotonic() - self.answered > OUTAGE_SECONDS:
                    raise
            time.sleep(self.poll_seconds)

    def _look(self) -> bool:
        """Whether it is complete."""
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}/{self.name}"
        try:
            job = self.cluster.get(path)
        except AbsentError:
            raise BasekampError(f"{self._told} was deleted while it ran: start the run again.") from None
        pods = self.cluster.items(f"/api/v1/namespaces/{self.namespace}/pods", labels=f"{JOBSET_LABEL}={self.name}")
        pods.sort(key=_index)
        self._remember_endings(pods)
        self._print_log(pods)
        conditions = {each["type"]: each for each in (job.get("status") or {}).get("conditions") or []}
        holding = {kind for kind, each in conditions.items() if each["status"] == "True"}
        if "Complete" in holding:
            return True
        if "Failed" in holding:
            raise self._failure(conditions["Failed"])
        self._check_pods(pods)
        self._check_time(pods, is_queued="Suspended" in holding)
        return False

    @property
    def _told(self) -> str:
        return f"the TrainJob {self.name}"

    def _say(self, text: str) -> None:
        if text != self.said:
            print(f"{self.name}: {text}", flush=True)
        self.said = text

    def _remember_endings(self, pods: list[Object]) -> None:
        """Keep how containers ended: their pods may be gone when the job has failed."""
        for pod in pods:
            for status in _statuses(pod):
                for state in ("lastState", "state"):
                    ended = (status.get(state) or {}).get("terminated")
                    if ended and ended.get("exitCode"):
                        self.endings[f"node {_index(pod)}"] = ended

    def _check_pods(self, pods: list[Object]) -> None:
        """Raise for what will not get better by waiting."""
        for node, ended in self.endings.items():
            if ended["exitCode"] == USER_ERROR and ended.get("message"):
                raise BasekampError(f"{node} of {self._told} stopped: {ended['message'].strip()}")
        for pod in pods:
            for status in _statuses(pod):
                waiting = (status.get("state") or {}).get("waiting") or {}
                reason, message = waiting.get("reason", ""), _short(waiting.get("message", ""))
                if reason in _IMAGE:
                    raise BasekampError(
                        f"the image {status.get('image')} of {self._told} cannot be pulled ({reason}: {message}): "
                        "push it, or give the namespace its pull secret."
                    )
                if reason in _START:
                    raise BasekampError(
                        f"the nodes of {self._told} cannot be started ({reason}: {message}): mend that."
                    )
        if not pods:
            self._check_events()

    def _check_events(self) -> None:
        """Raise for pods that the cluster refuses to make; who may not read events is not told why."""
        try:
            events = self.cluster.items(f"/api/v1/namespaces/{self.namespace}/events", fields="type=Warning")
        except RefusedError:
            return
        for event in events:
            if not str(event.get("involvedObject", {}).get("name", "")).startswith(self.name):
                continue
            message = _short(event.get("message", ""))
            if "exceeded quota" in message:
                raise BasekampError(
                    f"the quota of namespace {self.namespace} leaves no room for {self._told} ({message}): ask for "
                    "less, wait for other runs to end, or have the quota raised."
                )
            if event.get("reason") in ("FailedCreate", "TrainJobResourcesCreationFailed"):
                raise BasekampError(f"the cluster refuses the pods of {self._told} ({message}): mend that.")

    def _check_time(self, pods: list[Object], *, is_queued: bool) -> None:
        now, running = time.monotonic(), sum(_phase(pod) in ("Running", "Succeeded") for pod in pods)
        self.has_run = self.has_run or running == self.nodes
        if self.has_run or is_queued:
            self.waiting_since = now
        blocked = next(_unschedulable(pods), "")
        state = f"{running} of {self.nodes} nodes run" + (f"; no place for the others ({blocked})" if blocked else "")
        self._say("waits in its queue" if is_queued else state)
        if now - self.created > self.timeout_seconds:
            raise BasekampError(
                f"{self._told} did not end within {self.timeout_seconds:g} s: train less, on more nodes, or allow more."
            )
        if now - self.waiting_since > self.start_seconds:
            raise BasekampError(
                f"{self._told} did not start within {self.start_seconds:g} s ({state}): free or add nodes, or ask for "
                "fewer or smaller ones."
            )

    def _failure(self, condition: Object) -> BasekampError:
        """Tell the first cause: a node that only lost another comes last."""
        said = f"{condition.get('reason', '')}: {_short(condition.get('message', ''))}"
        for node, ended in self.endings.items():
            if ended.get("reason") == "OOMKilled":
                return BasekampError(
                    f"{node} of {self._told} ran out of memory (OOMKilled): give more memory, or a smaller batch_size."
                )
        told = [(node, _short(each["message"])) for node, each in self.endings.items() if each.get("message")]
        told.sort(key=lambda pair: any(sign in pair[1] for sign in _PEER_LOST))
        if told:
            return BasekampError(f"{told[0][0]} of {self._told} failed: {told[0][1]}")
        codes = ", ".join(f"{node} with exit code {ended['exitCode']}" for node, ended in self.endings.items())
        return BasekampError(f"{self._told} failed ({said}{codes and '; ended: '}{codes}): its log above tells more.")

    def _print_log(self, pods: list[Object]) -> None:
        """Print what the first node has said since the last look; a log that cannot be read stops nothing."""
        if not pods or _index(pods[0]) != 0 or _phase(pods[0]) in ("Pending", "Unknown"):
            return
        asked_at = time.monotonic()
        try:
            lines = self._log(pods[0]["metadata"]["name"]).splitlines()
        except (RefusedError, OutageError):
            return
        for line in lines:
            stamp, _, text = line.partition(" ")
            if stamp > self.last_line:
                self.last_line = stamp
                print(text, flush=True)
        self.log_read_at = asked_at

    def _log(self, pod: str) -> str:
        """The log since a little before the last look, each line after its time in nanoseconds."""
        from kubernetes import client  # type: ignore[import-untyped]

        since = {"since_seconds": int(time.monotonic() - self.log_read_at) + 10} if self.log_read_at else {}
        answer = client.CoreV1Api(self.cluster.api).read_namespaced_pod_log(
            pod, self.namespace, container=NODE, timestamps=True, _preload_content=False, **since
        )
        return bytes(answer.data).decode("utf-8", "replace")


def _index(pod: Object) -> int:
    """Which node a pod is; the label came with Kubernetes 1.28, the annotation before."""
    metadata = pod["metadata"]
    found = {**(metadata.get("annotations") or {}), **(metadata.get("labels") or {})}.get(INDEX_LABEL, "0")
    return int(found)


def _statuses(pod: Object) -> list[Object]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Unknown")


def _unschedulable(pods: list[Object]) -> Iterator[str]:
    """What the scheduler says of each pod that has no node."""
    for pod in pods:
        for condition in (pod.get("status") or {}).get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                yield _short(condition.get("message", ""))


def _short(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= 400 else line[:397] + "..."
