"""Checkpoints that a kill cannot break: written whole or not at all, and checked when read."""

import hashlib
import io
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from basekamp.errors import InputError
from basekamp.training.files import remove_leftovers, replace_file
from basekamp.training.loop import ReplicateLoop, State
from basekamp.training.results import Replicate
from basekamp.training.termination import EXIT_STATUS, on_sigterm

DIGEST_BYTES = 32


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace `path` by tensors and plain values; their SHA-256 comes first."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    replace_file(path, hashlib.sha256(buffer.getbuffer()).digest(), buffer.getbuffer())


def read_checkpoint(path: Path, *, device: torch.device) -> dict[str, Any] | None:
    """Read a checkpoint, or None when there is none or it is unusable (then the training starts afresh).

    A damaged one is kept beside its place under the extension `.damaged`.
    """
    try:
        data = memoryview(path.read_bytes())
        if hashlib.sha256(data[DIGEST_BYTES:]).digest() != data[:DIGEST_BYTES]:
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            print(f"The checkpoint is damaged and set aside as {aside}: the training starts afresh.", flush=True)
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        print(f"The checkpoint {path} cannot be read ({error.strerror}): the training starts afresh.", flush=True)
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data[DIGEST_BYTES:]), map_location=device, weights_only=True)
    return state


class Saver:
    """Keeps finished replicates and the running one in one checkpoint file, written every few seconds at most.

    A checkpoint that cannot be written is told once and does not stop the training.
    """

    def __init__(self, path: Path, device: torch.device, *, seeds: int, every_seconds: float) -> None:
        self.path, self.every_seconds, self.saved_at = path, every_seconds, time.monotonic()
        self.finished: list[tuple[State, Replicate]] = []
        self.running: State | None = None
        self.loop: ReplicateLoop | None = None
        self.stop = self.told = False
        state = self._read(device)
        if state is not None:
            self.finished = [(weights, Replicate.model_validate(told)) for weights, told in state["finished"]]
            self.running = state["running"]
            print(f"Resuming from a checkpoint: {self._told_state(seeds)}.", flush=True)

    def attach(self, loop: ReplicateLoop) -> None:
        """Watch over this loop from now on, and bring it to where the checkpoint was taken."""
        self.loop = loop
        if self.running is None:
            return
        try:
            loop.load_state(self.running)
        except (KeyError, RuntimeError, ValueError) as error:
            raise InputError(
                f"the checkpoint {self.path} does not fit the model any more: remove it and train again."
            ) from error
        self.running = None

    def after_step(self) -> None:
        """Save when it is time; on SIGTERM save and exit with 143."""
        if self.stop:
            self.save()
            sys.exit(EXIT_STATUS)
        if time.monotonic() - self.saved_at >= self.every_seconds:
            self.save()

    def finish(self, weights: State, replicate: Replicate) -> None:
        """Keep what the loop came to."""
        if replicate.ended == "diverged":
            lost = f"Seed {replicate.seed} diverged in epoch {replicate.n_epochs}"
            print(f"{lost}: the weights of epoch {replicate.best_epoch} are kept.", flush=True)
        self.finished.append((weights, replicate))
        self.loop = None
        self.save()

    def save(self) -> None:
        """Write the checkpoint."""
        finished = [(weights, replicate.model_dump()) for weights, replicate in self.finished]
        running = self.loop.state() if self.loop else None
        try:
            write_checkpoint(self.path, {"finished": finished, "running": running})
        except OSError as error:
            if not self.told:
                lost = f"The checkpoint {self.path} cannot be written ({error.strerror})"
                print(f"{lost}: the training goes on, and a kill would lose it.", flush=True)
            self.told = True
        self.saved_at = time.monotonic()

    def remove(self) -> None:
        """Remove the checkpoint, once the results are written."""
        if not self.told:
            self.path.unlink(missing_ok=True)
            remove_leftovers(self.path)

    def stopping_on_sigterm(self) -> AbstractContextManager[None]:
        """Let SIGTERM end the training after the step that runs; only the main thread can."""

        def ask_to_stop() -> None:
            self.stop = True

        return on_sigterm(ask_to_stop)

    def _read(self, device: torch.device) -> State | None:
        return read_checkpoint(self.path, device=device)

    def _told_state(self, seeds: int) -> str:
        done = len(self.finished)
        text = f"{done} of {seeds} seeds are trained"
        if self.running is None:
            return text
        position = self.running["position"]
        return f"{text}, seed {done} goes on after {position['epoch']} epochs and {position['step']} steps"
