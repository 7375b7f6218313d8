"""Train an attempt: k replicates of one set of hyperparameters, to one model file."""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from basekamp import __version__
from basekamp.data.dataset import Dataset, Schema, load_dataset
from basekamp.errors import InputError
from basekamp.evaluation.goals import CLASSIFICATION_METRICS, REGRESSION_METRICS
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.source import code_version
from basekamp.storage import Store, open_store
from basekamp.training.boosting import fit_boosting
from basekamp.training.checkpoint import Checkpoints
from basekamp.training.cohort import Cohort
from basekamp.training.device import choose_device, count_processes, describe_device
from basekamp.training.files import remove_leftovers, replace_file
from basekamp.training.launch import Job, launch
from basekamp.training.loop import Course, Member, StackLoop
from basekamp.training.model_file import model_bytes
from basekamp.training.progress import show_progress
from basekamp.training.results import MODEL_FILE, TRAINING_FILE, Training
from basekamp.training.saver import Saver
from basekamp.training.session import Session


@dataclass(frozen=True)
class Crew:
    """Who trains: `size` processes that share every batch, and what the loop and the saver are in this one."""

    loop: type[StackLoop]
    saver: type[Saver]
    size: int = 1
    leads: bool = True


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
) -> Training:
    """Train `seeds` replicates, from `first_seed` on; write `model.pth` and `training.json` into `directory`.

    Replicates whose steps are small train together, the others one after the other; weights are the same but for
    rounding. A training of the same data, settings and release that was killed goes on from its last checkpoint, and
    on CPU, with the same number of threads, ends with the same bytes as one never killed. With an s3:// or minio://
    `store` it does so on another machine too. On SIGTERM it saves and exits with 143. Random numbers are torch's: a
    model of your own that draws others is not reproducible.

    With `gpus` of "2" or more, or on the CPU with `processes` of 2 or more, that many processes share each batch;
    the results are those of one but for rounding, and for the random numbers of dropout.

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
    )
    if n_processes == 1 or hyperparameters.model == "boosting":
        return train_share(job, device, Crew(StackLoop, Saver))
    _check(load_dataset(dataset).schema, metric=metric, seeds=seeds)
    launch(job, n_processes)
    return Training.read(directory)


def train_share(job: Job, device: torch.device, crew: Crew) -> Training:
    """Do this process's share of a job, on its own device; the one that leads writes the results."""
    data = load_dataset(job.dataset)
    _check(data.schema, metric=job.metric, seeds=job.seeds)
    key = _key(data.schema, job.hyperparameters, job.metric, job.seeds, job.first_seed, str(device.type), crew.size)
    saver = crew.saver(Checkpoints(key, remote_store(job.store)), every_seconds=job.checkpoint_seconds)
    with saver.stopping_on_sigterm():
        came_to = (
            _boost(job, data) if job.hyperparameters.model == "boosting" else _train(job, data, device, crew, saver)
        )
        training = Training(
            hyperparameters=job.hyperparameters.model_dump(),
            metric=job.metric,
            n_parameters=came_to.n_parameters,
            device=came_to.device,
            versions={"basekamp": __version__, "python": platform.python_version(), "torch": torch.__version__},
            replicates=[course.replicate(seed) for seed, course in enumerate(came_to.courses, job.first_seed)],
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


def _boost(job: Job, data: Dataset) -> _Outcome:
    """Grow trees, on the CPU, seed after seed."""
    courses = []
    with show_progress() as progress:
        for seed in range(job.first_seed, job.first_seed + job.seeds):
            courses.append(fit_boosting(data, job.hyperparameters, seed=seed, metric=job.metric))
            best = courses[-1].curves["validation_metric"][courses[-1].best_epoch]
            progress(len(courses), job.seeds, f"seed {seed}, {job.metric} {best:.4f}")
    n_nodes = courses[0].best_weights["value"].numel()
    return _Outcome(courses, n_nodes, describe_device(torch.device("cpu")))


def _train(job: Job, data: Dataset, device: torch.device, crew: Crew, saver: Saver) -> _Outcome:
    """Train networks, in groups of seeds."""
    members = [Member(seed, job.hyperparameters) for seed in range(job.first_seed, job.first_seed + job.seeds)]
    cohort = Cohort(members, data, device, metric=job.metric, saver=saver, loop=crew.loop, n_processes=crew.size)
    session = cohort.session
    if session.resume(device):
        print(f"Resuming from a checkpoint: {_told(session, members)}.", flush=True)
    with show_progress() as progress:
        cohort.run(after_epoch=lambda: progress(*cohort.epochs(), session.text()))
    courses = [course for _, course in sorted(session.courses().items())]
    return _Outcome(courses, cohort.n_parameters(), cohort.describe_device())


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
