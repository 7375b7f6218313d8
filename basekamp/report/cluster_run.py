"""What the command line shows of a run on a cluster: its tasks and how each stands."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from basekamp.cluster.follow import OnChange
from basekamp.report.terminal import STEPS

STATE_MARKS = {
    "SUCCEEDED": ("✓", "green"),
    "SKIPPED": ("↺", "cyan"),
    "FAILED": ("✗", "red"),
    "CANCELED": ("✗", "red"),
    "CANCELING": ("…", "yellow"),
    "RUNNING": ("…", "yellow"),
    "PAUSED": ("·", "dim"),
    "PENDING": ("·", "dim"),
}
_ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")


class RunDisplay:
    """A live tree of a run's tasks in a terminal; a line for each change elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def follow(self, title: str) -> Iterator[OnChange]:
        """Show one run; gives the observer of its state and its tasks'."""
        tree = _TaskTree(title)
        if self.console.is_terminal:
            with Live(tree, console=self.console, refresh_per_second=8):
                yield tree.observe
            return
        self.say(title)

        def tell(state: str, tasks: dict[str, str]) -> None:
            for task in tree.observe(state, tasks):
                self.say(f"  {tree.line(task)}")

        yield tell


class _TaskTree:
    """The tasks of one run; rich draws it again several times a second."""

    def __init__(self, title: str) -> None:
        self.title, self.state = title, "PENDING"
        self.tasks: dict[str, str] = {}
        self.began: dict[str, float] = {}
        self.took: dict[str, float] = {}
        self.spinner = Spinner("dots")

    def observe(self, state: str, tasks: dict[str, str]) -> list[str]:
        """Take in what the endpoint said; gives the tasks whose state is new, in the pipeline's order."""
        changed = [task for task in sorted(tasks, key=_position) if tasks[task] != self.tasks.get(task)]
        for task in changed:
            if tasks[task] == "RUNNING":
                self.began.setdefault(task, time.monotonic())
            elif tasks[task] in _ENDED and task in self.began:
                self.took[task] = time.monotonic() - self.began[task]
        self.state, self.tasks = state, dict(tasks)
        return changed

    def line(self, task: str) -> str:
        """One task as text; the seconds are those between the polls that saw it begin and end."""
        state = self.tasks[task]
        took = f" {self.took[task]:.0f} s" if task in self.took else ""
        return f"{STATE_MARKS[state][0]} {task:<15} {state.lower()}{took}"

    def __rich__(self) -> Group:
        lines = [self._drawn(task) for task in sorted(self.tasks, key=_position)]
        return Group(Text(f"{self.title}: {self.state.lower()}", style="bold"), *lines)

    def _drawn(self, task: str) -> Text:
        state = self.tasks[task]
        if state == "RUNNING":
            now = time.monotonic()
            return Text(f"{self.spinner.render(now)} {task:<15} running {now - self.began[task]:.0f} s")
        return Text(self.line(task), style=STATE_MARKS[state][1])


def _position(task: str) -> tuple[int, str]:
    """The steps of basekamp's pipelines in their order, then any other task by name."""
    return (STEPS.index(task) if task in STEPS else len(STEPS), task)
