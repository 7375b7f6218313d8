"""A proxy before an S3 server that spoils a share of the requests, in one of six ways, as a seed says.

unavailable   the answer is 503; the server hears nothing
reset         the connection is reset, before or after the server did the work
stall         the server did the work, the answer comes too late
short         the connection ends in the middle of the answer
flip          one bit of an object's bytes is another, on the way up or down
lost          the server did the work, the answer is 500

A flip needs an object's bytes. Listings have no checksum in S3, so nobody could tell a flipped one.
"""

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

KINDS = ("unavailable", "reset", "stall", "short", "flip", "lost")
_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class FaultProxy(ThreadingHTTPServer):
    """Spoils a request with the probability `rate`; `done` counts what it did, 'none' included."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream: str, *, rate: float, seed: int, stall_seconds: float, kinds: tuple[str, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.upstream = urlsplit(upstream).netloc
        self.rate, self.stall_seconds, self.kinds = rate, stall_seconds, kinds
        self.done: Counter[str] = Counter()
        self._random, self._lock = random.Random(seed), threading.Lock()

    def draw(self, has_bytes: bool) -> tuple[str, float]:
        """The fault of the next request, and a number from 0 to 1 that says where it hits."""
        with self._lock:
            possible = [kind for kind in self.kinds if has_bytes or kind != "flip"]
            spoiled = bool(possible) and self._random.random() < self.rate
            fault = self._random.choice(possible) if spoiled else "none"
            self.done[fault] += 1
            return fault, self._random.random()

    def handle_error(self, *_: Any) -> None:
        """Clients that give up are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        is_object = url.path.strip("/").count("/") > 0
        fault, where = self.server.draw(is_object and (self.command == "GET" or bool(self.command == "PUT" and body)))
        if fault == "unavailable":
            return self._answer(503, [("Content-Type", "application/xml")], _error("SlowDown"))
        if fault == "reset" and where < 0.5:
            return self._reset()
        status, headers, content = self._ask(_flipped(body, where) if fault == "flip" and body else body)
        if fault == "reset":
            return self._reset()
        if fault == "lost":
            return self._answer(500, [("Content-Type", "application/xml")], _error("InternalError"))
        if fault == "stall":
            time.sleep(self.server.stall_seconds)
        if fault == "flip" and not body and status in (200, 206):
            content = _flipped(content, where)
        self._answer(status, headers, content, cut=where if fault == "short" else None)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            headers = [each for each in answer.getheaders() if each[0].lower() not in _HOP]
            if self.command == "HEAD":
                headers.append(("Content-Length", answer.getheader("Content-Length", "0")))
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, cut: float | None = None) -> None:
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '')}", *(f"{k}: {v}" for k, v in headers)]
        if self.command != "HEAD":
            lines.append(f"Content-Length: {len(content)}")
        raw = "\r\n".join([*lines, "", ""]).encode("latin-1") + content * (self.command != "HEAD")
        if cut is not None:
            raw, self.close_connection = raw[: int(cut * len(raw))], True
        with suppress(OSError):
            self.wfile.write(raw)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            self.connection.close()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>made by the proxy</Message></Error>'.encode()


def _flipped(content: bytes, where: float) -> bytes:
    if not content:
        return content
    bit = int(where * 8 * len(content))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@contextmanager
def fault_proxy(
    upstream: str, *, rate: float, seed: int = 0, stall_seconds: float = 1.0, kinds: tuple[str, ...] = KINDS
) -> Iterator[FaultProxy]:
    """Run a proxy before the server at `upstream`; its `endpoint` takes the place of the server's."""
    proxy = FaultProxy(upstream, rate=rate, seed=seed, stall_seconds=stall_seconds, kinds=kinds)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
