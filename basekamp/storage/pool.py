"""HTTP connections to an S3 service that hold out: a request is repeated until it is answered or its time is up.

Repeated are answers that say so (429, 5xx), connections that were cut, reset or silent, short bodies, and writes
whose bytes did not arrive as they were sent. Pauses grow and are random, so that many writers do not return at once.
"""

import base64
import hashlib
import http.client
import random
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError

THREADS = 4
CRC32 = "x-amz-checksum-crc32"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_SPOILED = tuple(
    b"<Code>%b<" % code
    for code in (
        b"BadDigest",
        b"IncompleteBody",
        b"RequestTimeout",
        b"XAmzContentChecksumMismatch",  # these two of MinIO
        b"XAmzContentSHA256Mismatch",
    )
)
_random = random.Random()  # pauses must not move the generator that a training may have seeded


class Patience(NamedTuple):
    """How long to wait for a connection, for the next bytes, and in all for a request with its repetitions."""

    connect_seconds: float
    read_seconds: float
    deadline_seconds: float


PATIENT = Patience(connect_seconds=2, read_seconds=30, deadline_seconds=60)
QUICK = Patience(connect_seconds=2, read_seconds=3, deadline_seconds=0)


class Backoff:
    """Growing random pauses between tries until `seconds` have passed."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._longest = _FIRST_PAUSE

    def wait(self) -> bool:
        """Sleep before another try; False, at once, when no time is left for one."""
        pause = _random.uniform(0, self._longest)
        self._longest = min(2 * self._longest, _LONGEST_PAUSE)
        if time.monotonic() + pause >= self._end:
            return False
        time.sleep(pause)
        return True


class CreateOnlyPool(urllib3.PoolManager):
    """Repeats requests within `patience`; adds `If-None-Match: *` to those that make an object visible.

    `Minio.put_object` would send the header as user metadata. Here it is set after signing, which is allowed: a
    signature must cover only the host and the x-amz headers. So is the MD5 of what is sent without a CRC-32: minio
    adds it over TLS only, and not every service compares the body with the SHA-256 that is signed.
    """

    def __init__(self, patience: Patience, **options: Any) -> None:
        timeout = urllib3.Timeout(connect=patience.connect_seconds, read=patience.read_seconds)
        super().__init__(timeout=timeout, retries=False, maxsize=2 * THREADS, **options)
        self.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        self._patience = patience

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> Any:  # type: ignore[override]
        """Send a request until it is answered for good or the deadline has passed."""
        options["headers"] = options["headers"] | _conditions(method, url, options)
        backoff, refusals = Backoff(self._patience.deadline_seconds), 0
        while True:
            try:
                answer = super().urlopen(method, url, redirect, **options)
            except HTTPError as error:
                refusals += isinstance(error, (NewConnectionError, ConnectTimeoutError, SSLError))
                if refusals > 1 or not backoff.wait():  # nobody listens there: a wrong address, most often
                    raise
            else:
                if not _is_transient(method, answer) or not backoff.wait():
                    return answer
                answer.close()


def _conditions(method: str, url: str, options: Mapping[str, Any]) -> dict[str, str]:
    has_upload = "uploadId=" in urlsplit(url).query
    added = {}
    if (method == "PUT" and not has_upload) or (method == "POST" and has_upload):
        added["If-None-Match"] = "*"
    if method == "PUT" and not any(each in options["headers"] for each in (CRC32, "Content-MD5")):
        digest = hashlib.md5(options.get("body") or b"", usedforsecurity=False).digest()
        added["Content-MD5"] = base64.b64encode(digest).decode()
    return added


def _is_transient(method: str, answer: urllib3.BaseHTTPResponse) -> bool:
    if answer.status in _TRANSIENT:
        return True
    return method in ("PUT", "POST") and answer.status == 400 and any(code in answer.data for code in _SPOILED)


class _Lines:
    """The lines of an answer's head, each with its end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._stream.readline(limit)
        if not line.endswith(b"\n") and len(line) != limit:
            raise http.client.RemoteDisconnected("the connection ended in the middle of the answer's head")
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Answer(http.client.HTTPResponse):
    """An answer with a whole head: http.client takes one that was cut, without the checksum, for whole."""

    def begin(self) -> None:
        stream: Any = self.fp
        self.fp = _Lines(stream)  # type: ignore[assignment]
        super().begin()
        self.fp = stream


class _Connection(HTTPConnection):
    response_class = _Answer


class _TlsConnection(HTTPSConnection):
    response_class = _Answer


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection
