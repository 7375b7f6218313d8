"""Work through an experiment on this machine: the baseline first, then its attempts, each one pipeline run."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Protocol

from basekamp.cluster.arguments import typed_arguments
from basekamp.cluster.compiled import compiled_pipeline
from basekamp.cluster.local import LocalRun, Observer, new_local_run, run_locally
from basekamp.cluster.plan import pipeline_values
from basekamp.data.sources import source_fingerprint
from basekamp.errors import InputError
from basekamp.experiment import Experiment
from basekamp.records.record import BASELINE, differing
from basekamp.records.shelf import Row, Shelf, read_record, read_shelf
from basekamp.storage import Store, open_store


class Display(Protocol):
    """Shows what happens: a line of text, or the steps of one run while it lasts."""

    def say(self, text: str) -> None:
        """Show one line."""

    def steps(self, title: str, run: LocalRun) -> AbstractContextManager[Observer]:
        """Show the steps of one run; gives the observer to tell them to."""


def run_experiment(
    experiment: Experiment, *, store: str, attempts: list[str], gpus: str, display: Display, profile: bool = False
) -> tuple[Shelf, list[Row]]:
    """Make the baseline if there is none, then run the attempts; gives the experiment and the new records, in order.

    With `profile` each of them has a trace of a few steps beside it.

    Raises InputError when the pinned baseline has other settings than the file, or the source cannot be read;
    StoreError when the store cannot be used. Nothing has run by then.
    """
    opened = open_store(store)
    opened.check()
    fingerprint = source_fingerprint(experiment.data.source)
    shelf = read_shelf(opened, experiment.experiment)
    pinned = shelf.baseline
    if pinned:
        _check_baseline(opened, pinned, experiment)
        display.say(f"baseline: reused, {pinned.metric} {pinned.value:.4g} ± {pinned.spread:.2g}, {pinned.name}")
    made = []
    for attempt in ([] if pinned else [BASELINE]) + attempts:
        values = pipeline_values(
            experiment, attempt, store=store, data_fingerprint=fingerprint, gpus=gpus, profile=profile
        )
        made.append(_run(values, attempt, experiment, opened, display))
    return read_shelf(opened, experiment.experiment), made


def _run(values: dict[str, object], attempt: str, experiment: Experiment, store: Store, display: Display) -> Row:
    package = compiled_pipeline()
    run = new_local_run(_file_name(experiment.experiment, attempt))
    before = {row.id for row in read_shelf(store, experiment.experiment).rows}
    title = f"{attempt}: {values['hypothesis']}" if values["hypothesis"] else attempt
    with display.steps(title, run) as observer:
        run_locally(package, typed_arguments(package, values), run, observer=observer)
    return next(
        row for row in read_shelf(store, experiment.experiment).rows if row.id not in before and row.attempt == attempt
    )


def _check_baseline(store: Store, row: Row, experiment: Experiment) -> None:
    """The baseline is pinned: a file that says something else is asking another question."""
    record = read_record(store, row)
    changed = differing(experiment.hyperparameters().effective(), record.params)
    asked = {"metric": (record.metric, experiment.metric.name), "target": (record.data.target, experiment.data.target)}
    changed |= {key: (theirs, pinned) for key, (pinned, theirs) in asked.items() if pinned != theirs}
    if changed:
        told = ", ".join(f"{key}={pinned}" for key, (pinned, _) in changed.items())
        raise InputError(
            f"the baseline of {experiment.experiment} is pinned with {told}, and the file says otherwise: "
            "set the file back, or give the changed experiment another name."
        )


def _file_name(experiment: str, attempt: str) -> str:
    return re.sub(r"\W", "-", f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{experiment}-{attempt}")


def attempts_to_run(experiment: Experiment, names: tuple[str, ...]) -> list[str]:
    """The attempts asked for, or all of the file; raises InputError for one that the file does not have."""
    return list(_known(experiment, names)) if names else list(experiment.attempts)


def _known(experiment: Experiment, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if name != BASELINE:
            experiment.hyperparameters(name)
            yield name
