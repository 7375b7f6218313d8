"""Work through an experiment on this machine: the baseline first, then attempts and sweeps, each one pipeline run."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Protocol

from basekamp.cluster.arguments import typed_arguments
from basekamp.cluster.compiled import compiled_pipeline
from basekamp.cluster.local import LocalRun, Observer, new_local_run, run_locally
from basekamp.cluster.plan import pipeline_values, sweep_values
from basekamp.data.version import data_version
from basekamp.errors import InputError, ResultsWaitError, StoreDownError
from basekamp.experiment import Experiment
from basekamp.naming import new_id
from basekamp.records.pinned import check_departure, check_pinned, waiting_baseline
from basekamp.records.rebase import rebase
from basekamp.records.record import BASELINE
from basekamp.records.shelf import Row, Shelf, read_record, read_shelf
from basekamp.records.waiting import bring_up, is_waiting
from basekamp.storage import Store, open_store
from basekamp.tracking.settings import check_usable, chosen_trackers
from basekamp.work import check_work_directory


class Display(Protocol):
    """Shows what happens: a line of text, or the steps of one run while it lasts."""

    def say(self, text: str) -> None:
        """Show one line."""

    def steps(self, title: str, run: LocalRun, pipeline: str) -> AbstractContextManager[Observer]:
        """Show the steps of one run of a pipeline; gives the observer to tell them to."""


def run_experiment(
    experiment: Experiment,
    *,
    store: str,
    attempts: list[str],
    gpus: str,
    display: Display,
    profile: bool = False,
    most_seeds: int = 0,
) -> tuple[Shelf, list[Row]]:
    """Make the baseline if there is none, then run the attempts; gives the experiment and the new records, in order.

    With `profile` each of them has a trace of a few steps beside it. With `most_seeds` an attempt that is undecided is
    trained again with as many seeds as would decide it, at most that many, until it is decided or no more would help.

    While the store is down, all of it is trained nevertheless, and what it came to waits on this machine.

    Raises InputError when the pinned baseline has other settings than the file, the source cannot be read, a tracker's
    package is missing, or `most_seeds` is no more than the file's; StoreError when the store cannot be used. Nothing
    has run by then. At the end, raises ResultsWaitError when there are results that wait.
    """
    if most_seeds and most_seeds <= experiment.seeds:
        raise InputError(
            f"--until-decided {most_seeds} is not allowed: use more than the {experiment.seeds} seeds of the file."
        )
    opened, fingerprint, has_baseline = _base_camp(experiment, store, display, may_wait=True)
    made, waits = [], []
    for attempt in ([] if has_baseline else [BASELINE]) + attempts:
        values = pipeline_values(
            experiment, attempt, store=store, data_fingerprint=fingerprint, gpus=gpus, profile=profile
        )
        try:
            made.append(_run(values, experiment, opened, display))
            while seeds := _seeds_to_decide(opened, made[-1], most_seeds):
                display.say(f"{attempt}: undecided with {made[-1].n} seeds, once more with {seeds}")
                made.append(_run(values | {"seeds": seeds}, experiment, opened, display))
        except ResultsWaitError:
            waits.append(attempt)
    if waits:
        raise ResultsWaitError(
            f"{opened.url} is down, so these results of {experiment.experiment} wait on this machine: "
            f"{', '.join(waits)}; `basekamp sync` judges and records them once the store is up."
        )
    _warn(opened, made, display)
    return read_shelf(opened, experiment.experiment), made


def _seeds_to_decide(store: Store, row: Row, most: int) -> int:
    """How many seeds to look again with; 0 when the attempt is decided, or more seeds are not allowed or no help."""
    if row.verdict != "inconclusive" or row.n >= most:
        return 0
    comparison = read_record(store, row).comparison
    needed = comparison.seeds_needed if comparison else None
    return min(needed, most) if needed else 0


def rebase_experiment(experiment: Experiment, *, store: str, gpus: str, display: Display) -> tuple[Shelf, Row]:
    """Train the file's baseline and begin a new lineage with it; gives the experiment and the baseline's record.

    Whatever stops it, the old lineage stands until the new one has begun; called again, it goes on.

    Raises InputError when there is no baseline, when the pinned one is the file's, or the file asks another question.
    """
    opened = open_store(store)
    opened.check()
    fingerprint = data_version(experiment.data)
    shelf = read_shelf(opened, experiment.experiment)
    if shelf.baseline is None:
        raise InputError(
            f"{experiment.experiment} has no baseline in {opened.url} to depart from: make one with "
            "`basekamp run FILE`."
        )
    check_departure(opened, shelf.baseline, experiment, fingerprint)
    row = waiting_baseline(opened, shelf, experiment, fingerprint)
    if row is None:
        values = pipeline_values(experiment, BASELINE, store=store, data_fingerprint=fingerprint, gpus=gpus)
        row = _run(values, experiment, opened, display)
    _warn(opened, [row], display)
    rebase(opened, read_shelf(opened, experiment.experiment), row)
    return read_shelf(opened, experiment.experiment), row


def run_sweep(experiment: Experiment, *, store: str, gpus: str, display: Display) -> tuple[Shelf, Row, str]:
    """Search as the file's sweep says, then judge the winner; gives the experiment, its record and the report's key.

    A sweep that was cut off goes on where it stood. Raises InputError for a file without a sweep, an experiment without
    a baseline, or as `run_experiment` does. Nothing has run by then.
    """
    opened, fingerprint, has_baseline = _base_camp(experiment, store, display)
    values = sweep_values(experiment, store=store, data_fingerprint=fingerprint, gpus=gpus)
    if not has_baseline:
        raise InputError(
            f"{experiment.experiment} has no baseline in {opened.url}, and a sweep is measured against one: make it "
            "first with `basekamp run FILE --attempt baseline`."
        )
    row = _run(values, experiment, opened, display, pipeline="sweep")
    _warn(opened, [row], display)
    reports = [
        entry for entry in opened.entries(f"{experiment.experiment}/sweeps/") if entry.key.endswith("/report.html")
    ]
    return read_shelf(opened, experiment.experiment), row, max(reports, key=lambda entry: entry.modified).key


def _base_camp(
    experiment: Experiment, store: str, display: Display, *, may_wait: bool = False
) -> tuple[Store, str, bool]:
    """The store, the source's fingerprint, and whether there is a baseline, which must be the file's.

    What waits for the store is brought up. With `may_wait` a store that is down is told, and a baseline that waits for
    it is one.
    """
    check_usable(chosen_trackers(experiment.tracking))
    new_id(datetime.now(UTC), "")  # a clock that no record can be made by is told now, not after the training
    check_work_directory()
    opened = open_store(store)
    try:
        opened.check()
    except StoreDownError as error:
        if not may_wait:
            raise
        display.say(f"{error} The training goes on, and its results wait on this machine.")
        return opened, data_version(experiment.data), is_waiting(store, experiment.experiment, BASELINE)
    for brought in bring_up(store):
        display.say(brought.text())
    fingerprint = data_version(experiment.data)
    pinned = read_shelf(opened, experiment.experiment).baseline
    if pinned:
        check_pinned(read_record(opened, pinned), experiment)
        display.say(f"baseline: reused, {pinned.metric} {pinned.value:.4g} ± {pinned.spread:.2g}, {pinned.name}")
    return opened, fingerprint, pinned is not None


def _run(
    values: dict[str, object],
    experiment: Experiment,
    store: Store,
    display: Display,
    *,
    pipeline: str = "train_and_compare",
) -> Row:
    """Run one pipeline to its end; gives the record that it made."""
    package, attempt = compiled_pipeline(pipeline), str(values["attempt"])
    run = new_local_run(_file_name(experiment.experiment, attempt))
    before = _known_ids(store, experiment)
    title = f"{attempt}: {values['hypothesis']}" if values["hypothesis"] else attempt
    with display.steps(title, run, pipeline) as observer:
        run_locally(package, typed_arguments(package, values), run, observer=observer)
    rows = read_shelf(store, experiment.experiment).rows
    return max((row for row in rows if row.id not in before and row.attempt == attempt), key=lambda row: row.id)


def _known_ids(store: Store, experiment: Experiment) -> set[str]:
    """The records that are there already; none that can be told while the store is down."""
    try:
        return {row.id for row in read_shelf(store, experiment.experiment).rows}
    except StoreDownError:
        return set()


def _warn(store: Store, rows: list[Row], display: Display) -> None:
    """Say what the data of these records break, each once."""
    for told in dict.fromkeys(one.text for row in rows for one in read_record(store, row).checks):
        display.say(told)


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
