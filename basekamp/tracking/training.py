"""What a training tells trackers: it appends to a spool now and then, and a process of the lowest priority sends.

The training's own process opens no connection and waits for none, but for half a per cent of its time at its end, so
that a tracker which is down, slow or hostile cannot stop it. What was not sent by then stays in the spool, and where
that is lost with the machine it is put into the store as well.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from basekamp.errors import BasekampError
from basekamp.tracking.settings import Tracking, is_wandb_offline
from basekamp.tracking.spool import TRAIN, Event, Spool, spool_of
from basekamp.tracking.stored import put_spools
from basekamp.training.files import replace_file

RUN_FILE = "tracking.json"
"""Beside a tracked model: the run that its training is at the trackers."""

SECONDS_BETWEEN_WRITES = 0.5
SECONDS_BEFORE_SENDING = 60.0
"""A training that is shorter starts no process: compare-models sends its spool."""
SHARE_OF_WAITING = 0.005
MOST_SECONDS_OF_WAITING = 5.0

Groups = Sequence[Sequence[tuple[int, Mapping[str, Sequence[float]]]]]
"""For each group of seeds that train together, in order: seed and curves."""


class TrainingTracker:
    """Told after each epoch; `None` for a spool tells nobody. Never raises for what goes wrong with telling."""

    def __init__(self, spool: Spool | None, metric: str) -> None:
        self.spool, self.metric = spool, metric
        self.start_senders: Callable[[], Iterator[str]] = lambda: iter(())
        self.followers: list[str] | None = None
        self.written_at = self.began_at = time.monotonic()
        self.epochs_done: dict[int, int] = {}
        self.index = self.in_spool = 0

    def begin(self, event: Event) -> None:
        """Say who the run is, unless an earlier process of this training did; what that wrote stays."""
        if self.spool is None:
            return
        try:
            self.spool.mend()
            kinds = [line.event["kind"] for line in self.spool.lines()]
            self.in_spool = kinds.count("points")
            if not kinds:
                self.spool.append(event)
        except OSError as error:
            self._give_up(error)

    def note(self, groups: Callable[[], Groups]) -> None:
        """Write the epochs that are new, at most every half second; send them once the training is a long one."""
        if time.monotonic() - self.began_at >= SECONDS_BEFORE_SENDING:
            self.follow()
        if self.spool is not None and time.monotonic() - self.written_at >= SECONDS_BETWEEN_WRITES:
            self.write(groups())

    def follow(self) -> None:
        """Start what sends, once."""
        if self.spool is not None and self.followers is None:
            self.followers = list(self.start_senders())

    def write(self, groups: Groups) -> None:
        """Write the epochs that are new, each of a group as one line, in an order that no kill changes."""
        if self.spool is None:
            return
        try:
            events = [event for place, group in enumerate(groups) for event in self._new(place, group)]
            if events:
                self.spool.append(*events)
        except OSError as error:
            self._give_up(error)
        self.written_at = time.monotonic()

    def end(self, status: str) -> None:
        """Say how it ended."""
        if self.spool is None:
            return
        try:
            self.spool.append({"kind": "end", "status": status, "time": milliseconds()})
        except OSError as error:
            self._give_up(error)

    def wait(self) -> None:
        """Give the senders the moment that the training can spare."""
        spare = min(MOST_SECONDS_OF_WAITING, SHARE_OF_WAITING * (time.monotonic() - self.began_at))
        until = time.monotonic() + spare
        while self.spool is not None and any(map(self.spool.left, self.followers or ())) and time.monotonic() < until:
            time.sleep(0.02)

    def _new(self, place: int, group: Sequence[tuple[int, Mapping[str, Sequence[float]]]]) -> Iterator[Event]:
        """The epochs of a group that are in no line yet."""
        total = max((len(curves["validation_metric"]) for _, curves in group), default=0)
        for epoch in range(self.epochs_done.get(place, 0), total):
            self.index += 1
            if self.index > self.in_spool:
                values = {key: value for seed, curves in group for key, value in self._values(seed, curves, epoch)}
                yield {"kind": "points", "index": self.index, "epoch": epoch, "values": values, "time": milliseconds()}
        self.epochs_done[place] = max(total, self.epochs_done.get(place, 0))

    def _values(self, seed: int, curves: Mapping[str, Sequence[float]], epoch: int) -> Iterator[tuple[str, float]]:
        """One seed's values of an epoch; the validation curves have one of epoch 0, the others begin with 1."""
        names = {"validation_metric": f"validation_{self.metric}"}
        for name, values in curves.items():
            place = epoch if name.startswith("validation") else epoch - 1
            if 0 <= place < len(values):
                yield f"{names.get(name, name)}/seed-{seed}", values[place]

    def _give_up(self, error: OSError) -> None:
        assert self.spool is not None, "without a spool nothing is written"
        reason = error.strerror or error
        print(f"Trackers are told no more ({self.spool.path}: {reason}): the training goes on.", flush=True)
        self.spool = None


@contextmanager
def tracked_training(
    tracking: Tracking,
    directory: Path,
    key: str,
    *,
    metric: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    store: str = "",
) -> Iterator[TrainingTracker]:
    """Tell the trackers of one training, whose `key` stays the same when it is killed and goes on.

    Its run's name is left beside the model. A training that fails is told as failed, one that is stopped not at all,
    for it goes on.
    """
    if not tracking.trackers:
        yield TrainingTracker(None, metric)
        return
    run = run_of(tracking, key)
    tracker = TrainingTracker(spool_of(run, TRAIN), metric)
    tracker.begin(begin_event(tracking, run, params, tags))
    tracker.start_senders = partial(_start_senders, tracking, run)
    try:
        yield tracker
    except Exception:
        tracker.end("FAILED")
        tracker.follow()  # no later step will send it
        raise
    tracker.end("FINISHED")
    try:
        replace_file(directory / RUN_FILE, json.dumps({"run": run}).encode(), durable=False)
        tracker.wait()
        if tracker.spool is not None:
            put_spools([tracker.spool], store)
    except (OSError, BasekampError) as error:
        print(f"Trackers may miss a part of this training ({error}): it went on without.", flush=True)


def run_of(tracking: Tracking, key: str) -> str:
    """The id of a run at every tracker: the same training under the same name is the same run."""
    return hashlib.sha256(f"{tracking.experiment}/{tracking.attempt}/{key}".encode()).hexdigest()[:24]


def begin_event(tracking: Tracking, run: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Event:
    """The first line of a spool: enough to make the run at a tracker, or to find it."""
    return {
        "kind": "begin",
        "run": run,
        "experiment": tracking.experiment,
        "attempt": tracking.attempt,
        "trackers": list(tracking.trackers),
        "params": dict(params),
        "tags": dict(tags),
        "time": milliseconds(),
    }


def milliseconds() -> int:
    """Now, as trackers count."""
    return int(time.time() * 1000)


def _start_senders(tracking: Tracking, run: str) -> Iterator[str]:
    """Start a process for each tracker, which no signal to this one reaches; gives those that it was started for.

    What W&B is to write to this disk alone is written when the run has been judged.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    for tracker in tracking.trackers:
        if tracker == "wandb" and is_wandb_offline():
            continue
        command = [sys.executable, "-m", "basekamp.tracking.sender", run, tracker, "--follow", str(os.getpid())]
        with suppress(OSError):
            _spawn(command, environment)
            yield tracker


def _spawn(command: list[str], environment: Mapping[str, str]) -> None:
    """Start a process in a group of its own, in a millisecond.

    It lowers its own priority: this process waits until it runs, which with the lowest from the start could take long.
    It stays in this session: Linux shares the processor between sessions first, and only within one by priority.
    """
    nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    os.posix_spawn(command[0], command, environment, file_actions=nowhere, setpgroup=0)
