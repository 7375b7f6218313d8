"""When a training is saved: every few seconds beside the computation, and at once when SIGTERM comes."""

import math
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from basekamp.errors import BasekampError
from basekamp.training.checkpoint import Checkpoints
from basekamp.training.termination import EXIT_STATUS, on_sigterm

SEND_SECONDS = 15.0
"""How long the end after a SIGTERM waits for the store: Kubernetes kills a pod 30 s after it."""

State = dict[str, Any]


class Saver:
    """Saves what `snapshot` copies. What cannot be saved is told once and does not stop the training.

    The computation stands still only for the copy; writing and sending are done by threads of their own.
    """

    def __init__(self, checkpoints: Checkpoints, *, every_seconds: float) -> None:
        self.checkpoints, self.every_seconds = checkpoints, every_seconds
        self.snapshot: Callable[[], State] | None = None
        self.saved_at = time.monotonic()
        self.writing, self.sending = _Thread(), _Thread()
        self.unsent: Path | None = None
        self.stop = False
        self.told: set[str] = set()

    def restore(self, device: torch.device) -> State | None:
        """What was saved last, None for nothing."""
        try:
            return self.checkpoints.read(device)
        except BasekampError as error:
            print(f"Checkpoints in the store cannot be read ({error}): the training goes on without.", flush=True)
            return None

    def after_step(self) -> None:
        """Save when it is time; on SIGTERM save and exit with 143."""
        if self.stop:
            self.save_and_exit()
        if time.monotonic() - self.saved_at >= self.every_seconds and not self.writing.is_busy:
            self._save()

    def save(self) -> None:
        """Save at the next occasion: now, or where the last one is still being written after one of the next steps."""
        self.saved_at = -math.inf
        if not self.writing.is_busy:
            self._save()

    def save_and_exit(self) -> None:
        """Save at once and leave, by SystemExit."""
        self.save_and_wait(SEND_SECONDS)
        sys.exit(EXIT_STATUS)

    def save_and_wait(self, send_seconds: float | None = None) -> None:
        """Save, wait until that is written, and for so long at most until it is sent."""
        each = None if send_seconds is None else send_seconds / 2
        self.writing.wait()
        self._save()
        self.writing.wait()
        self.sending.wait(each)  # for the one before, which is on its way
        self._send()
        self.sending.wait(each)

    def remove(self) -> None:
        """Remove the checkpoints, once the results are written."""
        self.snapshot = None
        self.writing.wait()
        self.sending.wait()
        self._try(self.checkpoints.remove, "removed")

    def stopping_on_sigterm(self) -> AbstractContextManager[None]:
        """Let SIGTERM end the training: after the step that runs, or at once where there is nothing to save."""

        def ask_to_stop() -> None:
            self.stop = True
            if self.snapshot is None:
                sys.exit(EXIT_STATUS)

        return on_sigterm(ask_to_stop)

    def _save(self) -> None:
        """Copy the state, and let threads write and send it."""
        if self.snapshot is None:
            return
        state = self.snapshot()
        self.saved_at = time.monotonic()
        self.writing.start(lambda: self._write(state))

    def _write(self, state: State) -> None:
        self.unsent = self._try(lambda: self.checkpoints.write(state), "written")
        self._send()

    def _send(self) -> None:
        """Send the newest that was not sent, unless one is on its way."""
        path = self.unsent
        if path is not None and not self.sending.is_busy:
            self.unsent = None
            self.sending.start(lambda: self._try(lambda: self.checkpoints.upload(path), "sent"))

    def _try(self, act: Callable[[], Path | None], what: str) -> Path | None:
        try:
            return act()
        except (OSError, BasekampError) as error:
            if what not in self.told:
                reason = error.strerror if isinstance(error, OSError) else error
                lost = f"The checkpoint {self.checkpoints.folder} cannot be {what} ({reason})"
                print(f"{lost}: the training goes on, and a kill could lose it.", flush=True)
            self.told.add(what)
            return None


class _Thread:
    """Does one thing at a time beside the main thread, and does not keep the process from ending."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def start(self, act: Callable[[], object]) -> None:
        self.thread = threading.Thread(target=act, daemon=True)
        self.thread.start()

    def wait(self, seconds: float | None = None) -> None:
        if self.thread is not None:
            self.thread.join(seconds)
