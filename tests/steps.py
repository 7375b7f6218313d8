"""The pipeline's components as real processes that can be killed: a server imports them once and forks one for each."""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import basekamp.records.waiting

AT_END = -1
"""Kill once all is written, before anything is reported."""


class Steps:
    """Runs one component at a time, or `bring_up`, what `basekamp sync` does with results that wait."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self.server = server

    def run(self, component: str, folder: Path, *, kill_at: int = 0, **arguments: Any) -> int:
        """The exit status of a process that runs it, its outputs below `folder`; a signal's number below zero.

        With `kill_at` of n it is killed by SIGKILL at the n-th time that a file is about to become visible or to go.
        """
        folder.mkdir(parents=True, exist_ok=True)
        told = {"component": component, "folder": str(folder), "kill_at": kill_at, "arguments": arguments}
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(told, default=str) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


@contextmanager
def start_steps() -> Iterator[Steps]:
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=environment,
    ) as server:
        yield Steps(server)
        assert server.stdin is not None
        server.stdin.close()


def _serve() -> None:
    """Read a step, fork its process, print its exit status. The server itself never computes."""
    import jinja2  # these as well: a page and a curve take seconds to import them  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch._dynamo  # imported by every process's first optimizer, which takes a second  # noqa: F401

    import basekamp.evaluation.evaluate
    import basekamp.sweeps.trials  # noqa: F401

    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _run(json.loads(line))
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _run(told: dict[str, Any]) -> None:
    folder = Path(told["folder"])
    log = os.open(folder / f"{told['component']}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["BASEKAMP_HOME"] = str(folder / "home")
    if told["component"] == "bring_up":
        kill_at(told["kill_at"])
        basekamp.records.waiting.bring_up()
        return
    function = getattr(importlib.import_module(f"components.{told['component']}"), told["component"])
    arguments = {name: _artifact(value) for name, value in told["arguments"].items()}
    for name in function.component_spec.outputs:
        if name != "Output":
            arguments[name] = _artifact({"path": str(folder / name)})
    if told["kill_at"] > 0:
        kill_at(told["kill_at"])
    answer = function.python_func(**arguments)
    (folder / f"{told['component']}.answer").write_text(json.dumps(answer))
    if told["kill_at"] == AT_END:
        os.kill(os.getpid(), signal.SIGKILL)


def _artifact(value: Any) -> Any:
    from kfp import dsl

    if not isinstance(value, dict):
        return value
    artifact = dsl.ClassificationMetrics(uri=value["path"])
    artifact.log_metric = dsl.Metrics.log_metric.__get__(artifact)  # one kind serves all
    return artifact


def kill_at(number: int) -> None:
    """Let this process be killed at the n-th time that it makes a file visible or lets one go."""
    left = number

    def watch(event: str, _: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in ("os.rename", "os.link", "os.remove"):
            return
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


if __name__ == "__main__":
    _serve()
