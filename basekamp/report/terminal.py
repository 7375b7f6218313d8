"""What the command line shows of the steps of a run while it lasts."""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from basekamp.cluster.local import LocalRun, Observer, StepState

STEPS = ("prepare-data", "check-data", "measure-ladder", "train-model", "evaluate-model", "compare-models")
SWEEP_STEPS = (*STEPS[:3], "plan-sweep", "train-trials", "conclude-sweep", *STEPS[3:])
STATE_MARKS: dict[StepState, tuple[str, str]] = {
    "done": ("✓", "green"),
    "reused": ("↺", "cyan"),
    "failed": ("✗", "red"),
    "running": ("…", "yellow"),
}


class StepDisplay:
    """A live tree of a run's steps in a terminal; a line for each change elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def steps(self, title: str, run: LocalRun, pipeline: str) -> Iterator[Observer]:
        """Show one run; gives the observer of its steps. The rounds of a sweep are one step."""
        tree = _StepTree(title, run, SWEEP_STEPS if pipeline == "sweep" else STEPS)
        if self.console.is_terminal:
            with Live(tree, console=self.console, refresh_per_second=8):
                yield tree.observe
            return
        self.say(title)

        def tell(step: str, state: StepState) -> None:
            tree.observe(step, state)
            if state != "running":
                self.say(f"  {tree.line(_without_round(step))}")

        yield tell


class _StepTree:
    """The steps of one run and how each stands; rich draws it again several times a second."""

    def __init__(self, title: str, run: LocalRun, steps: Sequence[str]) -> None:
        self.title, self.run, self.steps = title, run, steps
        self.states: dict[str, StepState] = {}
        self.started: dict[str, float] = {}
        self.took: dict[str, float] = {}
        self.lock = threading.Lock()
        self.spinner = Spinner("dots")

    def observe(self, step: str, state: StepState) -> None:
        step = _without_round(step)
        with self.lock:
            self.states[step] = state
            if state == "running":
                self.started[step] = time.monotonic()
            elif step in self.started:
                self.took[step] = time.monotonic() - self.started[step]

    def line(self, step: str) -> str:
        state = self.states.get(step)
        if state is None:
            return f"· {step}"
        told = {"reused": "reused from an earlier run", "failed": "failed"}.get(state, "")
        took = f"{self.took[step]:.1f} s" if step in self.took else told
        return f"{STATE_MARKS[state][0]} {step:<15} {took if state != 'failed' else told}"

    def __rich__(self) -> Group:
        with self.lock:
            return Group(Text(self.title, style="bold"), *(self._drawn(step) for step in self.steps))

    def _drawn(self, step: str) -> Any:
        state = self.states.get(step)
        if state == "running":
            self.spinner.update(text=Text(f" {step:<15} {self._progress(step)}"))
            return self.spinner
        return Text(self.line(step), style=STATE_MARKS[state][1] if state else "dim")

    def _progress(self, step: str) -> str:
        seconds = f"{time.monotonic() - self.started[step]:.0f} s"
        told = self.run.read_progress() if step in ("train-model", "train-trials") else None
        return f"{told[0]}/{told[1]} epochs, {told[2]}, {seconds}" if told else seconds


def _without_round(step: str) -> str:
    """Kubeflow numbers the tasks of one component from the second on."""
    return re.sub(r"-\d+$", "", step)
