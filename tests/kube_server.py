"""A stand-in for the Kubernetes API server: objects in memory, served over real HTTP.

It knows namespaces, label and field selectors, pages, watches, merge and JSON patches, the status
subresource, owner references (deleting an owner deletes what it owns), pod logs, bearer tokens, denied
verbs and custom resources. What is created through the API is checked: against the CRD's own schema where
`serve_crd` gave one, and by `validate` if set.

    with KubeServer(token="t") as kube:
        kube.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
        kube.serve("trainer.kubeflow.org/v1alpha1", "TrainJob", "trainjobs")
        cluster = connect_cluster(kubeconfig=kube.kubeconfig(tmp_path / "config"))
"""

import copy
import itertools
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.kube_objects import Object, RefusedError, fits_fields, fits_labels, patched, strict_schema

__all__ = ["Kind", "KubeServer", "RefusedError", "strict_schema"]

Key = tuple[str, str, str]
"""Resource (`pods`, `trainjobs.trainer.kubeflow.org`), namespace ("" for none), name."""


@dataclass(frozen=True)
class Kind:
    """A kind of object: where it is served and what it is called there."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def resource(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


BUILT_IN = [
    *(
        Kind("v1", kind, plural)
        for kind, plural in {
            "Pod": "pods",
            "Event": "events",
            "Secret": "secrets",
            "ConfigMap": "configmaps",
            "Service": "services",
            "ServiceAccount": "serviceaccounts",
            "PersistentVolumeClaim": "persistentvolumeclaims",
            "ResourceQuota": "resourcequotas",
            "LimitRange": "limitranges",
        }.items()
    ),
    Kind("v1", "Node", "nodes", namespaced=False),
    Kind("v1", "Namespace", "namespaces", namespaced=False),
    Kind("v1", "PersistentVolume", "persistentvolumes", namespaced=False),
    Kind("batch/v1", "Job", "jobs"),
    Kind("apps/v1", "Deployment", "deployments"),
    Kind("apps/v1", "StatefulSet", "statefulsets"),
    Kind("storage.k8s.io/v1", "StorageClass", "storageclasses", namespaced=False),
    Kind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", namespaced=False),
    Kind("argoproj.io/v1alpha1", "Workflow", "workflows"),
]
REVIEW = Kind("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False)


@dataclass
class KubeServer:
    """A server on a free loopback port, for the length of a `with` block.

    token          the bearer token that every request must carry; "" lets all in
    denied         what is answered with 403: ("list", "nodes"), or in one namespace only ("list", "pods", "team"),
                   where "" is the cluster scope
    outages        answers 503 to so many requests from now on; a test may set it at any time
    validate       called with each object that a client creates; raises ValueError to refuse it with 422
    on_create      called with each object that a client created, to play its controller
    logs           what `pods/NAME/log` gives, by (namespace, pod, container); "…/previous" for a restarted one
    requests       every request answered, as "METHOD path?query"
    """

    token: str = ""
    version: str = "v1.33.4"
    denied: set[tuple[str, ...]] = field(default_factory=set)
    outages: int = 0
    validate: Callable[[Object], None] | None = None
    on_create: Callable[[Object], None] | None = None
    logs: dict[tuple[str, str, str], str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kinds = list(BUILT_IN)
        self.schemas: dict[str, Object] = {}
        self.objects: dict[Key, Object] = {}
        self.history: list[tuple[int, str, str, Object]] = []  # revision, resource, ADDED and so on, object
        self.revisions = itertools.count(1000)
        self.changed = threading.Condition(threading.RLock())
        self.is_closing = False

    def __enter__(self) -> "KubeServer":
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"kube": self}))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.changed:
            self.is_closing = True
            self.changed.notify_all()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def kubeconfig(self, path: Path, *, token: str | None = None, namespace: str = "kubeflow") -> Path:
        """Write a kubeconfig that leads here, with the right token unless another is given."""
        user = {"token": self.token if token is None else token} if self.token or token else {}
        context = {"cluster": "stand-in", "user": "me", "namespace": namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stand-in",
            "clusters": [{"name": "stand-in", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": user}],
            "contexts": [{"name": "stand-in", "context": context}],
        }
        path.write_text(json.dumps(config))
        return path

    def serve(self, api_version: str, kind: str, plural: str, *, namespaced: bool = True) -> None:
        """Serve a custom resource without a schema."""
        self.kinds.append(Kind(api_version, kind, plural, namespaced))

    def serve_crd(self, crd: Object) -> None:
        """Serve the resource of a CustomResourceDefinition and check what is created against its schema."""
        spec = crd["spec"]
        names = spec["names"]
        for version in spec["versions"]:
            api_version = f"{spec['group']}/{version['name']}"
            self.serve(api_version, names["kind"], names["plural"], namespaced=spec["scope"] == "Namespaced")
            schema = (version.get("schema") or {}).get("openAPIV3Schema")
            if schema:
                self.schemas[f"{api_version}/{names['kind']}"] = schema

    # What a test does behind the API's back.

    def add(self, *objects: Object) -> None:
        """Put objects in, as recorded, unchecked; a namespace that is missing is made."""
        for each in objects:
            kind = self.kind_of(each)
            namespace = each["metadata"].get("namespace", "") if kind.namespaced else ""
            if namespace and ("namespaces", "", namespace) not in self.objects:
                self.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            self._store(kind, namespace, copy.deepcopy(each))

    def get(self, resource: str, name: str, namespace: str = "") -> Object | None:
        """Look an object up."""
        return self.objects.get((resource, namespace, name))

    def all(self, resource: str) -> list[Object]:
        """List every object of a resource."""
        return [each for (found, _, _), each in self.objects.items() if found == resource]

    def set_status(self, resource: str, name: str, status: Object, namespace: str = "") -> None:
        """Do what a controller does: set the status and tell the watchers."""
        with self.changed:
            stored = {**self.objects[resource, namespace, name], "status": status}
            self._store(self.kind_of(stored), namespace, stored)

    def remove(self, resource: str, name: str, namespace: str = "") -> None:
        """Delete an object and what it owns."""
        with self.changed:
            gone = self.objects.pop((resource, namespace, name))
            self._tell(resource, "DELETED", gone)
            uid = gone["metadata"]["uid"]
            for (kind, place, owned), each in list(self.objects.items()):
                owners = [owner["uid"] for owner in each["metadata"].get("ownerReferences", [])]
                if uid in owners and (kind, place, owned) in self.objects:
                    self.remove(kind, owned, place)

    def kind_of(self, thing: Object) -> Kind:
        for kind in self.kinds:
            if (kind.api_version, kind.kind) == (thing.get("apiVersion"), thing.get("kind")):
                return kind
        raise RefusedError(400, "BadRequest", f"no kind {thing.get('kind')} in {thing.get('apiVersion')}")

    # The API.

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Object | str:
        """Answer one request that is not a watch; raises `RefusedError` for any answer other than 2xx."""
        discovered = self._discovery(path)
        if discovered is not None:
            return discovered
        if path.endswith(f"/{REVIEW.plural}") and method == "POST":
            return self._review(body)
        kind, namespace, name, sub = self.route(path)
        verb = _verb(method, name, query)
        self.check_access(verb, f"{kind.resource}/{sub}" if sub == "log" else kind.resource, namespace)
        with self.changed:
            if method == "GET" and sub == "log":
                return self._log(namespace, name, query)
            if method == "GET":
                return copy.deepcopy(
                    self._found(kind, namespace, name) if name else self.listed(kind, namespace, query)
                )
            if method == "POST":
                return self._create(kind, namespace, body, query)
            stored = self._found(kind, namespace, name)
            if method == "DELETE":
                self.remove(kind.resource, name, stored["metadata"].get("namespace", ""))
                return {"kind": "Status", "apiVersion": "v1", "status": "Success"}
            return self._change(kind, namespace, stored, body, sub=sub, replaces=method == "PUT")

    def route(self, path: str) -> tuple[Kind, str, str, str]:
        """Split a path into kind, namespace, name and subresource."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        api_version, rest = ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        for kind in self.kinds:
            if (kind.api_version, kind.plural) == (api_version, rest[0]):
                return kind, namespace, rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else ""
        raise RefusedError(404, "NotFound", "the server could not find the requested resource")

    def right(self, request: str) -> tuple[str, str, str]:
        """What a Role must allow for one of `requests`: API group, resource with its subresource, verb."""
        method, _, address = request.partition(" ")
        parts = urlsplit(address)
        kind, _, name, sub = self.route(parts.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        return kind.group, f"{kind.plural}/{sub}" if sub else kind.plural, _verb(method, name, query)

    def check_access(self, verb: str, resource: str, namespace: str) -> None:
        if self.is_denied(verb, resource, namespace):
            plural, _, group = resource.partition(".")
            place = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
            raise RefusedError(
                403,
                "Forbidden",
                f'{plural} is forbidden: User "me" cannot {verb} resource "{plural}" in API group "{group}" {place}',
            )

    def is_denied(self, verb: str, resource: str, namespace: str) -> bool:
        return bool({(verb, resource), (verb, resource, namespace)} & self.denied)

    def listed(self, kind: Kind, namespace: str, query: dict[str, str]) -> Object:
        """Give the List object for a request."""
        chosen = [
            each
            for (resource, place, _), each in sorted(self.objects.items(), key=lambda item: item[0])
            if resource == kind.resource
            and namespace in ("", place)
            and fits_labels(query.get("labelSelector", ""), each["metadata"].get("labels") or {})
            and fits_fields(query.get("fieldSelector", ""), each)
        ]
        start, size = int(query.get("continue") or 0), int(query.get("limit") or 0) or len(chosen)
        metadata: Object = {"resourceVersion": str(self._revision())}
        if start + size < len(chosen):
            metadata["continue"] = str(start + size)
        page = [  # as the real server does, which names the kind once
            {key: each[key] for key in each if key not in ("apiVersion", "kind")}
            for each in chosen[start : start + size]
        ]
        return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata, "items": page}

    def watch(self, kind: Kind, namespace: str, query: dict[str, str], *, seconds: float) -> Iterator[Object]:
        """Yield watch events: what there is, unless a resourceVersion says from where, and what changes."""
        with self.changed:
            seen = int(query.get("resourceVersion") or 0)
            first = [] if seen else self.listed(kind, namespace, {**query, "limit": "", "continue": ""})["items"]
            seen = seen or self._revision()
        for each in first:
            yield {"type": "ADDED", "object": {"apiVersion": kind.api_version, "kind": kind.kind, **each}}
        while True:
            with self.changed:
                fresh = [event for event in self.history if event[0] > seen]
                if not fresh and (not self.changed.wait(seconds) or self.is_closing):
                    return
            for revision, resource, action, thing in fresh:
                seen = revision
                metadata = thing["metadata"]
                if (
                    resource == kind.resource
                    and namespace in ("", metadata.get("namespace", ""))
                    and fits_labels(query.get("labelSelector", ""), metadata.get("labels") or {})
                    and fits_fields(query.get("fieldSelector", ""), thing)
                ):
                    yield {"type": action, "object": thing}

    def _revision(self) -> int:
        return self.history[-1][0] if self.history else 1

    def _discovery(self, path: str) -> Object | None:
        parts = path.strip("/").split("/")
        if path == "/version":
            major, minor = self.version.lstrip("v").split(".")[:2]
            return {"major": major, "minor": minor, "gitVersion": self.version, "platform": "linux/amd64"}
        if (parts[0], len(parts)) not in (("api", 2), ("apis", 3)):
            return None
        api_version = "/".join(parts[1:])
        served = [kind for kind in self.kinds if kind.api_version == api_version]
        if not served:
            raise RefusedError(404, "NotFound", "the server could not find the requested resource")
        resources = [{"name": kind.plural, "kind": kind.kind, "namespaced": kind.namespaced} for kind in served]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}

    def _review(self, body: Object) -> Object:
        asked = body["spec"]["resourceAttributes"]
        resource = "".join([asked["resource"], f".{asked['group']}" if asked.get("group") else ""])
        resource += f"/{asked['subresource']}" if asked.get("subresource") else ""
        return {**body, "status": {"allowed": not self.is_denied(asked["verb"], resource, asked.get("namespace", ""))}}

    def _found(self, kind: Kind, namespace: str, name: str) -> Object:
        stored = self.objects.get((kind.resource, namespace, name))
        if stored is None:
            raise RefusedError(404, "NotFound", f'{kind.resource} "{name}" not found')
        return stored

    def _log(self, namespace: str, name: str, query: dict[str, str]) -> str:
        self._found(Kind("v1", "Pod", "pods"), namespace, name)
        container = query.get("container", "main") + ("/previous" if query.get("previous") == "true" else "")
        if (namespace, name, container) not in self.logs:
            said = f'container "{container}" in pod "{name}" is waiting to start: trying and failing to pull image'
            raise RefusedError(400, "BadRequest", said)
        lines = self.logs[namespace, name, container].splitlines(keepends=True)
        return "".join(lines[-int(query.get("tailLines") or len(lines) or 1) :])

    def _create(self, kind: Kind, namespace: str, body: Object, query: dict[str, str]) -> Object:
        thing = {"apiVersion": kind.api_version, "kind": kind.kind, **copy.deepcopy(body)}
        self._check_created(kind, namespace, thing)
        metadata = thing["metadata"]
        if not metadata.get("name"):
            metadata["name"] = f"{metadata['generateName']}{uuid.uuid4().hex[:5]}"
        if (kind.resource, namespace, metadata["name"]) in self.objects:
            raise RefusedError(409, "AlreadyExists", f'{kind.resource} "{metadata["name"]}" already exists')
        if kind.namespaced:
            metadata["namespace"] = namespace
        metadata["generation"] = 1
        if query.get("dryRun"):
            return thing
        stored = self._store(kind, namespace, thing)
        if self.on_create:
            self.on_create(copy.deepcopy(stored))
        return copy.deepcopy(stored)

    def _check_created(self, kind: Kind, namespace: str, thing: Object) -> None:
        metadata = thing.get("metadata") or {}
        if (thing["apiVersion"], thing["kind"]) != (kind.api_version, kind.kind):
            raise RefusedError(400, "BadRequest", "the API version or kind in the data does not match the URL")
        if namespace and ("namespaces", "", namespace) not in self.objects:
            raise RefusedError(404, "NotFound", f'namespaces "{namespace}" not found')
        if metadata.get("namespace", namespace) != namespace:
            raise RefusedError(400, "BadRequest", "the namespace of the object does not match the URL")
        wrong = [] if metadata.get("name") or metadata.get("generateName") else ["metadata.name: Required value"]
        wrong += self._schema_errors(thing)
        try:
            if self.validate:
                self.validate(thing)
        except ValueError as error:
            wrong.append(str(error))
        if wrong:
            name = f'{kind.kind}.{kind.group} "{metadata.get("name", "")}"'
            raise RefusedError(422, "Invalid", f"{name} is invalid: {'; '.join(wrong)}")

    def _schema_errors(self, thing: Object) -> list[str]:
        schema = self.schemas.get(f"{thing['apiVersion']}/{thing['kind']}")
        if schema is None:
            return []
        import jsonschema

        found = jsonschema.Draft4Validator(strict_schema(schema)).iter_errors(thing)
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]

    def _change(self, kind: Kind, namespace: str, stored: Object, body: Any, *, sub: str, replaces: bool) -> Object:
        changed = body if replaces else patched(stored, body)
        if sub == "status":
            changed = {**stored, "status": changed.get("status")}
        elif changed.get("spec") != stored.get("spec"):
            changed["metadata"]["generation"] = stored["metadata"].get("generation", 1) + 1
        changed["metadata"] = {**changed["metadata"], "uid": stored["metadata"]["uid"]}
        return copy.deepcopy(self._store(kind, namespace, copy.deepcopy(changed)))

    def _store(self, kind: Kind, namespace: str, thing: Object) -> Object:
        with self.changed:
            metadata = thing["metadata"]
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            metadata["resourceVersion"] = str(next(self.revisions))
            key = (kind.resource, namespace, metadata["name"])
            action = "MODIFIED" if key in self.objects else "ADDED"
            self.objects[key] = thing
            self._tell(kind.resource, action, thing, int(metadata["resourceVersion"]))
            return thing

    def _tell(self, resource: str, action: str, thing: Object, revision: int | None = None) -> None:
        self.history.append((revision or next(self.revisions), resource, action, copy.deepcopy(thing)))
        self.changed.notify_all()


def _verb(method: str, name: str, query: dict[str, str]) -> str:
    if method == "GET":
        return "get" if name else "watch" if _is_true(query.get("watch")) else "list"
    return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[method]


def _is_true(text: str | None) -> bool:
    return text in ("1", "true", "True")


class _Handler(BaseHTTPRequestHandler):
    kube: KubeServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet per answer, or each waits 40 ms for an acknowledgement

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        if self.kube.is_closing:  # a client kept its connection: a server that is gone does not answer
            self.close_connection = True
            return
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.kube.requests.append(f"{self.command} {self.path}")
        try:
            self._check_request()
            if _is_true(query.get("watch")):
                return self._watch(parts.path, query)
            answer, status = self.kube.answer(self.command, parts.path, query, json.loads(content or b"{}")), 200
            status = 201 if self.command == "POST" else 200
        except RefusedError as refused:
            status = refused.status
            answer = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "message": str(refused),
                "reason": refused.reason,
                "code": status,
            }
        if isinstance(answer, str):
            return self._send(status, answer.encode(), "text/plain")
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _check_request(self) -> None:
        if self.kube.outages > 0:
            self.kube.outages -= 1
            raise RefusedError(503, "ServiceUnavailable", "apiserver is shutting down")
        if self.kube.token and self.headers.get("authorization") != f"Bearer {self.kube.token}":
            raise RefusedError(401, "Unauthorized", "Unauthorized")

    def _watch(self, path: str, query: dict[str, str]) -> None:
        kind, namespace, _, _ = self.kube.route(path)
        self.kube.check_access("watch", kind.resource, namespace)
        seconds = float(query.get("timeoutSeconds") or 60)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        try:
            for event in self.kube.watch(kind, namespace, query, seconds=seconds):
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the client went away
            self.close_connection = True

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""
