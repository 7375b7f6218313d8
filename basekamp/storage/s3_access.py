"""How to reach an S3 service: which bucket a URL names, what the environment says, a client with limits.

What is read from the environment, nowhere else:

endpoint      BASEKAMP_S3_ENDPOINT; for minio:// then MINIO_ENDPOINT; then AWS_ENDPOINT_URL_S3,
              AWS_ENDPOINT_URL; for s3:// at last https://s3.amazonaws.com. http:// or https:// decides TLS.
credentials   AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, with AWS_SESSION_TOKEN if set; or
              MINIO_ACCESS_KEY and MINIO_SECRET_KEY, which minio:// prefers.
region        AWS_REGION, AWS_DEFAULT_REGION, else us-east-1.
certificates  AWS_CA_BUNDLE, SSL_CERT_FILE, else those of the certifi package.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import certifi
from minio import Minio
from urllib3.exceptions import (
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    SSLError,
    TimeoutError,
)

from basekamp.errors import InputError, StoreError
from basekamp.storage.pool import PATIENT, CreateOnlyPool, Patience
from basekamp.storage.protocol import is_key

AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
MINIO_KEYS = ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY")
_CREDENTIALS = {"s3": (AWS_KEYS, MINIO_KEYS), "minio": (MINIO_KEYS, AWS_KEYS)}
_AWS_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_ENDPOINTS = {
    "s3": ("BASEKAMP_S3_ENDPOINT", *_AWS_ENDPOINTS),
    "minio": ("BASEKAMP_S3_ENDPOINT", "MINIO_ENDPOINT", *_AWS_ENDPOINTS),
}
_AMAZON = "https://s3.amazonaws.com"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
_REGION = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_REASONS = (  # the first that fits: urllib3 derives one from another
    (NameResolutionError, "the host name is not known"),
    (NewConnectionError, "nothing accepts connections there"),
    (TimeoutError, "it took too long"),
    (SSLError, "TLS failed"),
    (ProtocolError, "the connection was cut"),
)


@dataclass(frozen=True)
class Access:
    """Where a service is and how to sign requests; the secrets stay out of the `repr`."""

    endpoint: str
    endpoint_variable: str
    region: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(repr=False)


def split_url(url: str) -> tuple[str, str, str]:
    """Split `s3://bucket/prefix` or `minio://bucket/prefix` into scheme, bucket and prefix ('' for none)."""
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if "x-amz-" in url.lower():  # a signed address: whoever reads it may use it
        raise InputError(
            f"store {scheme}://… with a signed query is not allowed: write {scheme}://bucket/prefix and give the "
            f"credentials in {' and '.join(AWS_KEYS)}."
        )
    shown = repr(url) if "@" not in url else f"{scheme}://… with an '@'"  # it may hold credentials
    if scheme not in _ENDPOINTS or not _BUCKET.match(bucket):
        raise InputError(
            f"store {shown} is not allowed: write {scheme}://bucket/prefix, where bucket has 3 to 63 "
            "lowercase letters, digits, '.' or '-'."
        )
    if prefix and not is_key(prefix):
        raise InputError(
            f"store {shown} is not allowed: the prefix has an empty part, '.', '..', a backslash or a "
            "control character, or begins with '.sha256' or '.tmp'; write it as folders joined by '/'."
        )
    return scheme, bucket, prefix


def read_access(scheme: str, environment: Mapping[str, str] = os.environ) -> Access:
    """Read endpoint, region and credentials for `s3` or `minio` URLs from the environment.

    Raises:
        InputError: the endpoint or region cannot be used.
        StoreError: endpoint or credentials are missing.
    """
    endpoint, variable = _endpoint(scheme, environment)
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    if not _REGION.match(region):
        raise InputError(f"AWS_REGION={region!r} is not allowed: use a name like us-east-1.")
    for keys in _CREDENTIALS[scheme]:
        access_key, secret_key = (environment.get(name, "").strip() for name in keys)
        if access_key and secret_key:
            token = environment.get("AWS_SESSION_TOKEN") if keys is AWS_KEYS else None
            return Access(endpoint, variable, region, access_key, secret_key, token or None)
    raise StoreError(
        f"no credentials for {scheme}:// were found in the environment: "
        f"set {' and '.join(AWS_KEYS)} (or {' and '.join(MINIO_KEYS)})."
    )


def _endpoint(scheme: str, environment: Mapping[str, str]) -> tuple[str, str]:
    names = _ENDPOINTS[scheme]
    name = next((each for each in names if environment.get(each)), None)
    if name is None:
        if scheme == "s3":
            return _AMAZON, names[0]
        raise StoreError(f"no endpoint for minio:// was found in the environment: set {' or '.join(names)}.")
    value = environment[name].strip().rstrip("/")
    if not _is_endpoint(value):
        secret = next((sign for sign in "@?" if sign in value), None)  # credentials or a signed query
        shown = repr(value) if secret is None else f"a value with a {secret!r}"
        raise InputError(
            f"{name} is {shown}, which is not allowed: "
            "write http://host:port or https://host:port, without user, path or query."
        )
    return value, name


def _is_endpoint(value: str) -> bool:
    try:
        url = urlsplit(value)
        _ = url.port  # raises for a port that is no number below 65,536
    except ValueError:
        return False
    plain = not (url.path or url.query or url.fragment or "@" in url.netloc)
    return url.scheme in ("http", "https") and bool(url.hostname) and plain and not re.search(r"\s", value)


def connect(access: Access, patience: Patience = PATIENT) -> Minio:
    """Make a client whose requests give up within `patience` and whose writes only ever create."""
    url = urlsplit(access.endpoint)
    pool = CreateOnlyPool(
        patience,
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where(),
    )
    try:
        return Minio(
            endpoint=url.netloc,
            access_key=access.access_key,
            secret_key=access.secret_key,
            session_token=access.session_token,
            secure=url.scheme == "https",
            region=access.region,
            http_client=pool,
        )
    except ValueError as error:
        raise InputError(
            f"{access.endpoint_variable} is {access.endpoint!r}, which is not allowed: {error}."
        ) from error


def describe(error: HTTPError) -> str:
    """Say in a few words why a connection failed, without addresses of objects or anything signed."""
    cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    return next((words for kind, words in _REASONS if isinstance(cause, kind)), type(cause).__name__)
