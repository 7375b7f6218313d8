"""Follow a run on a Kubeflow Pipelines endpoint to its end, and say why it failed."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from basekamp.cluster.endpoint import Endpoint, OutageError
from basekamp.cluster.submit import Submitted
from basekamp.errors import BasekampError

FIRST_POLL_SECONDS = 0.5
"""The pause between polls begins here and doubles up to what was asked for: a short run ends soon."""

POLL_SECONDS = 5.0

OUTAGE_POLLS = 24
"""So many polls in a row may fail before waiting gives up: an API server restarts during long runs."""

OnChange = Callable[[str, dict[str, str]], object]
"""Told the run's state and each task's."""

FINAL_STATES = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_LEAST_DONE_FIRST = (
    "FAILED",
    "CANCELED",
    "CANCELING",
    "RUNNING",
    "PAUSED",
    "PENDING",
    "SUCCEEDED",
    "SKIPPED",
)
_BOOKKEEPING = re.compile(r"|root|executor(\(\d+\))?|.*-driver")
"""Nodes of KFP's own, which the API lists among the tasks; executor(1) is a second try."""


def wait(
    submitted: Submitted,
    *,
    endpoint: Endpoint,
    poll_seconds: float = POLL_SECONDS,
    timeout_seconds: float | None = None,
    on_change: OnChange | None = None,
) -> str:
    """Give the run's final state: SUCCEEDED, FAILED, CANCELED or SKIPPED.

    `on_change(state, {task: state})` is called for the first answer and whenever one differs from the
    one before. Once the endpoint has answered, an outage of up to `OUTAGE_POLLS` polls is sat out.

    Raises:
        BasekampError: the endpoint fails, or the run is not done after `timeout_seconds`; it goes on.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    seen: tuple[str, dict[str, str]] | None = None
    failures = 0
    pause = min(FIRST_POLL_SECONDS, poll_seconds)
    while True:
        try:
            run = endpoint.client.get_run(submitted.run_id)
            failures = 0
        except OutageError:
            failures += 1
            if seen is None or failures > OUTAGE_POLLS:
                raise
        else:
            now = (_state(run), _task_states(run))
            if on_change is not None and now != seen:
                on_change(*now)
            seen = now
            if now[0] in FINAL_STATES:
                return now[0]
        if deadline is not None and time.monotonic() + pause > deadline:
            raise BasekampError(_not_done(submitted, seen, timeout_seconds))
        time.sleep(pause)
        pause = min(2 * pause, poll_seconds)


def failure(submitted: Submitted, *, endpoint: Endpoint) -> str:
    """Say which tasks of a failed run failed, and why as far as the API tells; KFP 2.17 often tells no reason.

    Raises BasekampError for an endpoint that fails.
    """
    run = endpoint.client.get_run(submitted.run_id)
    reasons = {name: "" for name, state in _task_states(run).items() if state == "FAILED"}
    for task in _tasks(run):
        name = task.display_name
        if name in reasons:
            reasons[name] = reasons[name] or _reason(task)
    told = [f"{name} failed{f' ({reason})' if reason else ''}" for name, reason in reasons.items()]
    own = _reason(run)
    return "; ".join(told + ([own] if own else [])) or "the API does not tell which task failed"


def _reason(run_or_task: Any) -> str:
    """The error of a run or task itself, else the last one in its history."""
    history = [entry.error for entry in reversed(run_or_task.state_history or [])]
    messages = (error.message for error in (run_or_task.error, *history) if error is not None and error.message)
    text = " ".join(next(messages, "").split()).rstrip(".")
    return text if len(text) <= 300 else text[:297] + "..."


def _not_done(submitted: Submitted, seen: tuple[str, dict[str, str]] | None, seconds: float | None) -> str:
    state = seen[0] if seen else "PENDING"
    return (
        f"{submitted.run_name} is still {state} after {seconds:g} s: it goes on; "
        f"wait longer, or follow it at {submitted.url}"
    )


def _state(run_or_task: Any) -> str:
    state = run_or_task.state
    return "PENDING" if state in (None, "RUNTIME_STATE_UNSPECIFIED") else str(state)


def _task_states(run: Any) -> dict[str, str]:
    """Map each task to its state; of the iterations of a loop, the least done or failed one counts."""
    states: dict[str, str] = {}
    for task in _tasks(run):
        name = task.display_name
        ranked = [_state(task), *([states[name]] if name in states else [])]
        states[name] = min(ranked, key=_LEAST_DONE_FIRST.index)
    return states


def _tasks(run: Any) -> Iterator[Any]:
    """The run's tasks without KFP's own bookkeeping."""
    for task in (run.run_details and run.run_details.task_details) or []:
        if not _BOOKKEEPING.fullmatch(task.display_name or ""):
            yield task
