"""Send a compiled pipeline to a Kubeflow Pipelines endpoint, as a run or as a recurring one."""

import contextlib
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basekamp.cluster.arguments import typed_arguments
from basekamp.cluster.cron import cron_expression
from basekamp.cluster.endpoint import Endpoint, not_an_api
from basekamp.errors import InputError

_IS_SUBSTRING = 9  # kfp.client's number for it
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class Submitted:
    """A run, or a recurring one, that the endpoint accepted; `url` is its page in the Kubeflow UI."""

    run_id: str
    run_name: str
    experiment_id: str
    url: str


def submit(
    package: Path, values: Mapping[str, object], *, endpoint: Endpoint, experiment: str, run_name: str
) -> Submitted:
    """Create a run of `package` with every parameter passed explicitly, in its declared type.

    The experiment is created if it does not exist. Where `run_name` is taken in it, the run is called
    `run_name-2`, `run_name-3` and so on. Without a namespace, kfp's own context file decides, or the pod's.

    Raises:
        InputError: values that the pipeline or the endpoint refuses.
        BasekampError: an endpoint that cannot be reached, refuses the login, or is not a KFP one.
    """
    arguments = typed_arguments(package, values)
    client = endpoint.client
    with _quiet_kfp():
        home = _experiment_id(endpoint, experiment)
        name = _free_name(_named(client.list_runs, "runs", home, run_name), run_name)
        run = client.run_pipeline(home, name, pipeline_package_path=str(package), params=arguments)
    return Submitted(run.run_id, name, home, endpoint.page(f"runs/details/{run.run_id}"))


def schedule(
    package: Path, values: Mapping[str, object], *, endpoint: Endpoint, experiment: str, job_name: str, cron: str
) -> Submitted:
    """Create a recurring run, else as `submit` does; `cron` has five fields, or six with seconds first.

    One run at a time, and none for the times that were missed. The server's time zone counts, by default UTC.
    """
    arguments = typed_arguments(package, values)
    expression = cron_expression(cron)
    client = endpoint.client
    with _quiet_kfp():
        home = _experiment_id(endpoint, experiment)
        name = _free_name(_named(client.list_recurring_runs, "recurring_runs", home, job_name), job_name)
        job = client.create_recurring_run(
            home,
            name,
            cron_expression=expression,
            max_concurrency=1,
            no_catchup=True,
            pipeline_package_path=str(package),
            params=arguments,
        )
    page = endpoint.page(f"recurringrun/details/{job.recurring_run_id}")
    return Submitted(job.recurring_run_id, name, home, page)


def succeeded_run(*, endpoint: Endpoint, experiment: str, run_name: str) -> str:
    """The id of the experiment's first run `run_name`, or `run_name-N`, that succeeded; empty if none did.

    Raises BasekampError for an endpoint that cannot be reached, refuses the login, or is not a KFP one.
    """
    numbered = re.compile(re.escape(run_name) + r"(-\d+)?")
    with _quiet_kfp():
        home = _experiment_id(endpoint, experiment)
        runs = [
            run
            for run in _named(endpoint.client.list_runs, "runs", home, run_name)
            if numbered.fullmatch(run.display_name) and run.state == "SUCCEEDED"
        ]
    return str(min(runs, key=lambda run: run.created_at).run_id) if runs else ""


def _experiment_id(endpoint: Endpoint, name: str) -> str:
    """Find or create the experiment."""
    namespace = endpoint.namespace or _default_namespace(endpoint)
    home = endpoint.client.create_experiment(name, namespace=namespace or None)
    if not home.experiment_id:
        raise not_an_api(endpoint.address, "JSON of another kind")
    return str(home.experiment_id)


def _default_namespace(endpoint: Endpoint) -> str:
    """Find the namespace where the endpoint serves several; a single-user one must be given none."""
    if not endpoint.client.healthzs.healthz_service_get_healthz().multi_user:
        return ""
    known = endpoint.client.get_user_namespace()
    if known:
        return str(known)
    if _POD_NAMESPACE.exists():
        return _POD_NAMESPACE.read_text(encoding="utf-8").strip()
    raise InputError(
        f"{endpoint.address} serves several namespaces: say which one the run belongs to, with --namespace."
    )


def _free_name(things: Iterator[Any], name: str) -> str:
    """Give `name`, or the first of `name-2`, `name-3` that none of the things has."""
    taken = {thing.display_name for thing in things}
    candidates = (name if n == 1 else f"{name}-{n}" for n in itertools.count(1))
    return next(candidate for candidate in candidates if candidate not in taken)


def _named(list_page: Callable[..., Any], kind: str, experiment_id: str, text: str) -> Iterator[Any]:
    """Every run or recurring run (`kind`) of an experiment whose name holds `text`, page by page."""
    predicate = {"operation": _IS_SUBSTRING, "key": "display_name", "stringValue": text}
    page = None
    while page != "":
        answer = list_page(
            page_token=page or "",
            page_size=200,
            experiment_id=experiment_id,
            filter=json.dumps({"predicates": [predicate]}),
        )
        yield from getattr(answer, kind) or []
        page = answer.next_page_token or ""


def _quiet_kfp() -> contextlib.AbstractContextManager[object]:
    """Keep kfp from printing links of its own."""
    return contextlib.redirect_stdout(io.StringIO())
