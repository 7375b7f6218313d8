"""A trace of a few steps, kernel by kernel, for whoever asks where their time goes: `basekamp run FILE --profile`."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from basekamp.training.files import replace_file
from basekamp.training.loop import StackLoop
from basekamp.training.meter import Meter
from basekamp.training.results import TRACE_FILE
from basekamp.training.session import Session

STEPS = 5
"""Steps in the trace; one more before them lets the profiler warm up."""


@contextmanager
def tracing(session: Session, folder: Path | None) -> Iterator[Callable[[StackLoop], None]]:
    """Write `trace.json.gz` into the folder: the first steps of the second epoch, or of the only one.

    Gives what is to be called after each epoch. A training that goes on traces the next epoch that begins. It changes
    no result, and what cannot be written does not stop the training. Without a folder nothing is done.
    """
    if folder is None:
        yield lambda _: None
        return
    tracer, after_step = _Tracer(folder / TRACE_FILE, session.meter), session.after_step

    def after_step_traced() -> None:
        tracer.after_step()
        after_step()

    session.after_step = after_step_traced
    try:
        yield tracer.after_epoch
    finally:
        tracer.stop()
    if not tracer.has_begun:
        print("No trace was written: the training had no second epoch whose steps it could show.", flush=True)


class _Tracer:
    """Begins and ends a trace as it is told of epochs and steps."""

    def __init__(self, path: Path, meter: Meter) -> None:
        self.path, self.meter = path, meter
        self.profile: torch.profiler.profile | None = None
        self.has_begun = self.has_ended = False

    def after_epoch(self, loop: StackLoop) -> None:
        """Begin where the next epoch is the one to trace."""
        if self.has_begun or not loop.alive or not (loop.epoch or loop.hyperparameters.n_epochs == 1):
            return
        self.has_begun = True
        self.profile = torch.profiler.profile(
            schedule=torch.profiler.schedule(wait=0, warmup=1, active=STEPS, repeat=1),
            on_trace_ready=self._write,
            record_shapes=True,
        )
        self._try(self.profile.start)

    def after_step(self) -> None:
        """Count a step, and end after the last one to trace."""
        if self.profile is not None:
            self._try(self.profile.step)
            if self.has_ended:
                self.stop()

    def stop(self) -> None:
        """End a trace that goes on."""
        profile, self.profile = self.profile, None
        if profile is not None:
            self._try(profile.stop)

    def _try(self, act: Callable[[], None]) -> None:
        try:
            with self.meter.spending("other"):
                act()
        except (OSError, RuntimeError) as error:
            self.profile = None
            print(f"The trace {self.path} cannot be written ({error}): the training goes on without.", flush=True)

    def _write(self, profile: torch.profiler.profile) -> None:
        self.has_ended = True
        with tempfile.TemporaryDirectory(prefix="basekamp-") as name:
            written = Path(name) / TRACE_FILE
            profile.export_chrome_trace(str(written))
            replace_file(self.path, written.read_bytes())
        print(f"The trace of a few steps is {self.path}: https://ui.perfetto.dev shows it.", flush=True)
