"""The one place that reaches the Kubernetes API: plain JSON objects in, plain JSON objects out.

The `kubernetes` package finds the address and signs requests (kubeconfig, its login commands, in-cluster
tokens). `_guard` stands between it and the network, so that every request is bounded in time and every
failure becomes one sentence that names the cluster and holds no credential.
"""

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from basekamp.cluster.endpoint import OutageError
from basekamp.errors import BasekampError, InputError

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0
PAGE = 500

Object = dict[str, Any]

_root_logger = threading.Lock()


class RefusedError(BasekampError):
    """The cluster answered, and not with what was asked; `status` is the HTTP one."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class AbsentError(RefusedError):
    """The object, or the kind of object, does not exist in the cluster."""


class Cluster:
    """A Kubernetes API server; paths begin with `/api` or `/apis`, as in `kubectl get --raw`.

    `namespace` is the one of the kubeconfig's context, or of the pod, else "default". `api` is the
    underlying `kubernetes.client.ApiClient`, guarded alike, for the typed interfaces and for `watch`.

    Every method raises OutageError when the cluster does not answer, AbsentError for what does not exist,
    and RefusedError with the HTTP status for any other refusal.
    """

    def __init__(self, api: Any, *, namespace: str) -> None:
        self.api = api
        self.host = str(api.configuration.host)
        self.namespace = namespace

    def get(self, path: str, **query: str) -> Object:
        """Read one object."""
        return self._json("GET", path, query)

    def items(self, path: str, *, labels: str = "", fields: str = "") -> list[Object]:
        """Read every object of a list that fits the selectors, page by page."""
        chosen = {key: text for key, text in (("labelSelector", labels), ("fieldSelector", fields)) if text}
        found: list[Object] = []
        page: dict[str, str] = {"limit": str(PAGE)}
        while True:
            answer = self._json("GET", path, {**chosen, **page})
            kind = str(answer.get("kind", "")).removesuffix("List")
            found += [{"apiVersion": answer.get("apiVersion"), "kind": kind, **each} for each in answer["items"]]
            following = (answer.get("metadata") or {}).get("continue")
            if not following:
                return found
            page = {"limit": str(PAGE), "continue": following}

    def create(self, path: str, body: Mapping[str, Any]) -> Object:
        """Create an object in the list at `path` and give it as the cluster holds it."""
        return self._json("POST", path, {}, body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Object:
        """Merge `body` into the object (JSON merge patch)."""
        return self._json("PATCH", path, {}, body)

    def delete(self, path: str) -> None:
        """Delete an object and, in the background, what it owns; nothing there is fine."""
        try:
            self._json("DELETE", path, {"propagationPolicy": "Background"})
        except AbsentError:
            return

    def log(self, namespace: str, pod: str, container: str, *, lines: int, previous: bool = False) -> str:
        """Read the last lines that a container printed; `previous` means before its last restart."""
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(1 << 20)}
        if previous:
            query["previous"] = "true"
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/log"
        return self._send("GET", path, query, None).decode("utf-8", "replace")

    def require_namespace(self, namespace: str) -> None:
        """Raise InputError when there is no such namespace; who may not look is believed."""
        try:
            self.get(f"/api/v1/namespaces/{quote(namespace, safe='')}")
        except AbsentError:
            raise InputError(
                f"{self.host} has no namespace {namespace}: `kubectl get namespaces` lists them; "
                "Kubeflow runs live in kubeflow, or in a user's own namespace."
            ) from None
        except RefusedError as error:
            if error.status != 403:
                raise

    def _json(self, method: str, path: str, query: Mapping[str, str], body: object = None) -> Object:
        content = self._send(method, path, query, body)
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise RefusedError(
                f"{self.host} is not a Kubernetes API (it answers with a page that is not JSON): "
                "check the server of your kubeconfig.",
                status=200,
            )
        return answer

    def _send(self, method: str, path: str, query: Mapping[str, str], body: object) -> bytes:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        answer = self.api.call_api(
            path,
            method,
            query_params=list(query.items()),
            header_params={"Accept": "application/json, */*", "Content-Type": kind},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
        )
        return bytes(answer.data)


def connect_cluster(*, kubeconfig: Path | None = None, context: str = "") -> Cluster:
    """Open the cluster of a kubeconfig, else of $KUBECONFIG, ~/.kube/config or the pod this runs in.

    Nothing is asked of the cluster yet; a login command named in the kubeconfig is run.

    Raises:
        InputError: no kubeconfig, or one that cannot be used.
    """
    from kubernetes import client, config  # type: ignore[import-untyped]

    settings = client.Configuration()
    source = str(kubeconfig) if kubeconfig else _default_kubeconfig()
    if source:
        namespace = _load(config, source, context, settings)
    elif "KUBERNETES_SERVICE_HOST" in os.environ:
        namespace = _load_pod(config, settings)
    else:
        raise InputError(
            "There is no kubeconfig: set KUBECONFIG or write ~/.kube/config, as `kind export kubeconfig` or your "
            "cloud's command does."
        )
    settings.retries = False
    cluster = Cluster(client.ApiClient(settings), namespace=namespace)
    _guard(cluster)
    return cluster


def _default_kubeconfig() -> str:
    named = os.environ.get("KUBECONFIG", "")
    usual = Path.home() / ".kube" / "config"
    return named or (str(usual) if usual.is_file() else "")


def _load(config: Any, source: str, context: str, settings: Any) -> str:
    """Fill `settings` from a kubeconfig and give its context's namespace."""
    from yaml import YAMLError

    with _heard_errors() as heard:
        try:
            contexts, active = config.list_kube_config_contexts(config_file=source)
            chosen = next((each for each in contexts if each["name"] == context), None) if context else active
            config.load_kube_config(
                config_file=source, context=context or None, client_configuration=settings, persist_config=False
            )
        except (config.ConfigException, YAMLError, OSError, KeyError, TypeError, AttributeError, ValueError) as error:
            reason = _one_line(getattr(error, "strerror", None) or error)
            if isinstance(error, YAMLError):
                reason = "it is not YAML"  # whose text may quote a credential
            raise InputError(
                f"The kubeconfig {source} cannot be used ({reason}): `kubectl config view` shows what it holds."
            ) from None
    if heard:
        raise InputError(
            f"The login command of the kubeconfig {source} failed ({_one_line(heard[0])}): log in again, as `kubectl "
            "get pods` would ask you to."
        )
    return str(((chosen or {}).get("context") or {}).get("namespace") or "default")


def _load_pod(config: Any, settings: Any) -> str:
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException as error:
        raise InputError(
            f"This pod has no service account token ({_one_line(error)}): set automountServiceAccountToken: true."
        ) from None
    path = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    return path.read_text(encoding="utf-8").strip() if path.is_file() else "default"


@contextmanager
def _heard_errors() -> Iterator[list[str]]:
    """Collect what `kubernetes` logs instead of raising: a login command that failed."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    root = logging.getLogger()
    with _root_logger:  # two threads would each put back the other's handlers
        handlers = root.handlers[:]
        root.handlers[:] = [Ear(logging.ERROR)]
        try:
            yield heard
        finally:
            root.handlers[:] = handlers


def _guard(cluster: Cluster) -> None:
    """Bound every request in time and turn each failure into one of our errors."""
    import urllib3
    from kubernetes.client import ApiException  # type: ignore[import-untyped]

    connection = cluster.api.rest_client
    unguarded = connection.request

    def request(method: str, url: str, **options: Any) -> Any:
        if options.get("_request_timeout") is None:
            options["_request_timeout"] = (CONNECT_SECONDS, ANSWER_SECONDS)
        try:
            return unguarded(method, url, **options)
        except ApiException as error:
            raise _refusal(cluster, error) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _unreachable(cluster.host, error) from None

    connection.request = request


def _refusal(cluster: Cluster, error: Any) -> BasekampError:
    host, status = cluster.host, error.status
    if not status:  # the package's word for a TLS failure
        return BasekampError(
            f"{host} cannot be trusted ({_one_line(error.reason)}): check the server and the certificate "
            "authority in your kubeconfig."
        )
    said = _without_secrets(_server_message(error.body), cluster)
    answer = f"({status}{': ' if said else ''}{said})"
    if status == 401:
        return RefusedError(
            f"{host} does not accept your credentials {answer}: log in again, or correct the kubeconfig.",
            status=status,
        )
    if status == 403:
        return RefusedError(
            f"{host} does not allow this {answer}: ask for the right, or name a namespace that you may use.",
            status=status,
        )
    if status == 404:
        return AbsentError(f"{host} does not have it {answer}.", status=status)
    if status >= 500 or status == 429:
        return OutageError(f"{host} fails to answer {answer}: try again.")
    return RefusedError(f"{host} refuses the request {answer}.", status=status)


def _server_message(body: object) -> str:
    try:
        said = json.loads(body).get("message") or ""  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError):
        return ""
    return _one_line(said)


def _without_secrets(text: str, cluster: Cluster) -> str:
    for value in cluster.api.configuration.api_key.values():
        for word in str(value).split():
            if len(word) > 6:  # longer than "Bearer"
                text = text.replace(word, "***")
    return text


def _unreachable(host: str, error: BaseException) -> OutageError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else type(cause).__name__
    return OutageError(
        f"The cluster {host} cannot be reached ({reason}): check that it runs and that its address in your "
        "kubeconfig is right; `kubectl cluster-info` asks the same."
    )


def _one_line(text: object) -> str:
    line = " ".join(str(text).split()).rstrip(".")
    return line if len(line) <= 400 else line[:397] + "..."
