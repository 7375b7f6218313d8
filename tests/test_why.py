"""`basekamp why`: each recorded cluster in data/why, served over HTTP, gives the expected sentence.

cluster.json holds the nodes and other teams' pods; every other file holds the objects of one run, what its
containers printed, and what is expected. `nodes` names the nodes of cluster.json to keep, `denied` what the user may
not do.
"""

import base64
import gzip
import json
import re
import time
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from basekamp.cluster.endpoint import OutageError
from basekamp.cluster.kube import RefusedError, connect_cluster
from basekamp.cluster.why import Finding, explain, findings_as_json, findings_as_text
from basekamp.cluster.why.capacity import amount_text, pod_requests, quantity, survey
from basekamp.cluster.why.printed import read_printed
from basekamp.cluster.why.scene import task_name
from basekamp.errors import BasekampError, InputError
from tests.kube_server import KubeServer, strict_schema

DATA = Path(__file__).parent / "data" / "why"
CASES = sorted(path.stem for path in DATA.glob("*.json") if path.stem != "cluster")
NAMESPACE = "kubeflow"


def read(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def fill(kube: KubeServer, case: dict[str, Any]) -> None:
    kept = case.get("nodes")
    for thing in read("cluster"):
        if kept is None or thing["metadata"]["name"] in kept or thing["spec"].get("nodeName") in kept:
            kube.add(thing)
    kube.serve("trainer.kubeflow.org/v1alpha1", "TrainJob", "trainjobs")
    kube.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, *case["objects"])
    kube.denied = {tuple(each) for each in case.get("denied", [])}
    for place, text in case["logs"].items():
        pod, container = place.split("/", 1)
        kube.logs[NAMESPACE, pod, container] = text


def ask(kube: KubeServer, folder: Path, run: str, namespace: str = NAMESPACE) -> list[Finding]:
    return explain(run, namespace=namespace, client=connect_cluster(kubeconfig=kube.kubeconfig(folder / "config")))


def play(case: dict[str, Any], folder: Path) -> list[Finding]:
    with KubeServer(token="a-token") as kube:
        fill(kube, case)
        return ask(kube, folder, case["run"])


@pytest.mark.parametrize("name", CASES)
def test_recorded_run_gives_the_expected_findings(name: str, tmp_path: Path) -> None:
    case = read(name)
    found = [{"cause": each.cause, "sentence": each.sentence, "remedy": each.remedy} for each in play(case, tmp_path)]
    assert found == case["expected"]


@pytest.mark.parametrize("name", ["cluster", *CASES])
def test_recorded_objects_fit_the_schemas_of_kubernetes(name: str) -> None:
    recorded = read(name)
    for thing in recorded if name == "cluster" else recorded["objects"]:
        if thing["kind"] not in ("Workflow", "TrainJob"):
            kubernetes_validate.validate(thing, "1.33", strict=True)


def test_recorded_trainjobs_fit_the_schema_of_kubeflow_trainer() -> None:
    crd = json.loads((DATA.parent / "trainjob_crd.json").read_text(encoding="utf-8"))
    schema = strict_schema(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    jobs = [thing for name in CASES for thing in read(name)["objects"] if thing["kind"] == "TrainJob"]
    assert len(jobs) == 3
    for job in jobs:
        jsonschema.Draft4Validator(schema).validate(job)


def test_causes_number_at_least_fifteen_and_keep_to_their_form() -> None:
    expected = [each for name in CASES for each in read(name)["expected"]]
    assert len({each["cause"] for each in expected}) >= 45
    for each in expected:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", each["cause"])
        assert each["sentence"].endswith(".") and each["remedy"].endswith(".")
        assert "\n" not in each["sentence"] + each["remedy"]


@pytest.mark.parametrize("run", ["deeper", "train-and-compare-8xk2p"], ids=["run-name", "workflow-name"])
def test_run_is_found_by_its_names(run: str, tmp_path: Path) -> None:
    case = read("loop")
    findings = play({**case, "run": run}, tmp_path)
    assert [each.cause for each in findings] == [each["cause"] for each in case["expected"]]


def test_pod_name_explains_that_pod_alone(tmp_path: Path) -> None:
    findings = play({**read("loop"), "run": "train-and-compare-8xk2p-system-container-impl-201"}, tmp_path)
    assert [each.cause for each in findings] == ["out-of-memory"]
    assert "other pod" not in findings[0].sentence


def test_newest_of_two_runs_with_one_name_is_explained(tmp_path: Path) -> None:
    case = read("pod-gone")
    older = json.loads(
        json.dumps(case["objects"][0]).replace("8xk2p", "older").replace("Error (exit", "OOMKilled (exit")
    )
    older["metadata"] |= {"creationTimestamp": "2026-03-01T00:00:00Z", "labels": {}}
    findings = play({**case, "objects": [older, *case["objects"]], "run": "deeper"}, tmp_path)
    assert findings[0].cause == "pod-gone"


def test_compressed_workflow_is_read(tmp_path: Path) -> None:
    case = read("quota-exceeded")
    status = case["objects"][0]["status"]
    packed = gzip.compress(json.dumps(status.pop("nodes")).encode())
    status["compressedNodes"] = base64.b64encode(packed).decode()
    assert play(case, tmp_path)[0].cause == "quota-exceeded"


def test_run_is_explained_without_right_to_see_workflows_or_events(tmp_path: Path) -> None:
    denied = [["list", "workflows.argoproj.io"], ["get", "workflows.argoproj.io"], ["list", "events"]]
    findings = play({**read("gpu-shortage"), "denied": denied}, tmp_path)
    assert findings[0].sentence == read("gpu-shortage")["expected"][0]["sentence"]


def test_log_that_may_not_be_read_is_called_gone(tmp_path: Path) -> None:
    findings = play({**read("crash"), "denied": [["get", "pods/log"]]}, tmp_path)
    assert findings[0].sentence == read("crash-silent")["expected"][0]["sentence"]


def test_secrets_of_a_log_stay_out_of_every_form(tmp_path: Path) -> None:
    findings = play(read("crash-secret"), tmp_path)
    shown = findings_as_text(findings) + json.dumps(findings_as_json(findings))
    assert "canary" not in shown
    assert "***" in shown


def test_evidence_holds_the_numbers(tmp_path: Path) -> None:
    evidence = play(read("gpu-shortage"), tmp_path)[0].evidence
    assert evidence["asked"] == 4
    assert evidence["free"] == {"gpu-1": 2, "gpu-2": 0, "gpu-3": 8}
    assert evidence["blocks"] == {"gpu-3": ["team=vision:NoSchedule"]}
    assert evidence["held_by"] == {"team-b/llm-0": 8, "team-a/bert-0": 6}
    assert play(read("out-of-memory"), tmp_path)[0].evidence["peak_bytes"] == 8301384 * 1024


def test_text_shows_cause_log_pod_and_remedy(tmp_path: Path) -> None:
    text = findings_as_text(play(read("crash"), tmp_path)).splitlines()
    assert text[0].startswith("crash: train-model failed with exit code 1")
    assert text[5] == "    | KeyError: 'layer3'"
    assert text[6] == "  pod: train-and-compare-8xk2p-system-container-impl-1180573614"
    assert text[7].startswith("  do:  Mend what it names")


@pytest.mark.parametrize("run", ["no-such-run", "Not A Name!", "x" * 80, "../../secrets", ""])
def test_unknown_run_is_one_sentence(run: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^Namespace kubeflow knows no run, workflow or pod '.*': copy the run's id"):
        play({**read("crash"), "run": run}, tmp_path)


def test_missing_namespace_is_one_sentence(tmp_path: Path) -> None:
    with KubeServer() as kube, pytest.raises(InputError, match=r"has no namespace nowhere: `kubectl get namespaces`"):
        ask(kube, tmp_path, "any", namespace="nowhere")


def test_wrong_token_is_one_sentence_without_the_token(tmp_path: Path) -> None:
    with KubeServer(token="right") as kube:
        client = connect_cluster(kubeconfig=kube.kubeconfig(tmp_path / "config", token="wrong-canary"))
        with pytest.raises(RefusedError, match=r"does not accept your credentials \(401: Unauthorized\)") as raised:
            explain("any", namespace=NAMESPACE, client=client)
    assert "canary" not in str(raised.value)


def test_namespace_that_may_not_be_seen_is_believed_and_a_wrong_token_is_not(tmp_path: Path) -> None:
    with KubeServer(token="right", denied={("get", "namespaces")}) as kube:
        connect_cluster(kubeconfig=kube.kubeconfig(tmp_path / "right")).require_namespace("any")
        stranger = connect_cluster(kubeconfig=kube.kubeconfig(tmp_path / "wrong", token="wrong"))
        with pytest.raises(RefusedError, match="does not accept your credentials"):
            stranger.require_namespace("any")


def test_denied_pods_are_one_sentence(tmp_path: Path) -> None:
    case = {**read("crash"), "denied": [["list", "pods"], ["get", "pods"]]}
    with pytest.raises(RefusedError, match=r'does not allow this \(403: pods is forbidden: User "me" cannot get'):
        play(case, tmp_path)


def test_unreachable_cluster_is_one_sentence_within_seconds(tmp_path: Path) -> None:
    with KubeServer() as kube:
        client = connect_cluster(kubeconfig=kube.kubeconfig(tmp_path / "config"))
    start = time.monotonic()
    with pytest.raises(OutageError, match=r"cannot be reached \(Connection refused\): check that it runs"):
        explain("any", namespace=NAMESPACE, client=client)
    assert time.monotonic() - start < 60  # a hang, not a speed


def test_failing_cluster_is_one_sentence(tmp_path: Path) -> None:
    with (
        KubeServer(outages=9) as kube,
        pytest.raises(OutageError, match=r"fails to answer \(503: apiserver is shutting"),
    ):
        ask(kube, tmp_path, "any")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"kubeconfig .* cannot be used \("),
        ("a: [", r"kubeconfig .* cannot be used \(it is not YAML\): `kubectl config view`"),
        ("just text", r"kubeconfig .* cannot be used \("),
        ('{"contexts": [], "clusters": [], "users": [], "current-context": "x"}', r"cannot be used \("),
    ],
)
def test_unusable_kubeconfig_is_one_sentence(content: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=said):
        connect_cluster(kubeconfig=path)


def test_no_kubeconfig_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"^There is no kubeconfig: set KUBECONFIG or write ~/.kube/config"):
        connect_cluster()


def test_pod_without_a_token_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    with pytest.raises(InputError, match=r"^This pod has no service account token"):
        connect_cluster()


def test_failing_login_command_is_one_sentence(tmp_path: Path) -> None:
    with KubeServer() as kube:
        path = kube.kubeconfig(tmp_path / "config")
        config = json.loads(path.read_text())
        login = {"apiVersion": "client.authentication.k8s.io/v1", "command": "false", "interactiveMode": "Never"}
        config["users"][0]["user"] = {"exec": login}
        path.write_text(json.dumps(config))
        with pytest.raises(
            InputError, match=r"^The login command of the kubeconfig .* failed \(exec: process returned 1"
        ):
            connect_cluster(kubeconfig=path)


def test_kubeconfig_of_the_environment_and_its_namespace_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KubeServer(token="t") as kube:
        monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "config", namespace="team-a")))
        cluster = connect_cluster()
        assert (cluster.namespace, cluster.get("/version")["gitVersion"]) == ("team-a", "v1.33.4")


def test_page_that_is_no_kubernetes_is_one_sentence(tmp_path: Path) -> None:
    with KubeServer() as kube:
        client = connect_cluster(kubeconfig=kube.kubeconfig(tmp_path / "config"))
        kube.add({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": NAMESPACE}})
        kube.logs[NAMESPACE, "p", "main"] = "<html>"
        with pytest.raises(BasekampError, match="is not a Kubernetes API"):
            client.get(f"/api/v1/namespaces/{NAMESPACE}/pods/p/log", container="main")


def test_pages_of_a_list_are_joined(tmp_path: Path) -> None:
    with KubeServer() as kube:
        kube.add(*({"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n{i:04}"}} for i in range(1201)))
        nodes = connect_cluster(kubeconfig=kube.kubeconfig(tmp_path / "config")).items("/api/v1/nodes")
        assert [node["metadata"]["name"] for node in nodes] == [f"n{i:04}" for i in range(1201)]
        assert nodes[0]["kind"] == "Node"
        assert len(kube.requests) == 3


def test_created_object_is_patched_and_deleted_with_what_it_owns(tmp_path: Path) -> None:
    with KubeServer() as kube:
        kube.serve("trainer.kubeflow.org/v1alpha1", "TrainJob", "trainjobs")
        kube.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        cluster = connect_cluster(kubeconfig=kube.kubeconfig(tmp_path / "config"))
        path = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs"
        made = cluster.create(path, {"metadata": {"generateName": "train-"}, "spec": {"suspend": False}})
        name = made["metadata"]["name"]
        owner = {"apiVersion": made["apiVersion"], "kind": "TrainJob", "name": name, "uid": made["metadata"]["uid"]}
        pod = {"name": "p", "namespace": NAMESPACE, "ownerReferences": [owner]}
        kube.add({"apiVersion": "v1", "kind": "Pod", "metadata": pod})
        assert cluster.patch(f"{path}/{name}", {"spec": {"suspend": True}})["spec"] == {"suspend": True}
        cluster.delete(f"{path}/{name}")
        cluster.delete(f"{path}/{name}")
        assert kube.all("pods") == kube.all("trainjobs.trainer.kubeflow.org") == []


def test_refused_creation_names_the_field(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "Thing", "plural": "things"}
    with KubeServer() as kube:
        kube.serve_crd({"spec": {"group": "a.io", "names": names, "scope": "Namespaced", "versions": [version]}})
        kube.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        cluster = connect_cluster(kubeconfig=kube.kubeconfig(tmp_path / "config"))
        with pytest.raises(RefusedError, match=r"refuses the request \(422: .*spec.n: 'two' is not of type") as raised:
            cluster.create(
                f"/apis/a.io/v1/namespaces/{NAMESPACE}/things", {"metadata": {"name": "a"}, "spec": {"n": "two"}}
            )
        assert raised.value.status == 422


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", "0.5"), ("4Gi", 4 * 2**30), ("1e3", 1000), ("2", 2), ("128974848k", "128974848000"), ("?", 0), (None, 0)],
)
def test_quantity_is_read(text: object, number: object) -> None:
    assert quantity(text) == quantity(number)


@pytest.mark.parametrize(
    ("resource", "amount", "text"),
    [
        ("memory", "1536Mi", "1.5 GiB"),
        ("memory", "8Gi", "8 GiB"),
        ("cpu", "1", "1 core"),
        ("cpu", "2500m", "2.5 cores"),
        ("nvidia.com/gpu", "10", "10"),
    ],
)
def test_amount_is_written_as_a_person_would(resource: str, amount: str, text: str) -> None:
    assert amount_text(resource, quantity(amount)) == text


def test_pod_asks_for_its_containers_or_its_largest_init_container() -> None:
    def container(cpu: str, **more: str) -> dict[str, Any]:
        return {"name": "c", "resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "containers": [container("1"), container("2")],
        "initContainers": [container("5"), container("250m", restartPolicy="Always")],
        "overhead": {"cpu": "100m"},
    }
    assert pod_requests({"spec": spec}) == {"cpu": quantity("5100m")}


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"key": "pool", "operator": "In", "values": ["a", "b"]}, True),
        ({"key": "pool", "operator": "NotIn", "values": ["a"]}, False),
        ({"key": "zone", "operator": "Exists"}, False),
        ({"key": "zone", "operator": "DoesNotExist"}, True),
        ({"key": "gpus", "operator": "Gt", "values": ["4"]}, True),
        ({"key": "gpus", "operator": "Lt", "values": ["4"]}, False),
    ],
)
def test_node_affinity_is_read(expression: dict[str, Any], fits: bool) -> None:
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    node = {"metadata": {"name": "n", "labels": {"pool": "a", "gpus": "8"}}}
    room = survey({"spec": {"affinity": affinity}}, [node], [])[0]
    assert (not room.mismatch) is fits


@pytest.mark.parametrize(
    ("toleration", "blocks"),
    [
        ({"operator": "Exists"}, ()),
        ({"key": "team", "operator": "Exists", "effect": "NoSchedule"}, ()),
        ({"key": "team", "operator": "Equal", "value": "vision"}, ()),
        ({"key": "team", "value": "speech"}, ("team=vision:NoSchedule",)),
        ({"key": "team", "operator": "Exists", "effect": "NoExecute"}, ("team=vision:NoSchedule",)),
    ],
)
def test_tolerations_are_read(toleration: dict[str, str], blocks: tuple[str, ...]) -> None:
    taint = {"key": "team", "value": "vision", "effect": "NoSchedule"}
    soft = {"key": "soft", "effect": "PreferNoSchedule"}
    node = {"metadata": {"name": "n"}, "spec": {"taints": [taint, soft]}}
    assert survey({"spec": {"tolerations": [toleration]}}, [node], [])[0].blocks == blocks


def test_finished_pods_hold_no_room() -> None:
    def holder(phase: str) -> dict[str, Any]:
        container = {"name": "c", "resources": {"requests": {"nvidia.com/gpu": "2"}}}
        return {"spec": {"nodeName": "n", "containers": [container]}, "status": {"phase": phase}}

    node = {"metadata": {"name": "n"}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}}
    phases = ("Running", "Pending", "Succeeded", "Failed")
    room = survey({}, [node], [holder(phase) for phase in phases])[0]
    assert room.free["nvidia.com/gpu"] == 4


def test_cordoned_node_is_blocked() -> None:
    node = {"metadata": {"name": "n"}, "spec": {"unschedulable": True}}
    assert survey({}, [node], [])[0].blocks == ("cordoned",)


@pytest.mark.parametrize(
    ("node_name", "task"),
    [
        ("wf-1.root.train-model.executor", "train-model"),
        ("wf-1.root.train-model.executor(2)", "train-model"),
        ("wf-1.root.train-model-driver", "train-model"),
        ("wf-1.root-driver", "root"),
        ("wf-1.root.for-loop-1.it(3:x).trial.executor(0)", "trial"),
        ("", ""),
    ],
)
def test_task_is_read_from_the_name_of_argos_node(node_name: str, task: str) -> None:
    assert task_name(node_name) == task


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("password=hunter2", "password=***"),
        ("AWS_SECRET_ACCESS_KEY: 'abc/def+g'", "AWS_SECRET_ACCESS_KEY: '***'"),
        ('{"token": "eyJhbGciOi"}', '{"token": "***"}'),
        ("tokens: 4096 a step", "tokens: 4096 a step"),
        ("\x1b[31mValueError: no\x1b[0m", "ValueError: no"),
    ],
)
def test_log_line_is_cleaned(line: str, shown: str) -> None:
    assert read_printed([line]).tail == [shown]
