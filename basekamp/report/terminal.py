"""What the command line shows: the leaderboard, one record, and the steps of a run while it lasts."""

import csv
import io
import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from basekamp.cluster.local import LocalRun, Observer, StepState
from basekamp.evaluation.goals import METRICS
from basekamp.records.record import Record
from basekamp.records.shelf import Row
from basekamp.report.performance import performance_rows

STEPS = ("prepare-data", "measure-ladder", "train-model", "evaluate-model", "compare-models")
SWEEP_STEPS = (*STEPS[:2], "plan-sweep", "train-trials", "conclude-sweep", *STEPS[2:])
VERDICT_STYLES = {"supported": "green", "refuted": "red", "inconclusive": "yellow"}
STATE_MARKS: dict[StepState, tuple[str, str]] = {
    "done": ("✓", "green"),
    "reused": ("↺", "cyan"),
    "failed": ("✗", "red"),
    "running": ("…", "yellow"),
}


def changing_params(rows: Sequence[Row]) -> list[str]:
    """The hyperparameters that are not alike in all rows, as far as the names tell: the only ones worth a column."""
    keys = list(dict.fromkeys(key for row in rows for key in row.params))
    telling = {key: [row for row in rows if key in row.params or not row.cut] for key in keys}
    return [key for key in keys if len({repr(row.params.get(key)) for row in telling[key]}) > 1]


def leaderboard(rows: Sequence[Row], *, width: int) -> Group:
    """One line a record, in the order given: what differs, the metric, the difference and the verdict.

    Every differing hyperparameter has a column of its own where `width` characters allow, else they follow below.
    """
    params = changing_params(rows)
    wide = _table(rows, params)
    if not params or Console(width=10_000).measure(wide).maximum <= width:
        return Group(wide)
    settings = Table(box=None, header_style="bold", pad_edge=False)
    settings.add_column("attempt", no_wrap=True)
    settings.add_column("what differs", overflow="fold")
    for row in rows:
        told = " ".join(f"{key}={_cell(row, key)}" for key in params if key in row.params)
        settings.add_row(_attempt(row), told)
    return Group(_table(rows, []), Text(), settings)


def _table(rows: Sequence[Row], params: list[str]) -> Table:
    several = len({row.experiment for row in rows}) > 1
    lineages = len({row.lineage for row in rows}) > 1
    metrics = list(dict.fromkeys(row.metric for row in rows))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in (["experiment"] if several else []) + (["lineage"] if lineages else []) + ["attempt", *params]:
        table.add_column(heading, no_wrap=True)
    for heading in (metrics[0] if len(metrics) == 1 else "metric", "± seeds", "n", "difference", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        first = ([row.experiment] if several else []) + ([str(row.lineage)] if lineages else [])
        cells = (_cell(row, key) for key in params)
        table.add_row(*first, _attempt(row), *cells, *_results(row, named=len(metrics) > 1))
    return table


def record_table(record: Record) -> Table:
    """Everything worth reading of one record, as two columns."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in _told(record).items():
        table.add_row(key, escape(str(value)))
    return table


def rows_as_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV, one column per hyperparameter and metric of any of them."""
    params = list(dict.fromkeys(key for row in rows for key in row.params))
    metrics = list(dict.fromkeys(key for row in rows for key in row.metrics))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    results = ["n", "spread", "difference", "low", "high", "verdict", "champion", "key", "lineage"]
    writer.writerow(["name", "experiment", "role", "attempt", *params, *metrics, *results])
    for row in rows:
        low, high = row.interval or ("", "")
        numbers = [
            row.n,
            "" if math.isnan(row.spread) else row.spread,
            "" if row.difference is None else row.difference,
            low,
            high,
        ]
        writer.writerow(
            [row.name, row.experiment, row.role, row.attempt]
            + [row.params.get(key, "") for key in params]
            + [row.metrics.get(key, "") for key in metrics]
            + [*numbers, row.verdict or "", row.champion, row.key, row.lineage]
        )
    return out.getvalue()


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


def _attempt(row: Row) -> Text:
    name = Text(row.attempt, style="bold" if row.role == "baseline" else "")
    return name.append(" ★", style="yellow") if row.champion else name


def _results(row: Row, *, named: bool) -> list[Text]:
    verdict = Text(row.verdict or row.role, style=VERDICT_STYLES.get(row.verdict or "", "dim"))
    value = f"{row.metric} {row.value:.4f}" if named else f"{row.value:.4f}"
    spread = "–" if math.isnan(row.spread) else f"{row.spread:.4f}"
    measured = [Text(value), Text(spread), Text(str(row.n))]
    if row.difference is None or row.interval is None:
        return [*measured, Text("–"), Text("–"), verdict]
    gain = row.difference if METRICS.get(row.metric, "maximize") == "maximize" else -row.difference
    color = "green" if gain > 0 else "red" if gain < 0 else ""
    arrow = "▲" if row.difference > 0 else "▼" if row.difference < 0 else " "
    low, high = row.interval
    return [*measured, Text(f"{arrow} {row.difference:+.4f}", style=color), Text(f"{low:+.4f} … {high:+.4f}"), verdict]


def _cell(row: Row, key: str) -> str:
    """A hyperparameter's value; – where the model has none, … where the name was cut and only the JSON tells."""
    if key not in row.params:
        return "…" if row.cut else "–"
    value = row.params[key]
    return escape(f"{value:g}" if isinstance(value, float) else str(value))


def _told(record: Record) -> dict[str, Any]:
    evaluation, comparison, opening = record.evaluation, record.comparison, record.opening
    told: dict[str, Any] = {"experiment": record.experiment, "attempt": record.attempt}
    if record.hypothesis:
        told["hypothesis"] = record.hypothesis
    if comparison:
        told |= {"verdict": f"{comparison.verdict}: {comparison.sentence}"}
    for name, value in evaluation.metrics.items():
        told[name] = f"{value:.6g} ± {evaluation.spread[name]:.2g} over {len(evaluation.replicates)} seeds"
    if opening:
        passed = "passed" if opening.passed else "not passed"
        told["test split"] = (
            f"{record.metric} {opening.metrics[record.metric]:.6g}, gate {passed}, opening {opening.number}"
        )
    told |= dict(record.params)
    told |= {
        "data": f"{record.data.source} ({record.data.fingerprint}), rows {record.data.rows}",
        "trained on": f"{record.training.device}, {sum(r.seconds for r in record.training.replicates):.1f} s",
        **{name: value for name, value in performance_rows(record.training.performance) if name != "device"},
        "versions": ", ".join(f"{name} {version}" for name, version in record.training.versions.items()),
        "created": record.created.isoformat(),
        "image": record.image or "none, ran in process",
        "key": record.key,
    }
    return told
