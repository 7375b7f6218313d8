"""Train an attempt: k replicates of one set of hyperparameters, to one model file."""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from basekamp.data.dataset import Dataset, Schema, load_dataset
from basekamp.errors import InputError
from basekamp.evaluation.goals import CLASSIFICATION_METRICS, REGRESSION_METRICS
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.build import count_flops
from basekamp.models.source import code_commit, code_version, software_versions
from basekamp.storage import Store, open_store
from basekamp.tracking.settings import Tracking, read_tracking
from basekamp.tracking.training import Groups, TrainingTracker, tracked_training
from basekamp.training.boosting import fit_boosting
from basekamp.training.cards import card_names, precision_of
from basekamp.training.checkpoint import Checkpoints
from basekamp.training.cohort import Cohort
from basekamp.training.course import Course, Member
from basekamp.training.device import (
    choose_device,
    count_processes,
    describe_device,
    fitting_threads,
    is_mixed_precision,
)
from basekamp.training.files import remove_leftovers, replace_file
from basekamp.training.launch import Job, launch
from basekamp.training.loop import StackLoop
from basekamp.training.meter import Meter, peak_memory_bytes
from basekamp.training.model_file import model_bytes
from basekamp.training.progress import show_progress
from basekamp.training.results import MODEL_FILE, TRAINING_FILE, Performance, Seconds, Training
from basekamp.training.saver import Saver
from basekamp.training.session import Session
from basekamp.training.tracer import tracing

CPU = torch.device("cpu")
ROWS_TRIED = 2


@dataclass(frozen=True)
class Crew:
    """Who trains: `size` processes that share every batch, and what the loop and the saver are in this one.

    cards: the names of the cards of all of them, in order of their ranks, where there are several.
    """

    loop: type[StackLoop]
    saver: type[Saver]
    size: int = 1
    leads: bool = True
    cards: tuple[str, ...] = ()


def train_model(
    dataset: Path,
    directory: Path,
    hyperparameters: Hyperparameters,
    *,
    metric: str,
    seeds: int = 3,
    gpus: str = "0",
    store: str = "",
    checkpoint_seconds: float = 30.0,
    processes: int = 1,
    first_seed: int = 0,
    profile: bool = False,
    tracking: str = "",
) -> Training:
    """Train `seeds` replicates, from `first_seed` on; write `model.pth` and `training.json` into `directory`.

    Replicates whose steps are small train together, the others one after the other; weights are the same but for
    rounding. A training of the same data, settings and release that was killed goes on from its last checkpoint, and
    on CPU, with the same number of threads, ends with the same bytes as one never killed. With an s3:// or minio://
    `store` it does so on another machine too. On SIGTERM it saves and exits with 143. Random numbers are torch's: a
    model of your own that draws others is not reproducible.

    With `gpus` of "2" or more, or on the CPU with `processes` of 2 or more, that many processes share each batch;
    the results are those of one but for rounding, and for the random numbers of dropout.

    With `profile` a trace of a few steps, `trace.json.gz`, comes beside the model; `tracking` names trackers that are
    told of each epoch, see basekamp.tracking. Neither changes a result.

    Raises InputError for settings that do not fit the data and a folder that cannot be written, DeviceError
    for GPUs that are not there or too small, BasekampError for a process that was lost.
    """
    device, n_processes = choose_device(gpus), count_processes(gpus, processes)
    job = Job(
        dataset=dataset,
        directory=directory,
        hyperparameters=hyperparameters,
        metric=metric,
        seeds=seeds,
        gpus=gpus,
        store=store,
        checkpoint_seconds=checkpoint_seconds,
        first_seed=first_seed,
        profile=profile,
        tracking=tracking,
    )
    read_tracking(tracking)
    if n_processes == 1 or hyperparameters.model == "boosting":
        return train_share(job, device, Crew(StackLoop, Saver))
    _check(load_dataset(dataset).schema, metric=metric, seeds=seeds)
    launch(job, n_processes)
    return Training.read(directory)


def train_share(job: Job, device: torch.device, crew: Crew) -> Training:
    """Do this process's share of a job, on its own device; the one that leads writes the results."""
    commit = code_commit()  # now, for the files may change while it lasts
    data = load_dataset(job.dataset)
    _check(data.schema, metric=job.metric, seeds=job.seeds)
    key = _key(data.schema, job.hyperparameters, job.metric, job.seeds, job.first_seed, str(device.type), crew.size)
    saver = crew.saver(Checkpoints(key, remote_store(job.store)), every_seconds=job.checkpoint_seconds)
    with saver.stopping_on_sigterm(), _tracked(job, data.schema, key, crew) as tracker:
        came_to = (
            _boost(job, data, tracker)
            if job.hyperparameters.model == "boosting"
            else _train(job, data, device, crew, saver, tracker)
        )
        training = Training(
            hyperparameters=job.hyperparameters.model_dump(),
            metric=job.metric,
            n_parameters=came_to.n_parameters,
            device=came_to.device,
            versions=software_versions(job.hyperparameters.model),
            commit=commit,
            replicates=[course.replicate(seed) for seed, course in enumerate(came_to.courses, job.first_seed)],
            performance=came_to.performance,
        )
        if crew.leads:
            weights = [course.best_weights for course in came_to.courses]
            _write(job.directory, training, model_bytes(job.hyperparameters, data.schema, weights))
            saver.remove()
    return training


@dataclass(frozen=True)
class _Outcome:
    """How each seed fared, in order, and on what."""

    courses: list[Course]
    n_parameters: int
    device: str
    performance: Performance


def _tracked(job: Job, schema: Schema, key: str, crew: Crew) -> AbstractContextManager[TrainingTracker]:
    """The trackers that the process which leads tells."""
    told = read_tracking(job.tracking) if crew.leads else Tracking()
    params = {**job.hyperparameters.effective(), "seeds": job.seeds}
    tags = {"data": schema.source}
    return tracked_training(told, job.directory, key, metric=job.metric, params=params, tags=tags, store=job.store)


def _boost(job: Job, data: Dataset, tracker: TrainingTracker) -> _Outcome:
    """Grow trees, on the CPU, seed after seed."""
    courses = []
    with show_progress() as progress:
        for seed in range(job.first_seed, job.first_seed + job.seeds):
            courses.append(fit_boosting(data, job.hyperparameters, seed=seed, metric=job.metric))
            best = courses[-1].curves["validation_metric"][courses[-1].best_epoch]
            progress(len(courses), job.seeds, f"seed {seed}, {job.metric} {best:.4f}")
    tracker.write([[(seed, course.curves)] for seed, course in enumerate(courses, job.first_seed)])
    if job.profile:
        print("No trace was written: model: boosting takes no steps that PyTorch's profiler could show.", flush=True)
    seconds, rounds = (sum(getattr(course, name) for course in courses) for name in ("seconds", "n_epochs"))
    performance = Performance(
        device=CPU.type,
        seconds=Seconds(total=round(seconds, 4)),
        samples_per_second=rounds * data.schema.rows["train"] / seconds,
        memory_peak_bytes=peak_memory_bytes(CPU),
    )
    return _Outcome(courses, courses[0].best_weights["value"].numel(), describe_device(CPU), performance)


def _train(
    job: Job, data: Dataset, device: torch.device, crew: Crew, saver: Saver, tracker: TrainingTracker
) -> _Outcome:
    """Train networks, in groups of seeds."""
    members = [Member(seed, job.hyperparameters) for seed in range(job.first_seed, job.first_seed + job.seeds)]
    with Meter(device) as meter:
        cohort = Cohort(
            members,
            data,
            device,
            metric=job.metric,
            saver=saver,
            meter=meter,
            loop=crew.loop,
            n_processes=crew.size,
        )
        session = cohort.session
        with tracing(session, job.directory if job.profile and crew.leads else None) as trace:
            if session.resume(device):
                print(f"Resuming from a checkpoint: {_told(session, members)}.", flush=True)
            with show_progress() as progress:

                def after_epoch() -> None:
                    progress(*cohort.epochs(), session.running.text())
                    trace(session.running)
                    tracker.note(lambda: _curves(session, members))

                cohort.run(after_epoch=after_epoch)
                tracker.write(_curves(session, members))
    courses = [course for _, course in sorted(session.courses().items())]
    performance = _performance(cohort, meter, data, crew)
    return _Outcome(courses, cohort.n_parameters(), cohort.describe_device(), performance)


def _curves(session: Session, members: Sequence[Member]) -> Groups:
    """The curves of every seed that has begun, by the groups that train together."""
    told = session.courses()
    return [[(members[place].seed, told[place].curves) for place in group if place in told] for group in session.groups]


def _performance(cohort: Cohort, meter: Meter, data: Dataset, crew: Crew) -> Performance:
    """What was measured, against what the card could do."""
    settings, untrained = cohort.members[0].hyperparameters, cohort.build(cohort.members[0])
    cards = crew.cards or card_names(cohort.device)
    with fitting_threads(CPU, step_size=0):
        flops_per_row = count_flops(untrained, torch.from_numpy(data.split("train").x[:ROWS_TRIED]))
    is_mixed = is_mixed_precision(settings.precision, cohort.device)
    precision = precision_of(untrained, cards, is_mixed=is_mixed)
    return meter.performance(cards, processes=crew.size, flops_per_row=flops_per_row, precision=precision)


def _check(schema: Schema, *, metric: str, seeds: int) -> None:
    allowed = CLASSIFICATION_METRICS if schema.task == "classification" else REGRESSION_METRICS
    if metric not in allowed:
        raise InputError(f"metric: {metric} does not fit a {schema.task} target: use {', '.join(allowed)}.")
    if seeds < 1:
        raise InputError(f"seeds={seeds} is not allowed: use 1 or more.")


def _told(session: Session, members: Sequence[Member]) -> str:
    """How far a training that goes on is."""
    courses = session.courses()
    done = sum(bool(course.ended) for course in courses.values())
    text = f"{done} of {len(members)} seeds are trained"
    loop = next(iter(session.loops.values()), None)
    if loop is None:
        return text
    return f"{text}, {loop.who()} at {loop.epoch} epochs and {loop.step} steps"


def _write(directory: Path, training: Training, model: bytes) -> None:
    try:
        replace_file(directory / MODEL_FILE, model)
        training.write(directory)
        remove_leftovers(directory / MODEL_FILE)
        remove_leftovers(directory / TRAINING_FILE)
    except OSError as error:
        raise InputError(
            f"the model cannot be written to {directory} ({error.strerror}): check the space and the rights there."
        ) from error


def _key(schema: Schema, hyperparameters: Hyperparameters, *more: object) -> str:
    """The same training has the same checkpoints, in whichever process or pod it runs."""
    parts = [
        code_version(hyperparameters.model),
        torch.__version__,
        schema.dataset_fingerprint,
        hyperparameters.model_dump_json(),
        repr(more),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def remote_store(store: str) -> Store | None:
    """The store, where it is not a folder: that would keep no more than this disk does."""
    return open_store(store) if store.startswith(("s3://", "minio://")) else None
