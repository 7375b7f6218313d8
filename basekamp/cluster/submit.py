"""Send a compiled pipeline to a Kubeflow Pipelines endpoint and wait for its run."""

import contextlib
import io
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basekamp.cluster.arguments import typed_arguments
from basekamp.cluster.endpoint import OutageError, connect, endpoint_address, not_an_api
from basekamp.errors import BasekampError, InputError

FIRST_POLL_SECONDS = 0.5
"""The pause between polls begins here and doubles up to what was asked for: a short run ends soon."""

OUTAGE_POLLS = 24
"""So many polls in a row may fail before waiting gives up: an API server restarts during long runs."""

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
_IS_SUBSTRING = 9  # kfp.client's number for it
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class Submitted:
    """A run that the endpoint accepted; `url` is its page in the Kubeflow UI."""

    run_id: str
    run_name: str
    experiment_id: str
    url: str


def submit(
    package: Path,
    values: Mapping[str, object],
    *,
    host: str,
    experiment: str,
    run_name: str,
    namespace: str = "",
    token: str = "",
    caching: bool = True,
) -> Submitted:
    """Create a run of `package` with every parameter passed explicitly, in its declared type.

    The experiment is created if it does not exist. Where `run_name` is taken in it, the run is called
    `run_name-2`, `run_name-3` and so on. `caching=False` turns it off for every task; True leaves it as
    compiled. Without `namespace`, kfp's own context file decides, or the pod's. A private certificate
    authority is read from SSL_CERT_FILE.

    Raises:
        InputError: values that the pipeline or the endpoint refuses, or an unusable host or token.
        BasekampError: an endpoint that cannot be reached, refuses the token, or is not a KFP one.
    """
    arguments = typed_arguments(package, values)
    endpoint = endpoint_address(host)
    client = connect(endpoint, token)
    namespace = namespace or _default_namespace(client, endpoint)
    with contextlib.redirect_stdout(io.StringIO()):
        home = client.create_experiment(experiment, namespace=namespace or None)
        if not home.experiment_id:
            raise not_an_api(endpoint, "JSON of another kind")
        name = _free_name(client, home.experiment_id, run_name)
        run = client.run_pipeline(
            home.experiment_id,
            name,
            pipeline_package_path=str(package),
            params=arguments,
            enable_caching=None if caching else False,
        )
    return Submitted(run.run_id, name, home.experiment_id, f"{endpoint}/#/runs/details/{run.run_id}")


def has_succeeded(*, host: str, experiment: str, run_name: str, namespace: str = "", token: str = "") -> bool:
    """Whether the experiment holds a run `run_name`, or `run_name-N`, that succeeded.

    Raises:
        BasekampError: an endpoint that cannot be reached, refuses the token, or is not a KFP one.
    """
    endpoint = endpoint_address(host)
    client = connect(endpoint, token)
    namespace = namespace or _default_namespace(client, endpoint)
    with contextlib.redirect_stdout(io.StringIO()):
        home = client.create_experiment(experiment, namespace=namespace or None)
        runs = list(_runs_named(client, home.experiment_id, run_name))
    numbered = re.compile(re.escape(run_name) + r"(-\d+)?")
    return any(numbered.fullmatch(run.display_name) and _state(run) == "SUCCEEDED" for run in runs)


def wait(
    submitted: Submitted,
    *,
    host: str,
    token: str = "",
    poll_seconds: float = 5,
    timeout_seconds: float | None = None,
    on_change: Callable[[str, dict[str, str]], None] | None = None,
) -> str:
    """Give the run's final state: SUCCEEDED, FAILED, CANCELED or SKIPPED.

    `on_change(state, {task: state})` is called for the first answer and whenever one differs from the
    one before. Once the endpoint has answered, an outage of up to `OUTAGE_POLLS` polls is sat out.

    Raises:
        BasekampError: the endpoint fails, or the run is not done after `timeout_seconds`; it goes on.
    """
    client = connect(endpoint_address(host), token)
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    seen: tuple[str, dict[str, str]] | None = None
    failures = 0
    pause = min(FIRST_POLL_SECONDS, poll_seconds)
    while True:
        try:
            run = client.get_run(submitted.run_id)
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
    details = (run.run_details and run.run_details.task_details) or []
    states: dict[str, str] = {}
    for task in details:
        name = task.display_name or ""
        if name in ("", "root", "executor") or name.endswith("-driver"):
            continue  # KFP's own bookkeeping
        ranked = [_state(task), *([states[name]] if name in states else [])]
        states[name] = min(ranked, key=_LEAST_DONE_FIRST.index)
    return states


def _default_namespace(client: Any, endpoint: str) -> str:
    """Find the namespace where the endpoint serves several; a single-user one must be given none."""
    if not client.healthzs.healthz_service_get_healthz().multi_user:
        return ""
    known = client.get_user_namespace()
    if known:
        return str(known)
    if _POD_NAMESPACE.exists():
        return _POD_NAMESPACE.read_text(encoding="utf-8").strip()
    raise InputError(f"{endpoint} serves several namespaces: say which one the run belongs to.")


def _free_name(client: Any, experiment_id: str, run_name: str) -> str:
    """Give `run_name`, or the first of `run_name-2`, `run_name-3` that the experiment does not hold."""
    taken = {run.display_name for run in _runs_named(client, experiment_id, run_name)}
    candidates = (run_name if n == 1 else f"{run_name}-{n}" for n in itertools.count(1))
    return next(name for name in candidates if name not in taken)


def _runs_named(client: Any, experiment_id: str, text: str) -> Iterator[Any]:
    """Every run of an experiment whose name holds `text`."""
    predicate = {"operation": _IS_SUBSTRING, "key": "display_name", "stringValue": text}
    page = None
    while page != "":
        answer = client.list_runs(
            page_token=page or "",
            page_size=200,
            experiment_id=experiment_id,
            filter=json.dumps({"predicates": [predicate]}),
        )
        yield from answer.runs or []
        page = answer.next_page_token or ""
