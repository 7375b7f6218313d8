"""A real MLflow server on loopback, with its database in a folder; it can be killed and started again.

It runs in the interpreter that $MLFLOW_PYTHON names, else in this one, where the client and a few small packages do
for it what the whole of MLflow, 500 MB, does elsewhere.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

START_SECONDS = 120


def python() -> str:
    return os.environ.get("MLFLOW_PYTHON") or sys.executable


def can_serve() -> bool:
    """Whether the interpreter has what the server needs; the client alone has not."""
    needed = "import mlflow, aiohttp, alembic, flask, flask_cors, pandas, sqlalchemy, uvicorn"
    return subprocess.run([python(), "-c", needed], capture_output=True).returncode == 0


class MlflowServer:
    """One server; `url` stays the same when it is started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "MlflowServer":
        command = [python(), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        kept["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=kept, start_new_session=True
            )
        self._wait()
        return self

    def kill(self) -> None:
        """End it and its workers at once."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _wait(self) -> None:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return
            except OSError:
                assert self.process is not None and self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.1)
