"""Send what trackers do not have yet: what compare-models does at its end, and `basekamp sync` later."""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from basekamp.storage import Store
from basekamp.tracking.sender import BUSY
from basekamp.tracking.spool import Spool, spool_folder, spools
from basekamp.tracking.stored import fetch_spools

RUN_SECONDS = 600.0
"""How long one run may take, its model with it."""


@dataclass(frozen=True)
class Delivery:
    """What came of sending one run to one tracker; `left` counts lines, `error` says why there are any."""

    tracker: str
    experiment: str
    attempt: str
    run: str
    sent: int
    left: int
    error: str = ""

    def text(self) -> str:
        """One line for whoever waits."""
        told = f"{self.tracker}, {self.experiment}/{self.attempt}: {self.sent} lines sent"
        return f"{told}, {self.left} left ({self.error})" if self.left else told


def sync(store: Store | None = None, *, seconds: float = RUN_SECONDS) -> list[Delivery]:
    """Send every spool of this machine, and of the store; gives what came of each run that had something left.

    What every tracker has is removed, a spool in the store last. A tracker that takes longer than `seconds` for one run
    is not asked again.
    """
    in_store = fetch_spools(store, spool_folder()) if store else {}
    runs = list(dict.fromkeys(spool.run for spool in spools()))
    deliveries = send_runs(runs, seconds=seconds)
    for key, spool in in_store.items():
        if store and spool.is_settled:
            store.delete(key)
    remove_settled(spools())
    return deliveries


def send_runs(runs: Iterable[str], *, seconds: float, left_out: Sequence[str] = ()) -> list[Delivery]:
    """Send the spools of these runs, each to each of its trackers but those left out, by a process of its own."""
    deliveries: list[Delivery] = []
    hanging: set[str] = set()
    for run in runs:
        of_run = spools(run=run)
        for tracker in dict.fromkeys(name for spool in of_run for name in spool.trackers):
            before = _left(of_run, tracker)
            if not before or tracker in left_out:
                continue
            error = "" if tracker in hanging else _send(run, tracker, seconds=seconds)
            if error is None:
                hanging.add(tracker)
            deliveries.append(_delivery(of_run, tracker, before, error))
    return deliveries


def remove_settled(found: Sequence[Spool]) -> None:
    """Remove the spools that every tracker has, once all of their run are."""
    for run in {spool.run for spool in found}:
        of_run = [spool for spool in found if spool.run == run]
        if all(spool.is_settled for spool in of_run):
            for spool in of_run:
                spool.remove()


def _send(run: str, tracker: str, *, seconds: float) -> str | None:
    """Let a process send; gives why it could not, as far as it is not in the spool, None when it took too long."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-m", "basekamp.tracking.sender", run, tracker]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode == BUSY:
        return "another process sends it now"
    return (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else ""


def _delivery(of_run: Sequence[Spool], tracker: str, before: int, error: str | None) -> Delivery:
    left = _left(of_run, tracker)
    begin = next(begin for spool in of_run if (begin := spool.begin()))
    told = next((spool.sent(tracker).error for spool in of_run if spool.left(tracker)), "")
    why = f"{tracker} does not answer" if error is None else told or error or f"{tracker} does not answer"
    named = (begin["experiment"], begin["attempt"], begin["run"])
    return Delivery(tracker, *named, sent=before - left, left=left, error=why if left else "")


def _left(of_run: Iterable[Spool], tracker: str) -> int:
    return sum(spool.left(tracker) for spool in of_run if tracker in spool.trackers)
