"""Run a compiled pipeline on this machine, in process: no Docker, no cluster, no server.

Every step runs in a Python process of its own and is cached by its inputs, as on a cluster. What the steps
print goes to a log file; what happens is told to an observer.
"""

import contextlib
import io
import json
import logging
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from basekamp import errors
from basekamp.records.waiting import waiting_folder
from basekamp.training.progress import VARIABLE as PROGRESS_VARIABLE
from basekamp.work import WAITING_VARIABLE, work_directory

StepState = Literal["running", "done", "reused", "failed"]
Observer = Callable[[str, StepState], None]

_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_EVENTS: tuple[tuple[re.Pattern[str], StepState], ...] = (
    (re.compile(r"Executing task '([\w-]+)'"), "running"),
    (re.compile(r"Task ([\w-]+) cache hit"), "reused"),
    (re.compile(r"Task '([\w-]+)' finished with status SUCCESS"), "done"),
    (re.compile(r"Task '([\w-]+)' finished with status FAILURE"), "failed"),
)
_ERROR = re.compile(r"^\s*(?:\w+\.)*(\w*(?:Error|Exception|Interrupt)): (.*)$")
_KINDS: dict[str, type[errors.BasekampError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type)
}


@dataclass(frozen=True)
class LocalRun:
    """Where a local run wrote its log and tells its progress."""

    log: Path
    progress: Path

    def read_progress(self) -> tuple[int, int, str] | None:
        """Epochs done, epochs in all and a text, while train-model runs."""
        try:
            told = json.loads(self.progress.read_text())
        except (OSError, ValueError):
            return None
        return told["done"], told["total"], told["text"]


def new_local_run(name: str) -> LocalRun:
    """Choose the files of a run under the work folder."""
    folder = work_directory() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return LocalRun(log=folder / f"{name}.log", progress=folder / f"{name}.progress.json")


def run_locally(package: Path, arguments: Mapping[str, object], run: LocalRun, *, observer: Observer) -> None:
    """Run the compiled pipeline to its end, telling `observer` each step's name and state.

    Raises the error of the step that failed, with its own sentence, when it is one of basekamp's; else
    BasekampError with the path of the log.
    """
    from kfp import components, local

    work = work_directory()
    stream = _WatchedLog(run.log, observer)
    told = {PROGRESS_VARIABLE: str(run.progress), WAITING_VARIABLE: str(waiting_folder())}
    with stream, _quiet_kfp(stream), _environment(told):
        local.init(
            runner=local.SubprocessRunner(use_venv=False),
            pipeline_root=str(work / "runs"),
            enable_caching=True,
            cache_root=str(work / "cache"),
        )
        pipeline = components.load_component_from_file(str(package))
        try:
            pipeline(**arguments)
        except RuntimeError as error:
            raise stream.error(error) from error
        except OSError as error:
            raise errors.BasekampError(
                f"the work folder {work} cannot be used ({error.strerror or error}): make room there and run it again, "
                "what is done is kept."
            ) from error
        finally:
            run.progress.unlink(missing_ok=True)


class _WatchedLog(io.TextIOBase):
    """Writes to the log and turns kfp's own lines into step states."""

    def __init__(self, path: Path, observer: Observer) -> None:
        self.path, self.observer = path, observer
        self.file = path.open("w", encoding="utf-8")
        self.rest, self.step = "", ""
        self.failure: tuple[str, str] | None = None
        self.lock = threading.Lock()

    def write(self, text: str) -> int:
        with self.lock:
            with contextlib.suppress(OSError):  # a full disk may end the log, and no run
                self.file.write(text)
            *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self._read(_COLORS.sub("", line))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            if not self.file.closed:
                self.file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.file.close()
        super().close()

    def error(self, cause: Exception) -> errors.BasekampError:
        """The failed step's own error, or one that points to the log."""
        kind, sentence = self.failure or ("", "")
        if kind in _KINDS:
            return _KINDS[kind](sentence)
        reason = f"{self.step} failed ({kind}: {sentence})" if kind else str(cause).rstrip(".")
        return errors.BasekampError(f"{reason}: what it printed is in {self.path}.")

    def _read(self, line: str) -> None:
        for pattern, state in _EVENTS:
            found = pattern.search(line)
            if found:
                self.step = found[1]
                self.observer(found[1], state)
        raised = _ERROR.match(line)
        if raised:
            self.failure = raised[1], raised[2]


@contextlib.contextmanager
def _quiet_kfp(stream: _WatchedLog) -> Iterator[None]:
    """Send what kfp prints, logs and warns to the stream, and put everything back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [logging.StreamHandler(stream)]
    root.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(stream), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
