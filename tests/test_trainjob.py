"""Training on several nodes: the TrainJob, how it is followed, ended and cleared away, and the nodes themselves."""

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from basekamp.cluster import trainjob_follow, trainjob_node
from basekamp.cluster.kube import Cluster, connect_cluster
from basekamp.cluster.trainjob import Patience, run_train_job, train_on_nodes
from basekamp.cluster.trainjob_object import Nodes, train_job
from basekamp.data.prepare import prepare_data
from basekamp.errors import BasekampError, InputError, StoreError
from basekamp.experiment import DataSettings
from basekamp.hyperparameters import Hyperparameters
from basekamp.storage import open_store
from basekamp.storage.folder import FolderStore
from basekamp.storage.tree import delete_tree, fetch_tree, put_tree
from basekamp.training.launch import Job
from basekamp.training.train import train_model
from tests.kube_server import KubeServer, RefusedError, strict_schema

Object = dict[str, Any]

ROOT = Path(__file__).parent.parent
CRD = json.loads((ROOT / "tests" / "data" / "trainjob_crd.json").read_text())
SETTINGS = {"model": "mlp", "width": 24, "n_epochs": 3, "batch_size": 90}
AWS = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}
QUICK = Patience(start_seconds=20.0, timeout_seconds=60.0, poll_seconds=0.01)
NEVER = "2026-01-01T00:00:00Z"

POD: Object = {  # as Argo and Kubeflow Pipelines make it for train-model, shortened
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "train-and-compare-x7k2p-system-container-impl-123",
        "namespace": "kubeflow",
        "uid": "0b1c5a0e-7d0f-4f5e-9d3a-0c8f2f6f3b11",
        "labels": {"workflows.argoproj.io/workflow": "x7k2p", "kueue.x-k8s.io/queue-name": "basekamp"},
    },
    "spec": {
        "nodeSelector": {"pool": "a100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccountName": "pipeline-runner",
        "containers": [
            {"name": "wait", "image": "quay.io/argoproj/argoexec:v3.7.3"},
            {
                "name": "main",
                "image": "ghcr.io/basekamp/basekamp:0.1.0",
                "env": [
                    {"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    *(
                        {"name": name, "valueFrom": {"secretKeyRef": {"name": "mlpipeline-minio-artifact", "key": key}}}
                        for name, key in AWS.items()
                    ),
                    {
                        "name": "BASEKAMP_S3_ENDPOINT",
                        "valueFrom": {
                            "configMapKeyRef": {"name": "basekamp-store", "key": "endpoint", "optional": True}
                        },
                    },
                    {"name": "AWS_REGION", "value": "us-east-1"},
                ],
                "resources": {
                    "requests": {"cpu": "4", "memory": "16Gi"},
                    "limits": {"memory": "16Gi", "ephemeral-storage": "1Gi"},
                },
                "securityContext": {"runAsUser": 1000, "readOnlyRootFilesystem": True, "privileged": False},
                "volumeMounts": [
                    {"name": "dshm", "mountPath": "/dev/shm"},
                    {"name": "authority", "mountPath": "/certs", "readOnly": True},
                    {"name": "kfp-launcher", "mountPath": "/kfp-launcher"},
                    {"name": "kube-api-access-9xk2l", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
                ],
            },
        ],
        "volumes": [
            {"name": "dshm", "emptyDir": {"medium": "Memory"}},
            {"name": "authority", "secret": {"secretName": "minio-tls"}},
            {"name": "unmounted", "emptyDir": {}},
            {"name": "kfp-launcher", "emptyDir": {}},
            {"name": "kube-api-access-9xk2l", "projected": {"sources": []}},
        ],
    },
}


def built(pod: Object = POD, *, count: int = 2, gpus: int = 0, gpu_type: str = "nvidia.com/gpu") -> Object:
    nodes = Nodes(count, gpus, gpu_type)
    return train_job("basekamp-1", pod=pod, nodes=nodes, command=["x"], runtime="torch-distributed", timeout_seconds=9)


def errors_in(body: Object) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema")
    schema = strict_schema(CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    return [error.message for error in jsonschema.Draft4Validator(schema).iter_errors(body)]


@pytest.mark.parametrize(
    ("gpus", "gpu_type"), [(0, "nvidia.com/gpu"), (8, "nvidia.com/gpu"), (1, "nvidia.com/mig-1g.10gb")]
)
def test_object_fits_the_published_schema(gpus, gpu_type):
    assert errors_in(built(gpus=gpus, gpu_type=gpu_type)) == []


def test_schema_of_the_test_refuses_what_does_not_fit():
    body = built()
    body["spec"]["trainer"]["numNodes"] = "2"
    body["spec"]["trainer"]["nnodes"] = 2
    assert len(errors_in(body)) == 2


def test_object_belongs_to_the_pod_and_joins_its_queue():
    metadata = built()["metadata"]
    owner = {key: POD["metadata"][key] for key in ("name", "uid")}
    assert metadata["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", **owner}]
    assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == "basekamp"


def test_nodes_get_image_resources_and_store_of_the_pod():
    trainer = built(gpus=2)["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 2)
    assert trainer["image"] == "ghcr.io/basekamp/basekamp:0.1.0"
    assert trainer["resourcesPerNode"] == {
        "requests": {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "2"},
        "limits": {"memory": "16Gi", "nvidia.com/gpu": "2"},
    }
    given = {each["name"]: each for each in POD["spec"]["containers"][1]["env"]}
    assert trainer["env"] == [given[name] for name in ("BASEKAMP_S3_ENDPOINT", "AWS_REGION", *AWS)]


def test_nodes_get_place_rights_and_volumes_of_the_pod():
    (patch,) = built()["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]["template"]["spec"]
    (node,) = spec["containers"]
    assert job["name"] == node["name"] == "node"
    for key in ("nodeSelector", "tolerations", "imagePullSecrets"):
        assert spec[key] == POD["spec"][key]
    assert [volume["name"] for volume in spec["volumes"]] == ["dshm", "authority"]
    assert [mount["mountPath"] for mount in node["volumeMounts"]] == ["/dev/shm", "/certs"]
    security = node["securityContext"]
    assert (security["runAsUser"], security["readOnlyRootFilesystem"]) == (1000, True)
    assert (security["runAsNonRoot"], security["allowPrivilegeEscalation"]) == (True, False)
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}


def test_secret_that_the_pod_holds_by_value_is_refused():
    pod = copy.deepcopy(POD)
    pod["spec"]["containers"][1]["env"].append({"name": "MINIO_SECRET_KEY", "value": "hidden"})
    with pytest.raises(StoreError) as refusal:
        built(pod)
    told = "this pod holds MINIO_SECRET_KEY by value, which is not handed on: give it from a Secret."
    assert str(refusal.value) == told


def test_pod_without_store_credentials_is_refused():
    pod = copy.deepcopy(POD)
    pod["spec"]["containers"][1]["env"] = []
    with pytest.raises(
        StoreError, match="^the nodes cannot be given credentials for the store: this pod has no AWS_ACC"
    ):
        built(pod)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    prepare_data(DataSettings(source="sklearn:digits", target="digit"), folder)
    return folder


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with KubeServer(token="a-long-token") as server:
        server.serve_crd(CRD)
        server.add(POD)
        yield server


@pytest.fixture
def cluster(kube: KubeServer, tmp_path: Path, s3_env: str, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("POD_NAME", POD["metadata"]["name"])
    return connect_cluster(kubeconfig=kube.kubeconfig(tmp_path / "kubeconfig"))


Run = Callable[..., Any]


@pytest.fixture
def run(cluster: Cluster, digits: Path, tmp_path: Path, s3_env: str) -> Run:
    job = Job(
        dataset=digits,
        directory=tmp_path / "model",
        hyperparameters=Hyperparameters.from_mapping(SETTINGS),
        metric="accuracy",
        seeds=1,
    )

    def start(**changes: Any) -> Any:
        return run_train_job(job, **{"nodes": "2", "store": s3_env, "cluster": cluster, "patience": QUICK, **changes})

    return start


def keys(url: str) -> list[str]:
    return [entry.key for entry in open_store(url).entries()]


def node_pod(name: str, index: int, phase: str = "Running", **status: Any) -> Object:
    labels = {"jobset.sigs.k8s.io/jobset-name": name, "batch.kubernetes.io/job-completion-index": str(index)}
    metadata = {"name": f"{name}-node-0-{index}-abcde", "namespace": "kubeflow", "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": {"phase": phase, **status}}


def container(**state: Any) -> list[Object]:
    last = {"lastState": {"terminated": state.pop("last")}} if "last" in state else {}
    return [{"name": "node", "image": "ghcr.io/basekamp/basekamp:0.1.0", "state": state, **last}]


def condition(kind: str, reason: str, message: str, status: str = "True") -> Object:
    return {"type": kind, "reason": reason, "message": message, "status": status, "lastTransitionTime": NEVER}


def controller(kube: KubeServer, play: Callable[[str], None]) -> None:
    """Let `play` do what Kubeflow Trainer does with each TrainJob, given its name."""

    def act(created: Object) -> None:
        if created["kind"] == "TrainJob":
            play(created["metadata"]["name"])

    kube.on_create = act


def end(kube: KubeServer, name: str, kind: str, reason: str = "AllJobsCompleted", message: str = "done") -> None:
    kube.set_status(
        "trainjobs.trainer.kubeflow.org", name, {"conditions": [condition(kind, reason, message)]}, "kubeflow"
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RealNodes:
    """Kubeflow Trainer and kubelet at once: runs each node as a process with the variables that it would get."""

    def __init__(self, kube: KubeServer, folder: Path) -> None:
        self.kube, self.folder = kube, folder
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.inputs: list[str] = []
        self.body: Object = {}
        kube.on_create = lambda created: threading.Thread(target=self.play, args=(created,), daemon=True).start()

    def play(self, body: Object) -> None:
        name, trainer, self.body = body["metadata"]["name"], body["spec"]["trainer"], body
        self.inputs = keys(trainer["command"][3])
        self.kube.add(*(node_pod(name, index, "Pending") for index in range(trainer["numNodes"])))
        port = free_port()
        for index in range(trainer["numNodes"]):
            pet = {"NNODES": trainer["numNodes"], "NODE_RANK": index, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "BASEKAMP_HOME": str(self.folder / f"home-{index}")}
            environment |= {f"PET_{key}": str(value) for key, value in pet.items()}
            environment["PET_NPROC_PER_NODE"] = str(trainer["numProcPerNode"])
            command = [sys.executable, *trainer["command"][1:]]
            with (self.folder / f"log-{index}").open("wb") as log:
                self.nodes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.folder))
        self.kube.add(*(node_pod(name, index) for index in range(trainer["numNodes"])))
        codes = [node.wait(120) for node in self.nodes]
        lines = (self.folder / "log-0").read_text().splitlines()
        stamped = "".join(f"2026-01-01T00:00:00.{i:09}Z {line}\n" for i, line in enumerate(lines))
        self.kube.logs["kubeflow", f"{name}-node-0-0-abcde", "node"] = stamped
        end(self.kube, name, "Failed" if any(codes) else "Complete")


def test_two_nodes_give_the_weights_of_one_process_and_leave_nothing_behind(
    kube, run, digits, tmp_path, s3_env, s3_server, capfd, monkeypatch
):
    nodes = RealNodes(kube, tmp_path)
    training = run()
    printed = capfd.readouterr().out.splitlines()
    assert "a TrainJob of 2 nodes is made." in printed[0]
    assert [line for line in printed if line.startswith("3/3 epochs, seed 0, accuracy 0.")]
    monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / "home"))
    settings = Hyperparameters.from_mapping(SETTINGS)
    alone = train_model(digits, tmp_path / "alone", settings, metric="accuracy", seeds=1)
    assert training.device == f"2 x {alone.device}"
    ours, theirs = (
        torch.load(tmp_path / folder / "model.pth", weights_only=True)["state_dicts"][0]
        for folder in ("model", "alone")
    )
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours[name], tensor, rtol=0, atol=1e-5, err_msg=name)
    assert any(key.endswith("/input/dataset/train/x.npy") for key in nodes.inputs)
    assert not [key for key in nodes.inputs if "/test/" in key]
    assert s3_server.secret_key not in json.dumps(nodes.body)
    assert kube.all("trainjobs.trainer.kubeflow.org") == []
    assert keys(s3_env) == []


def test_deletion_waits_for_the_nodes(kube, run):
    controller(kube, lambda name: end(kube, name, "Failed", "x", "y"))
    with pytest.raises(BasekampError):
        run()
    (deletion,) = [each for each in kube.requests if each.startswith("DELETE")]
    assert "propagationPolicy=Foreground" in deletion


KUBEFLOW_CALLS = {  # backend/src/v2 of kubeflow/pipelines 2.17, and the executor of argo-workflows 4.0
    ("", "pods", "get"),
    ("", "configmaps", "get"),
    ("", "secrets", "get"),
    ("argoproj.io", "workflows", "get"),
    ("argoproj.io", "workflowtaskresults", "create"),
    ("argoproj.io", "workflowtaskresults", "patch"),
}


def test_role_of_the_pods_allows_what_is_called_and_nothing_else(kube, run):
    def asked(word: str) -> None:
        give_up = time.monotonic() + 30
        while not any(word in request for request in kube.requests) and time.monotonic() < give_up:
            time.sleep(QUICK.poll_seconds)

    def play(name: str) -> None:
        asked("/events")
        kube.add(node_pod(name, 0))
        asked("/log")
        end(kube, name, "Failed", "Broken", "it broke")

    controller(kube, lambda name: threading.Thread(target=play, args=(name,), daemon=True).start())
    with pytest.raises(BasekampError, match="it broke"):
        run()
    rules = yaml.safe_load((ROOT / "manifests/base/pipeline/role.yaml").read_text())["rules"]
    allowed = {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed == KUBEFLOW_CALLS | {kube.right(request) for request in kube.requests}


def test_train_job_goes_when_the_pod_goes(kube, run):
    def lose_the_pod(name: str) -> None:
        kube.remove("pods", POD["metadata"]["name"], "kubeflow")
        assert kube.all("trainjobs.trainer.kubeflow.org") == []

    controller(kube, lose_the_pod)
    with pytest.raises(
        BasekampError, match="^the TrainJob basekamp-[0-9a-f]{10} was deleted while it ran: start the run"
    ):
        run()


def terminated(code: int, message: str = "", reason: str = "Error") -> Object:
    return {"exitCode": code, "reason": reason, "message": message, "finishedAt": NEVER}


PEER_LOST = "a process of the training failed (RuntimeError: Connection closed by peer): mend that."
KILLED = "rank 1 was killed by SIGKILL: see that memory suffices."
FAILURES = {
    "a sentence of ours": (
        {0: terminated(143), 1: terminated(1, KILLED)},
        f"node 1 of the TrainJob NAME failed: {KILLED.rstrip('.')}",
    ),
    "a lost peer comes last": (
        {0: terminated(1, PEER_LOST), 1: terminated(1, KILLED)},
        f"node 1 of the TrainJob NAME failed: {KILLED.rstrip('.')}",
    ),
    "out of memory": (
        {0: terminated(1, PEER_LOST), 1: terminated(137, reason="OOMKilled")},
        "node 1 of the TrainJob NAME ran out of memory (OOMKilled): give more memory, or a smaller batch_size.",
    ),
    "no message": (
        {0: terminated(139)},
        "the TrainJob NAME failed (FailedJobs: jobset failed; ended: node 0 with exit code 139): "
        "its log above tells more.",
    ),
    "no pod left": ({}, "the TrainJob NAME failed (FailedJobs: jobset failed): its log above tells more."),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failed_train_job_is_told_with_its_cause(kube, run, case, tmp_path, s3_env):
    endings, expected = FAILURES[case]
    seen: list[str] = []

    def play(name: str) -> None:
        seen.append(name)
        pods = [
            node_pod(name, i, "Failed", containerStatuses=container(terminated=each)) for i, each in endings.items()
        ]
        kube.add(*pods)
        end(kube, name, "Failed", "FailedJobs", "jobset failed")

    controller(kube, play)
    with pytest.raises(BasekampError) as failure:
        run()
    assert str(failure.value) == expected.replace("NAME", seen[0])
    assert kube.all("trainjobs.trainer.kubeflow.org") == []
    assert keys(s3_env) == []
    assert not (tmp_path / "model").exists()


WAITING = {
    "image": (
        {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}},
        r"the image ghcr\.io/basekamp/basekamp:0\.1\.0 of the TrainJob basekamp-\w+ cannot be pulled "
        r"\(ImagePullBackOff: Back-off pulling image\): push it, or give the namespace its pull secret\.",
    ),
    "secret": (
        {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}},
        r"the nodes of the TrainJob basekamp-\w+ cannot be started \(CreateContainerConfigError: "
        r"secret \"x\" not found\): mend that\.",
    ),
    "our own refusal, restarted": (
        {"running": {}, "last": terminated(2, "model: cnn needs images: use model: mlp.\n")},
        r"node 1 of the TrainJob basekamp-\w+ stopped: model: cnn needs images: use model: mlp\.",
    ),
}


@pytest.mark.parametrize("case", WAITING)
def test_nodes_that_will_never_train_end_the_wait_at_once(kube, run, case):
    state, expected = WAITING[case]
    statuses = container(**copy.deepcopy(state))
    controller(kube, lambda name: kube.add(node_pod(name, 1, "Pending", containerStatuses=statuses)))
    with pytest.raises(BasekampError, match=f"^{expected}"):
        run()


EVENTS = {
    'pods "NAME-node-0-0-x" is forbidden: exceeded quota: basekamp, requested: pods=1, used: pods=100': (
        r"the quota of namespace kubeflow leaves no room for the TrainJob basekamp-\w+ \(.*exceeded quota: basekamp, "
        r"requested: pods=1, used: pods=100\): ask for less, wait for other runs to end, or have the quota raised\."
    ),
    'pods "NAME-node-0-0-x" is forbidden: violates PodSecurity "restricted:latest"': (
        r"the cluster refuses the pods of the TrainJob basekamp-\w+ \(.*violates PodSecurity \"restricted:latest\"\)"
    ),
}


@pytest.mark.parametrize("message", EVENTS, ids=["quota", "pod security"])
def test_pods_that_the_cluster_refuses_are_told_from_their_events(kube, run, message):
    def play(name: str) -> None:
        for owner, text in (("another-run", "exceeded quota"), (f"{name}-node-0", message.replace("NAME", name))):
            metadata = {"name": f"{owner}.1", "namespace": "kubeflow"}
            told = {"reason": "FailedCreate", "type": "Warning", "message": text}
            involved = {"kind": "Job", "name": owner}
            kube.add({"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": involved, **told})

    controller(kube, play)
    with pytest.raises(BasekampError, match=f"^{EVENTS[message]}"):
        run()


def test_nodes_without_a_place_are_told_and_given_up_in_the_end(kube, run, capfd):
    reason = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"
    blocked = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": f"{reason}."}
    controller(kube, lambda name: kube.add(node_pod(name, 0), node_pod(name, 1, "Pending", conditions=[blocked])))
    expected = (
        rf"did not start within 0\.3 s \(1 of 2 nodes run; no place for the others \({reason}\)\): free or add nodes"
    )
    with pytest.raises(BasekampError, match=expected):
        run(patience=Patience(start_seconds=0.3, poll_seconds=0.01))
    assert capfd.readouterr().out.count(f"1 of 2 nodes run; no place for the others ({reason})") == 1


def test_time_in_a_queue_is_no_time_to_start(kube, run, capfd):
    def play(name: str) -> None:
        end(kube, name, "Suspended", "Suspended", "TrainJob is suspended")
        threading.Timer(0.6, lambda: end(kube, name, "Failed", "Late", "after the queue")).start()

    controller(kube, play)
    with pytest.raises(BasekampError, match=r"failed \(Late: after the queue\)"):
        run(patience=Patience(start_seconds=0.2, poll_seconds=0.01))
    assert capfd.readouterr().out.count("waits in its queue") == 1


def test_training_that_takes_too_long_is_ended(kube, run):
    controller(kube, lambda name: kube.add(node_pod(name, 0), node_pod(name, 1)))
    with pytest.raises(BasekampError, match=r"did not end within 1 s: train less, on more nodes, or allow more\."):
        run(patience=Patience(start_seconds=0.2, timeout_seconds=1.0, poll_seconds=0.01))
    assert kube.all("trainjobs.trainer.kubeflow.org") == []


def test_cluster_that_does_not_answer_for_a_while_is_waited_for(kube, run):
    def play(name: str) -> None:
        kube.outages = 5
        threading.Timer(0.3, lambda: end(kube, name, "Failed", "Later", "it answered again")).start()

    controller(kube, play)
    with pytest.raises(BasekampError, match="it answered again"):
        run()


def test_cluster_that_stays_silent_is_given_up(kube, run, monkeypatch, capfd):
    monkeypatch.setattr(trainjob_follow, "OUTAGE_SECONDS", 0.2)
    controller(kube, lambda name: setattr(kube, "outages", 10**6))
    with pytest.raises(BasekampError, match=r"fails to answer \(503"):
        run()
    assert "could not be deleted" in capfd.readouterr().out


def test_log_is_printed_once_line_by_line_and_may_be_unreadable(kube, run, capfd):
    def play(name: str) -> None:
        kube.add(node_pod(name, 0), node_pod(name, 1))
        place = ("kubeflow", f"{name}-node-0-0-abcde", "node")
        lines = [f"2026-01-01T00:00:0{i}.000000001Z line {i}\n" for i in range(3)]
        for i in range(3):
            later = "".join(lines[: i + 1])
            threading.Timer(0.15 * (i + 1), lambda later=later: kube.logs.__setitem__(place, later)).start()
        threading.Timer(0.8, lambda: end(kube, name, "Failed", "x", "y")).start()

    controller(kube, play)
    with pytest.raises(BasekampError):
        run()
    printed = capfd.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("line")] == ["line 0", "line 1", "line 2"]


def refuse(status: int, reason: str, message: str) -> Callable[[Object], None]:
    def validate(thing: Object) -> None:
        raise RefusedError(status, reason, message)

    return validate


def test_cluster_without_kubeflow_trainer_is_refused(kube, run):
    kube.kinds = [kind for kind in kube.kinds if kind.kind != "TrainJob"]
    with pytest.raises(BasekampError) as refusal:
        run()
    expected = 'this cluster has no TrainJobs: install Kubeflow Trainer 2.2 or newer, or use nodes="1".'
    assert str(refusal.value) == expected


def test_old_kubeflow_trainer_is_refused(kube, run):
    kube.validate = lambda thing: thing["spec"].pop("runtimePatches")
    with pytest.raises(
        BasekampError, match="Kubeflow Trainer is too old, it drops runtimePatches: install 2.2 or newer"
    ):
        run()
    assert kube.all("trainjobs.trainer.kubeflow.org") == []


@pytest.mark.parametrize(
    ("denied", "what"),
    [
        (("create", "trainjobs.trainer.kubeflow.org"), "create TrainJobs in namespace kubeflow"),
        (("get", "pods"), "read its own pod in namespace kubeflow"),
    ],
)
def test_missing_right_is_named(kube, run, denied, what):
    kube.denied.add(denied)
    expected = f"^this pod's service account may not {what}: bind the Role basekamp-pipeline to it"
    with pytest.raises(BasekampError, match=expected):
        run()


def test_quota_on_train_jobs_is_told(kube, run):
    kube.validate = refuse(
        403, "Forbidden", 'trainjobs "x" is forbidden: exceeded quota: few, limited: count/trainjobs=2'
    )
    with pytest.raises(
        BasekampError, match="^the quota of namespace kubeflow leaves no room for a TrainJob .*count/train"
    ):
        run()


def test_webhook_that_refuses_keeps_its_words(kube, run):
    kube.validate = refuse(422, "Invalid", "ClusterTrainingRuntime torch-distributed must be created first")
    with pytest.raises(BasekampError, match="ClusterTrainingRuntime torch-distributed must be created first"):
        run()


def test_process_outside_a_pod_is_refused(run, monkeypatch):
    monkeypatch.setenv("POD_NAME", "laptop")
    with pytest.raises(
        InputError, match=r"runs in no pod of namespace kubeflow \(there is none named laptop\), and only"
    ):
        run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": "two"}, 'nodes="two" is not a count: use "1" or more.'),
        ({"nodes": "0"}, 'nodes="0" is not a count: use "1" or more.'),
        (
            {"store": "/data"},
            "store '/data' cannot be seen by other nodes: use s3://bucket/prefix or minio://bucket/prefix.",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_made(kube, run, changes, message):
    with pytest.raises(InputError) as refusal:
        run(**changes)
    assert str(refusal.value) == message
    assert kube.requests == []


def test_gpus_of_a_node_that_are_no_count_are_refused(digits, tmp_path):
    with pytest.raises(InputError) as refusal:
        train_on_nodes(
            digits, tmp_path, Hyperparameters(), metric="accuracy", nodes="2", node_gpus="-1", store="s3://bucket/x"
        )
    assert str(refusal.value) == 'node_gpus="-1" is not a count: use "0" or more.'


def test_one_node_is_this_pod(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / "home"))
    settings = Hyperparameters.from_mapping({"model": "majority"})
    training = train_on_nodes(digits, tmp_path / "model", settings, metric="accuracy", seeds=1, nodes="1")
    assert training.device.startswith("cpu")


def test_sigterm_deletes_the_train_job_and_its_files_and_exits_with_143(kube, cluster, digits, tmp_path, s3_env):
    controller(kube, lambda name: kube.add(node_pod(name, 0), node_pod(name, 1)))
    script = (
        "import sys; from pathlib import Path; from basekamp.hyperparameters import Hyperparameters\n"
        "from basekamp.cluster.trainjob import train_on_nodes\n"
        "data, model, store = sys.argv[1:]\n"
        "train_on_nodes(Path(data), Path(model), Hyperparameters(), metric='accuracy', nodes='2', store=store)"
    )
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, digits, tmp_path / "model", s3_env]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert "2 nodes is made." in process.stdout.readline()
        assert "2 of 2 nodes run" in process.stdout.readline()
        assert keys(s3_env)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert kube.all("trainjobs.trainer.kubeflow.org") == []
    assert keys(s3_env) == []


def test_node_whose_job_was_cleared_away_says_so_where_kubernetes_shows_it(tmp_path, monkeypatch, capfd):
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setattr(trainjob_node, "TERMINATION_LOG", log)
    with pytest.raises(SystemExit) as left:
        trainjob_node.main(str(tmp_path / "store"), "basekamp-gone")
    assert left.value.code == 1
    assert log.read_text() == capfd.readouterr().err.strip()
    assert log.read_text().endswith("holds nothing for basekamp-gone: was its training ended?")


def test_node_that_meets_a_users_mistake_exits_with_2(digits, tmp_path, monkeypatch):
    def refuse_to_launch(*_arguments: Any, **_named: Any) -> None:
        raise InputError("model: cnn needs images: use model: mlp.")

    monkeypatch.setattr(trainjob_node, "launch", refuse_to_launch)
    paths = {"dataset": digits, "directory": tmp_path / "model"}
    job = Job(hyperparameters=Hyperparameters(), metric="accuracy", seeds=1, **paths)
    trainjob_node.put_job(FolderStore(tmp_path / "store"), "basekamp-1", job)
    with pytest.raises(SystemExit) as left:
        trainjob_node.main(str(tmp_path / "store"), "basekamp-1")
    assert left.value.code == trainjob_node.USER_ERROR == 2


def test_folder_comes_back_from_a_store_as_it_was_but_for_what_was_left_out(tmp_path):
    source, store = tmp_path / "source", FolderStore(tmp_path / "store")
    for name in ("a.txt", "deep/er/b.bin", "test/c"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode())
    put_tree(store, "x/one", source, leave_out=("test",))
    (source / "a.txt").write_bytes(b"other")
    put_tree(store, "x/one", source, leave_out=("test",))
    put_tree(store, "x/one-more", source)
    assert fetch_tree(store, "x/one", tmp_path / "back") == 2
    files = {str(path.relative_to(tmp_path / "back")): path.read_bytes() for path in (tmp_path / "back").rglob("*.*")}
    assert files == {"a.txt": b"other", "deep/er/b.bin": b"deep/er/b.bin"}
    delete_tree(store, "x/one")
    assert [entry.key.split("/")[1] for entry in store.entries()] == ["one-more"] * 3
