"""What a run on the cluster needs: Kubeflow Pipelines, Kubernetes, the secret, GPUs, rights, the image."""

import base64
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any
from urllib.parse import quote

from basekamp.cluster.doctor.check import Check, Examination
from basekamp.cluster.endpoint import Endpoint
from basekamp.cluster.kube import AbsentError, Cluster, RefusedError

DEFAULT_NAMESPACE = "kubeflow"
SECRET = "mlpipeline-minio-artifact"
SECRET_KEYS = ("accesskey", "secretkey")
SERVICE_ACCOUNTS = ("basekamp-pipeline", "pipeline-runner", "default-editor")
GPU = "nvidia.com/gpu"
TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"

Object = dict[str, Any]
_Right = tuple[str, str, str, str]
_RIGHTS: tuple[_Right, ...] = (  # verb, group, resource, subresource
    ("list", "", "pods", ""),
    ("get", "", "pods", "log"),
    ("list", "", "events", ""),
    ("list", "argoproj.io", "workflows", ""),
    ("list", "", "resourcequotas", ""),
    ("list", "", "nodes", ""),
)


@dataclass
class ClusterDoctor:
    """The checks of one cluster; what the first ones open, the others use."""

    host: str
    token: str = field(repr=False)
    namespace: str
    image: str

    def examinations(self) -> list[Examination]:
        """Every check, with the one that it needs."""
        return [
            Examination("kubeflow", self.check_kubeflow),
            Examination("login", self.check_login, needs="kubeflow"),
            Examination("kubernetes", self.check_kubernetes),
            Examination("namespace", self.check_namespace, needs="kubernetes"),
            Examination("secret", self.check_secret, needs="namespace"),
            Examination("service account", self.check_service_account, needs="namespace"),
            Examination("permissions", self.check_permissions, needs="namespace"),
            Examination("quota", self.check_quota, needs="namespace"),
            Examination("gpus", self.check_gpus, needs="kubernetes"),
            Examination("trainjob", self.check_trainjob, needs="kubernetes"),
            Examination("image", self.check_image, needs="namespace"),
        ]

    @property
    def place(self) -> str:
        """The namespace that pods run in."""
        return self.namespace or DEFAULT_NAMESPACE

    def check_kubeflow(self) -> Check:
        """Whether the endpoint answers, with a version that goes with the client's."""
        from basekamp.cluster.access import Access

        self.endpoint: Endpoint = Access(host=self.host, token=self.token).connect()
        api = self.endpoint.client._run_api.api_client
        self.health: Object = api.call_api(
            "/apis/v2beta1/healthz",
            "GET",
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
        )
        version = str(self.health.get("apiServerTagName") or self.health.get("tag_name") or "")
        return judge_versions(self.endpoint.address, version, metadata.version("kfp"))

    def check_login(self) -> Check:
        """Whether the endpoint lets this user list experiments."""
        several = bool(self.health.get("multi_user") or self.health.get("apiServerMultiUser"))
        if several and not self.namespace:
            return Check(
                "login", "warn", "not tried: the endpoint serves several namespaces", "Name yours: --namespace."
            )
        self.endpoint.client.list_experiments(page_size=1, namespace=self.namespace if several else None)
        return Check("login", "ok", f"experiments may be listed{f' in {self.namespace}' if several else ''}")

    def check_kubernetes(self) -> Check:
        """Whether the kubeconfig's cluster answers."""
        from basekamp.cluster.kube import connect_cluster

        self.cluster: Cluster = connect_cluster()
        version = self.cluster.get("/version").get("gitVersion", "of an unknown version")
        return Check("kubernetes", "ok", f"{self.cluster.host} answers, Kubernetes {version}")

    def check_namespace(self) -> Check:
        """Whether the namespace exists."""
        try:
            self.cluster.get(f"/api/v1/namespaces/{quote(self.place, safe='')}")
        except AbsentError:
            return Check(
                "namespace",
                "fail",
                f"{self.cluster.host} has no namespace {self.place}",
                "Install Kubeflow (`make deploy`), or name another one: --namespace.",
            )
        except RefusedError as error:
            if error.status != 403:
                raise
            return Check("namespace", "ok", f"{self.place}, as far as one may look")
        return Check("namespace", "ok", f"{self.place} exists")

    def check_secret(self) -> Check:
        """Whether the secret that steps read the store's credentials from has its keys; values are never shown."""
        try:
            secret = self._get(f"secrets/{SECRET}")
        except AbsentError:
            return Check(
                "secret",
                "fail",
                f"the namespace {self.place} has no secret {SECRET}, which steps read the store's credentials from",
                f"kubectl create secret generic {SECRET} -n {self.place} --from-literal=accesskey=… "
                "--from-literal=secretkey=….",
            )
        except RefusedError as error:
            return _unseen("secret", f"secret {SECRET}", error)
        held = {key for key, value in (secret.get("data") or {}).items() if base64.b64decode(value).strip()}
        missing = [key for key in SECRET_KEYS if key not in held]
        if missing:
            told = f"the secret {SECRET} lacks {' and '.join(missing)}, or holds nothing under it"
            return Check("secret", "fail", told, f"Add the keys: kubectl edit secret {SECRET} -n {self.place}.")
        return Check("secret", "ok", f"{SECRET} holds {' and '.join(SECRET_KEYS)}")

    def check_service_account(self) -> Check:
        """Whether a service account for pipelines exists."""
        try:
            names = {each["metadata"]["name"] for each in self._items("serviceaccounts")}
        except RefusedError as error:
            return _unseen("service account", "service accounts", error)
        found = [name for name in SERVICE_ACCOUNTS if name in names]
        if found:
            return Check("service account", "ok", f"runs can use {found[0]}")
        return Check(
            "service account",
            "fail",
            f"the namespace {self.place} has none of {', '.join(SERVICE_ACCOUNTS)}, so no pod of a run can be made",
            "Install the manifests (`make deploy`), which make basekamp-pipeline with its role.",
        )

    def check_permissions(self) -> Check:
        """Whether this user may see what `basekamp why` looks at."""
        lacking = [_right_text(right) for right in _RIGHTS if not self._may(right)]
        if not lacking:
            return Check("permissions", "ok", "pods, logs, events, workflows, quotas and nodes may be read")
        return Check(
            "permissions",
            "warn",
            f"you may not {', '.join(lacking)}: `basekamp why` sees less",
            "Ask for the ClusterRole view, and for reading nodes.",
        )

    def check_quota(self) -> Check:
        """What the namespace's quotas leave."""
        from basekamp.cluster.why.capacity import amount_text, quantity

        try:
            quotas = self._items("resourcequotas")
        except RefusedError as error:
            return _unseen("quota", "quotas", error)
        told, empty = [], []
        for quota in quotas:
            status = quota.get("status") or {}
            used = status.get("used") or {}
            for resource, hard in (status.get("hard") or {}).items():
                kind = resource.removeprefix("requests.").removeprefix("limits.")
                left = max(quantity(hard) - quantity(used.get(resource, 0)), quantity(0))
                told.append(f"{resource} {amount_text(kind, left)} of {amount_text(kind, quantity(hard))} left")
                empty += [resource] if not left else []
        if empty:
            remedy = "Wait until other pods of the namespace end, or have the quota raised."
            return Check("quota", "warn", f"nothing is left of {', '.join(empty)} ({'; '.join(told)})", remedy)
        return Check("quota", "ok", "; ".join(told) or f"the namespace {self.place} has no quota")

    def check_gpus(self) -> Check:
        """Which nodes offer GPUs to pods."""
        try:
            nodes = self.cluster.items("/api/v1/nodes")
        except RefusedError as error:
            return _unseen("gpus", "nodes", error)
        return judge_gpus(nodes)

    def check_trainjob(self) -> Check:
        """Whether Kubeflow Trainer is installed, which trains on more than one node."""
        try:
            served = {each["name"] for each in self.cluster.get(TRAINER).get("resources", [])}
        except AbsentError:
            served = set()
        if "trainjobs" in served:
            return Check("trainjob", "ok", "Kubeflow Trainer serves TrainJob v1alpha1")
        return Check(
            "trainjob",
            "warn",
            "Kubeflow Trainer (trainer.kubeflow.org/v1alpha1) is not installed",
            'Only nodes above "1" need it: see https://www.kubeflow.org/docs/components/trainer.',
        )

    def check_image(self) -> Check:
        """Whether a node has the image or has pulled it lately; a registry cannot be asked from here."""
        if not self.image:
            return Check("image", "skip", "no image was named")
        try:
            nodes = self.cluster.items("/api/v1/nodes")
        except RefusedError:
            nodes = []
        try:
            events = self._items("events")
        except RefusedError:
            events = []
        return judge_image(self.image, nodes, events)

    def _get(self, path: str) -> Object:
        return self.cluster.get(f"/api/v1/namespaces/{quote(self.place, safe='')}/{path}")

    def _items(self, resource: str) -> list[Object]:
        return self.cluster.items(f"/api/v1/namespaces/{quote(self.place, safe='')}/{resource}")

    def _may(self, right: _Right) -> bool:
        verb, group, resource, sub = right
        asked = {"verb": verb, "group": group, "resource": resource, "subresource": sub}
        if resource != "nodes":
            asked["namespace"] = self.place
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        answer = self.cluster.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool((answer.get("status") or {}).get("allowed"))


def judge_versions(address: str, server: str, client: str) -> Check:
    """Judge the server's version against the client's: the same minor version is meant to go together."""
    told = f"{address} answers, Kubeflow Pipelines {server or 'of an unknown version'}; kfp here is {client}"
    numbers = server.lstrip("v").split(".")
    if not server or not numbers[0].isdigit():
        return Check(
            "kubeflow", "warn", told, "Compare the versions by hand: the UI shows the server's at the bottom left."
        )
    if numbers[:2] == client.split(".")[:2]:
        return Check("kubeflow", "ok", told)
    same_major = numbers[0] == client.split(".")[0]
    return Check(
        "kubeflow",
        "warn" if same_major else "fail",
        told,
        "Install a server of the client's version (`make deploy`), or the kfp of the server's.",
    )


def judge_gpus(nodes: list[Object]) -> Check:
    """Judge what the nodes offer: GPUs, GPUs that are not reported, or none."""
    from basekamp.cluster.why.capacity import is_gpu, quantity

    offered, silent = [], []
    for node in nodes:
        name, labels = node["metadata"]["name"], node["metadata"].get("labels") or {}
        told = (node.get("status") or {}).get("allocatable") or {}
        held = {resource: quantity(text) for resource, text in told.items() if is_gpu(resource) and quantity(text)}
        product = labels.get("nvidia.com/gpu.product", "")
        offered += [
            f"{name} {amount} {resource}{f' ({product})' if product else ''}" for resource, amount in held.items()
        ]
        if not held and labels.get("nvidia.com/gpu.present") == "true":
            silent.append(name)
    if silent:
        return Check(
            "gpus",
            "fail",
            f"{', '.join(silent)} carry GPU labels and offer no GPU to pods",
            "Look at the device plugin's pods (`kubectl get pods -A | grep device-plugin`) and at the driver there.",
        )
    if offered:
        return Check(
            "gpus", "ok", ", ".join(offered[:8]) + (f" and {len(offered) - 8} more" if len(offered) > 8 else "")
        )
    return Check(
        "gpus",
        "warn",
        f"none of the cluster's nodes offers {GPU} ({len(nodes)} in all)",
        'Train on the CPU with gpus="0", or add GPU nodes and the NVIDIA device plugin.',
    )


def judge_image(image: str, nodes: list[Object], events: list[Object]) -> Check:
    """Judge from the images that nodes hold, and from what events say of pulls."""
    has_it = [node["metadata"]["name"] for node in nodes if _holds_image(node, image)]
    if has_it:
        return Check("image", "ok", f"{image} is on {', '.join(has_it[:6])} ({len(has_it)} of {len(nodes)} nodes)")
    about = [event for event in events if f'"{image}"' in str(event.get("message", ""))]
    newest = max(about, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""), default={})
    if newest.get("reason") == "Failed":
        said = " ".join(str(newest.get("message", "")).split())[:300]
        return Check(
            "image", "fail", f"{image} could not be pulled: {said}", "Push it, or give the pods its pull secret."
        )
    if newest.get("reason") == "Pulled":
        return Check("image", "ok", f"{image} was pulled by a pod of late")
    return Check(
        "image",
        "warn",
        f"no node holds {image} and no event tells of a pull, so it is not known whether it can be pulled",
        "Submit one run; for kind, load it first (`kind load docker-image`).",
    )


def _holds_image(node: Object, image: str) -> bool:
    names = [name for each in (node.get("status") or {}).get("images") or [] for name in each.get("names") or []]
    return any(name == image or name in (f"docker.io/{image}", f"docker.io/library/{image}") for name in names)


def _unseen(name: str, what: str, error: RefusedError) -> Check:
    if error.status != 403:
        raise error
    return Check(name, "warn", f"you may not look at {what}", "Ask for the right, or have somebody look who has it.")


def _right_text(right: _Right) -> str:
    verb, group, resource, sub = right
    return f"{verb} {resource}{f'/{sub}' if sub else ''}{f' ({group})' if group else ''}"
