"""A Kubeflow Pipelines endpoint whose failures are one sentence each.

kfp.Client has no time limits, retries a failing endpoint for half a minute, takes an HTML page for an
answer and prints to standard output. `_guard` stands between it and the network, so that every failure
becomes one sentence that names the endpoint and holds no credential.
"""

import json
import os
import warnings
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from basekamp.errors import BasekampError, InputError

PORT_FORWARD = "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80"
CONNECT_SECONDS = 4.0
ANSWER_SECONDS = 30.0


class OutageError(BasekampError):
    """The endpoint does not answer now, and may answer later."""


@dataclass(frozen=True)
class Endpoint:
    """A connected API: its address for messages, the UI's for links, and the namespace of its experiments, if any.

    `ui_command` is what opens the UI where links would lead nowhere without it.
    """

    client: Any
    address: str
    ui: str
    namespace: str = ""
    ui_command: str = ""

    def page(self, path: str) -> str:
        """The address of a page of the UI."""
        return f"{self.ui}/#/{path}"


@dataclass(frozen=True)
class _Advice:
    """What to do about an endpoint that denies access or is not there; it depends on the way to it."""

    denied: str
    unreachable: str


_BY_ADDRESS = _Advice(
    denied="give a valid token or cookie file, and a namespace that it may use.",
    unreachable=f"check the address, or open it with {PORT_FORWARD}.",
)
_THROUGH_KUBERNETES = _Advice(
    denied="the kubeconfig's user must be allowed services/proxy in the namespace kubeflow; or give --host.",
    unreachable="check that the kubeconfig's cluster runs; `kubectl cluster-info` asks the same.",
)


def endpoint_address(host: str) -> str:
    """Check an address, as pasted from a browser if need be; raises InputError for an unusable one."""
    endpoint = host.split("#")[0].rstrip("/")
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if "@" in endpoint:
        raise InputError("The endpoint's address holds a user name or password: give a token instead.")
    if not usable:
        raise InputError(
            f"{host!r} is not an endpoint: give its full address, such as http://localhost:8080 "
            "or https://kubeflow.example.com/pipeline."
        )
    return endpoint


def connect(endpoint: str, token: str = "", *, cookies: str = "", kubernetes: Any = None) -> Any:
    """Give a kfp.Client whose every failure is one of our errors; nothing is asked of the endpoint yet.

    `cookies` is a Cookie header. `kubernetes`, a configuration of that client, logs in as the kubeconfig says.
    """
    import kfp

    token = token.strip()
    if not token.isascii() or any(character.isspace() for character in token):
        raise InputError("The token holds a space, a line break or a letter outside ASCII: give it bare.")

    class Client(kfp.Client):  # type: ignore[misc]
        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            """Keep the constructor off the network: its own check comes before the guard."""
            return self.api_models.V2beta1GetHealthzResponse()

        def _load_config(self, *settings: Any, **named: Any) -> Any:
            return _as_kubernetes(endpoint, kubernetes) if kubernetes else super()._load_config(*settings, **named)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = Client(
            endpoint,
            existing_token=token or None,
            cookies=cookies or None,
            ssl_ca_cert=os.environ.get("SSL_CERT_FILE"),
        )
    _guard(client, endpoint, _THROUGH_KUBERNETES if kubernetes else _BY_ADDRESS)
    return client


def _as_kubernetes(endpoint: str, kubernetes: Any) -> Any:
    """A configuration for kfp that signs requests as the Kubernetes client does, and renews its token so."""
    import kfp_server_api  # type: ignore[import-untyped]

    settings = kfp_server_api.Configuration(host=endpoint)
    for name in ("ssl_ca_cert", "cert_file", "key_file", "verify_ssl", "api_key", "api_key_prefix"):
        setattr(settings, name, getattr(kubernetes, name))

    def renew(settings: Any) -> None:
        kubernetes.refresh_api_key_hook(kubernetes)  # given kfp's own, it would set back the host
        settings.api_key = kubernetes.api_key

    settings.refresh_api_key_hook = renew if kubernetes.refresh_api_key_hook else None
    return settings


def _guard(client: Any, endpoint: str, advice: _Advice) -> None:
    """Bound every request of `client` in time and turn each failure into one of our errors."""
    import kfp_server_api
    import urllib3

    api_client = client._run_api.api_client
    connection = api_client.rest_client  # one for all of the client's services
    connection.pool_manager.connection_pool_kw["retries"] = False
    unguarded = connection.request

    def request(method: str, url: str, **options: Any) -> Any:
        options["_request_timeout"] = (CONNECT_SECONDS, ANSWER_SECONDS)
        try:
            answer = unguarded(method, url, **options)
        except kfp_server_api.ApiException as error:
            said = _shortened(_without_secrets(_server_message(error.body), api_client))
            raise _refusal(endpoint, error.status, error.reason, said, advice) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _unreachable(endpoint, error, advice) from None
        if "json" not in answer.urllib3_response.headers.get("content-type", ""):
            raise not_an_api(endpoint, "a page that is not JSON")
        return answer

    connection.request = request


def _without_secrets(text: str, api_client: Any) -> str:
    """Strike out the token and every cookie's value."""
    words = " ".join(map(str, api_client.configuration.api_key.values())).split()
    words += [cookie.partition("=")[2].strip() for cookie in (api_client.cookie or "").split(";")]
    for word in words:
        if len(word) > 3:
            text = text.replace(word, "***")
    return text


def _refusal(endpoint: str, status: int, reason: object, said: str, advice: _Advice) -> BasekampError:
    if status == 0:  # kfp_server_api's word for a TLS failure
        return BasekampError(
            f"{endpoint} cannot be trusted ({' '.join(str(reason).split())[:200]}): check the address, "
            "or name the file of its certificate authority in SSL_CERT_FILE."
        )
    answer = f"({status}{': ' if said else ''}{said})"
    if status == 400:
        return InputError(f"{endpoint} refuses the run's arguments or namespace {answer}: correct them.")
    if status in (401, 403):
        return BasekampError(f"{endpoint} denies access {answer}: {advice.denied}")
    if status >= 500 or status == 429:
        return OutageError(f"{endpoint} fails to answer {answer}: try again, or look at its ml-pipeline pod.")
    if not said:
        return not_an_api(endpoint, f"{status} {reason}")
    return BasekampError(f"{endpoint} refuses the request {answer}: correct what it names and try again.")


def _server_message(body: bytes | None) -> str:
    try:
        status = json.loads(body or b"")
        said = status.get("message") or status.get("error") or ""
    except (ValueError, AttributeError):
        return ""
    return " ".join(str(said).split())


def _shortened(text: str) -> str:
    return text if len(text) <= 300 else text[:297] + "..."


def not_an_api(endpoint: str, answer: str) -> BasekampError:
    """The error for an endpoint that answers, and not as Kubeflow Pipelines does."""
    return BasekampError(
        f"{endpoint} is not a Kubeflow Pipelines API (it answers with {answer}): "
        "check the address; in front of it may be a login that wants a token or a cookie."
    )


def _unreachable(endpoint: str, error: Exception, advice: _Advice) -> BasekampError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else type(cause).__name__
    return OutageError(f"{endpoint} cannot be reached ({reason}): {advice.unreachable}")
