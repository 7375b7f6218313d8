"""Real training processes that can be killed: a small server imports torch once and forks one for each job."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 120


@dataclass
class Job:
    """One training: its data set, its own folder, and the arguments of `train_model`."""

    dataset: Path
    folder: Path
    settings: dict[str, Any]
    metric: str = "accuracy"
    seeds: int = 2
    checkpoint_seconds: float = 0.0
    store: str = ""
    pauses_in: str = ""
    """A phase in which the process once leaves a file `paused` and waits half a second; see `_pause_in`."""

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def checkpoints(self) -> list[Path]:
        """Oldest first; none where the folder goes, at the training's end, while it is listed."""
        try:
            return sorted((self.folder / "home" / "checkpoints").glob("*/*.pt"), key=lambda path: path.name)
        except FileNotFoundError:
            return []

    @property
    def log(self) -> str:
        """What the latest process of this job printed."""
        return (self.folder / "log").read_text()


class Trainer:
    """Starts one training at a time."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self.server, self.pid = server, 0

    def start(self, job: Job) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        of_store = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "BASEKAMP_S3"))}
        told = {**vars(job), "dataset": str(job.dataset), "folder": str(job.folder), "environment": of_store}
        self.server.stdin.write(json.dumps(told) + "\n")
        self.server.stdin.flush()
        self.pid = int(self.server.stdout.readline())

    def wait(self) -> int:
        """The exit status; a signal's number below zero."""
        return int(self.server.stdout.readline())

    def has_ended(self) -> bool:
        """Whether the exit status is there to be read."""
        return bool(select.select([self.server.stdout], [], [], 0)[0])

    def run(self, job: Job) -> int:
        self.start(job)
        return self.wait()

    def signal_after(self, number: signal.Signals, job: Job, *, checkpoints: int, then_seconds: float = 0.0) -> int:
        """Send a signal once that many new checkpoints, or the end, were seen; gives the exit status."""
        before, seen, give_up = _version(job), 0, time.monotonic() + PATIENCE_SECONDS
        self.start(job)
        while seen < checkpoints and not self.has_ended():
            assert time.monotonic() < give_up, job.log
            now = _version(job)
            seen, before = seen + (now > before), now  # at the end they are removed, which is no new one
        time.sleep(then_seconds)
        if not self.has_ended():
            os.kill(self.pid, number)
        return self.wait()


@contextmanager
def start_trainer() -> Iterator[Trainer]:
    root = Path(__file__).parent.parent
    command = [sys.executable, str(Path(__file__).resolve())]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=environment
    ) as server:
        yield Trainer(server)
        server.stdin.close()


def _version(job: Job) -> str:
    """What differs from one checkpoint to the next."""
    return max((path.name for path in job.checkpoints), default="")


def _serve() -> None:
    """Read a job, fork its process, print its pid and then its exit status. The server itself never computes."""
    import torch._dynamo  # imported by every process's first optimizer, which takes a second  # noqa: F401

    import basekamp.training.train  # noqa: F401

    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _train(json.loads(line))
            sys.exit()
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _train(job: dict[str, Any]) -> None:
    from basekamp.hyperparameters import Hyperparameters
    from basekamp.training.train import train_model

    folder = Path(job["folder"])
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"BASEKAMP_HOME": str(folder / "home"), **job["environment"]}
    if job["pauses_in"]:
        _pause_in(job["pauses_in"], folder / "paused")
    settings = Hyperparameters.from_mapping(job["settings"])
    wanted = {key: job[key] for key in ("metric", "seeds", "checkpoint_seconds", "store")}
    train_model(Path(job["dataset"]), folder / "model", settings, **wanted)


def _pause_in(phase: str, told: Path) -> None:
    """Let one call of the function that a phase consists of, chosen at random, take half a second longer."""
    import random

    from basekamp.training import checkpoint, cohort, loop, train

    place, name, most = {
        "preparation": (cohort, "load_training_data", 1),
        "step": (loop.StackLoop, "_backward", 40),
        "evaluation": (loop, "predict", 5),
        "upload": (checkpoint.Checkpoints, "upload", 2),
        "writing": (train, "_write", 1),
    }[phase]
    act, calls = getattr(place, name), random.Random().randint(1, most)

    def paused(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls -= 1
        if calls == 0:
            told.touch()
            time.sleep(0.5)
        return act(*arguments, **named)

    setattr(place, name, paused)


if __name__ == "__main__":
    _serve()
