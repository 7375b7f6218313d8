"""How a Kubeflow Pipelines API is reached, and what it is shown: a token, a cookie, or the kubeconfig's login."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from basekamp.cluster.endpoint import PORT_FORWARD, Endpoint, connect, endpoint_address
from basekamp.errors import InputError

UI_VARIABLE = "KF_PIPELINES_UI_ENDPOINT"
"""kfp's own variable: where a browser finds the UI, when that is not where the API is."""

FORWARDED_UI = "http://localhost:8080"
SERVICE_PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"
"""The way through the Kubernetes API server that kfp.Client takes when it is given no host."""

_HTTP_ONLY = "#HttpOnly_"


@dataclass(frozen=True)
class Access:
    """A way to an API: `host`, or the cluster of the kubeconfig's context, the current one by default.

    `namespace` is the experiments' one, which only a multi-user Kubeflow has. What is secret stays out of `repr`.
    """

    host: str = ""
    token: str = field(default="", repr=False)
    cookie_file: Path | None = None
    kube_context: str = ""
    namespace: str = ""

    def connect(self) -> Endpoint:
        """Open the endpoint; nothing is asked of it yet, but a kubeconfig's login command may run.

        Raises InputError for a malformed address, token or cookie file, an unusable kubeconfig, or two ways at once.
        """
        if self.host and self.kube_context:
            raise InputError(
                "--host (or $KFP_ENDPOINT) and --kube-context are two ways to one endpoint: give one of them."
            )
        if not self.host:
            return self._through_kubernetes()
        address = endpoint_address(self.host)
        cookies = read_cookies(self.cookie_file, address) if self.cookie_file else ""
        client = connect(address, self.token, cookies=cookies)
        return Endpoint(client, address, ui=_ui_address() or address, namespace=self.namespace)

    def _through_kubernetes(self) -> Endpoint:
        from basekamp.cluster.kube import connect_cluster

        if self.token or self.cookie_file:
            raise InputError(
                "A token or cookie file goes with --host or $KFP_ENDPOINT: give that too, or let the kubeconfig log in."
            )
        try:
            settings = connect_cluster(context=self.kube_context).api.configuration
        except InputError as error:
            if self.kube_context:
                raise
            raise InputError(
                "Nothing says where Kubeflow Pipelines is: give --host or $KFP_ENDPOINT, or a kubeconfig that serves "
                f"({str(error).rstrip('.')})."
            ) from None
        address = endpoint_address(settings.host) + SERVICE_PROXY
        client = connect(address, kubernetes=settings)
        ui = _ui_address()
        command = "" if ui else PORT_FORWARD
        return Endpoint(client, address, ui=ui or FORWARDED_UI, namespace=self.namespace, ui_command=command)


def _ui_address() -> str:
    named = os.environ.get(UI_VARIABLE, "")
    return endpoint_address(named) if named else ""


def read_cookies(path: Path, address: str) -> str:
    """Give the Cookie header for `address` from a cookies.txt, as a browser exports it, or a line `name=value`.

    Of a cookies.txt only cookies meant for this address and still valid are taken.

    Raises InputError for an unreadable file, one of another form, or one without a cookie for the address. What
    the file holds is never told.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"The cookie file {path} cannot be read ({reason}): export the cookies again.") from None
    lines = [line for line in lines if not line.startswith("#") or line.startswith(_HTTP_ONLY)]
    rows = [line.split("\t") for line in lines]
    if rows and all(len(row) == 7 for row in rows):
        header = "; ".join(f"{row[5]}={row[6]}" for row in rows if _is_for(row, urlsplit(address)))
        if not header:
            raise InputError(
                f"The cookie file {path} holds no valid cookie for {urlsplit(address).hostname}: log in with a browser "
                "and export its cookies again."
            )
    elif len(lines) == 1 and "=" in lines[0] and "\t" not in lines[0]:
        header = lines[0].strip().removeprefix("Cookie:").strip()
    else:
        raise InputError(f"The cookie file {path} is neither a cookies.txt nor one line name=value: export it again.")
    if not header.isascii() or not header.isprintable():
        raise InputError(f"The cookie file {path} holds a letter that no cookie may hold: export it again.")
    return header


def _is_for(row: list[str], address: SplitResult) -> bool:
    """Whether a row of a cookies.txt (domain, subdomains too, path, secure, expiry, name, value) goes to `address`."""
    domain = row[0].removeprefix(_HTTP_ONLY).removeprefix(".").lower()
    host = address.hostname or ""
    is_host = host == domain or (row[1].upper() == "TRUE" and host.endswith(f".{domain}"))
    is_path = f"{address.path}/apis/".startswith(f"{row[2].rstrip('/')}/")
    is_secret_kept = row[3].upper() != "TRUE" or address.scheme == "https" or host in ("localhost", "127.0.0.1", "::1")
    expiry: Any = row[4] if row[4].isdecimal() else 0
    return is_host and is_path and is_secret_kept and (int(expiry) == 0 or int(expiry) > time.time())
