"""How far a training is: a bar in a terminal, a line now and then in a log, and a file for who watches.

`basekamp run` sets BASEKAMP_PROGRESS to a file and reads it while the step runs in its own process.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from basekamp.training.files import replace_file

VARIABLE = "BASEKAMP_PROGRESS"
SECONDS_BETWEEN_LINES = 10.0


class Progress(Protocol):
    """Told after every epoch what is done of how much, in one short text."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """Show that `done` of `total` epochs are done."""


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Choose how to show progress: the watched file, a terminal's bar, or plain lines."""
    watched = os.environ.get(VARIABLE)
    if watched:
        yield _FileProgress(Path(watched))
    elif sys.stderr.isatty():
        with _bar() as bar:
            yield bar
    else:
        yield _LineProgress()


class _FileProgress:
    """Replaces one small JSON file, so that a reader never sees half a line. Never stops a training."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, done: int, total: int, text: str) -> None:
        with suppress(OSError):
            told = json.dumps({"done": done, "total": total, "text": text})
            replace_file(self.path, told.encode(), durable=False)


class _LineProgress:
    """Prints a line every ten seconds and at the end."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, done: int, total: int, text: str) -> None:
        if done == total or time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            print(f"{done}/{total} epochs, {text}", flush=True)


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("epochs, {task.description}"), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)
