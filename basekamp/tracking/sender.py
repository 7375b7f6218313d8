"""The process that sends: the spools of one run to one tracker, `python -m basekamp.tracking.sender RUN TRACKER`.

With `--follow PID` it goes on as long as that training writes. It is a process of its own so that it can be killed at
any moment, by us too: what a tracker did not confirm is sent again, which changes nothing there.
"""

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from basekamp.tracking.spool import Event, Line, Sent, Spool, spool_folder, spools

BUSY = 3
"""Exit status where another process is at it."""

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_SENDS = 15.0
MOST_SECONDS_BETWEEN_TRIES = 30.0
LOCK_SECONDS = 10.0
LONGEST_ERROR = 300


class Tracker(Protocol):
    """One run at one tracker. Each call may raise whatever the tracker's own package raises.

    confirms: whether what `send` was given is safe when it returns; else it is when `close` does.
    """

    confirms: bool

    def open(self, begin: Event) -> None:
        """Make the run, or find it."""

    def send(self, events: list[Event]) -> None:
        """Tell events in order; those that it knows already change nothing."""

    def close(self) -> None:
        """Let go of the run."""


class Sender:
    """Sends what is new in the spools of a run."""

    def __init__(self, make: Callable[[], Tracker], name: str, run: str, folder: Path) -> None:
        self.make, self.name, self.run, self.folder = make, name, run, folder
        self.tracker: Tracker | None = None
        self.sent: dict[Path, Sent] = {}
        self.error = ""

    def spools(self) -> list[Spool]:
        """The spools that this tracker is to be told."""
        return [spool for spool in spools(self.folder, self.run) if self.name in spool.trackers]

    def try_once(self, *, closing: bool) -> bool:
        """Send what is new, and where `closing` let the tracker finish; False, and why in `error`, when it failed."""
        try:
            for spool in self.spools():
                self._send(spool)
            if closing:
                self._close()
        except Exception as error:  # of whatever kind: the packages promise nothing, and this process does nothing else
            self.error = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_ERROR]
            self._note_error()
            self.tracker, self.sent = None, {}
            return False
        self.error = ""
        return True

    def _send(self, spool: Spool) -> None:
        sent = self.sent.get(spool.path) or spool.sent(self.name)
        lines: list[Line] = list(spool.lines(sent.bytes))
        begin = spool.begin()
        if not lines or begin is None:
            return
        if self.tracker is None:
            self.tracker = self.make()
            self.tracker.open(begin)
        self.tracker.send([line.event for line in lines])
        self.sent[spool.path] = Sent(lines[-1].end, sent.lines + len(lines), of=sent.of)
        if self.tracker.confirms:
            spool.note_sent(self.name, self.sent[spool.path])

    def _close(self) -> None:
        if self.tracker is None:
            return
        tracker, self.tracker = self.tracker, None
        tracker.close()
        if not tracker.confirms:
            for path, sent in self.sent.items():
                Spool(path).note_sent(self.name, sent)

    def _note_error(self) -> None:
        for spool in self.spools():
            if spool.left(self.name):
                sent = spool.sent(self.name)
                spool.note_sent(self.name, replace(sent, error=self.error))


def send(sender: Sender) -> int:
    """Send all there is, once; gives the exit status."""
    return 0 if sender.try_once(closing=True) else 1


def follow(sender: Sender, parent: int) -> int:
    """Send what a training writes until it has ended; the last try, after that, is the last."""

    def is_through() -> bool:
        return os.getppid() != parent or all(spool.has_ended for spool in sender.spools())

    pause = SECONDS_BETWEEN_SENDS
    while True:
        is_last = is_through()
        went_well = sender.try_once(closing=is_last)
        if is_last:
            return 0 if went_well else 1
        pause = SECONDS_BETWEEN_SENDS if went_well else min(2 * pause, MOST_SECONDS_BETWEEN_TRIES)
        _sleep(pause, is_through)


def _sleep(seconds: float, is_over: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not is_over():
        time.sleep(min(SECONDS_BETWEEN_LOOKS, seconds))


@contextmanager
def _alone(folder: Path, run: str, tracker: str, *, seconds: float) -> Iterator[bool]:
    """Be the only process that sends this run to this tracker; False when another still does after that time."""
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + seconds
    with (folder / f"{run}.{tracker}.lock").open("w") as file:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield True
                return
            if time.monotonic() > until:
                yield False
                return
            time.sleep(0.1)


def _give_way() -> None:
    """Run only where a core is idle, or at the lowest priority."""
    with suppress(OSError):
        os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _maker(tracker: str) -> Callable[[], Tracker]:
    """What opens a tracker; its package is imported only then."""
    if tracker == "mlflow":
        from basekamp.tracking.to_mlflow import MlflowTracker

        return MlflowTracker
    from basekamp.tracking.to_wandb import WandbTracker

    return WandbTracker


def main(arguments: list[str]) -> int:
    """Send, or with --follow PID keep sending."""
    run, tracker, *more = arguments
    parent = int(more[1]) if more else None
    if parent is not None:
        _give_way()
    sender = Sender(_maker(tracker), tracker, run, spool_folder())
    with _alone(sender.folder, run, tracker, seconds=LOCK_SECONDS) as is_alone:
        if not is_alone:
            return BUSY
        return send(sender) if parent is None else follow(sender, parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
