"""A web server that answers every request alike, for what a client makes of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Body = Callable[[BaseHTTPRequestHandler], bytes]


@contextmanager
def http_server(status: int, body: bytes | Body, *, kind: str = "") -> Iterator[tuple[str, list[str]]]:
    """Its address, and the list of the methods that it was asked with; `kind` is what it says of the body."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            asked.append(self.command)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told = body if isinstance(body, bytes) else body(self)
            self.send_response(status)
            if kind:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
