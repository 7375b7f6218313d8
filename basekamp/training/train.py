"""Train an attempt: k replicates of one set of hyperparameters, to one model file."""

import hashlib
import io
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from basekamp import __version__
from basekamp.data.dataset import Dataset, Schema, load_dataset
from basekamp.errors import InputError
from basekamp.evaluation.goals import CLASSIFICATION_METRICS, REGRESSION_METRICS
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.build import build_model, count_multiplications, count_parameters
from basekamp.models.source import code_version
from basekamp.training.checkpoint import Saver
from basekamp.training.device import choose_device, count_processes, describe_device, fitting_threads
from basekamp.training.files import remove_leftovers, replace_file
from basekamp.training.launch import Job, launch
from basekamp.training.loop import ReplicateLoop, State, TrainingData
from basekamp.training.progress import show_progress
from basekamp.training.results import MODEL_FILE, TRAINING_FILE, Training
from basekamp.work import work_directory

MODEL_FORMAT = 1


@dataclass(frozen=True)
class Crew:
    """Who trains: `size` processes that share every batch, and what the loop and the saver are in this one."""

    loop: type[ReplicateLoop]
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
    checkpoint_seconds: float = 30.0,
    processes: int = 1,
) -> Training:
    """Train seeds 0 to `seeds` - 1 one after the other; write `model.pth` and `training.json` into `directory`.

    A training of the same data, settings and release that was killed goes on from its last checkpoint, and
    on CPU, with the same number of threads, ends with the same bytes as one never killed. On SIGTERM it saves
    and exits with 143. Random numbers are torch's: a model of your own that draws others is not reproducible.

    With `gpus` of "2" or more, or on the CPU with `processes` of 2 or more, that many processes share each batch;
    the results are those of one but for rounding, and for the random numbers of dropout.

    Raises InputError for settings that do not fit the data and a folder that cannot be written, DeviceError
    for GPUs that are not there, BasekampError for a process that was lost.
    """
    device, n_processes = choose_device(gpus), count_processes(gpus, processes)
    job = Job(
        dataset=dataset,
        directory=directory,
        hyperparameters=hyperparameters,
        metric=metric,
        seeds=seeds,
        gpus=gpus,
        checkpoint_seconds=checkpoint_seconds,
    )
    if n_processes == 1:
        return train_share(job, device, Crew(ReplicateLoop, Saver))
    _check(load_dataset(dataset).schema, metric=metric, seeds=seeds)
    launch(job, n_processes)
    return Training.read(directory)


def train_share(job: Job, device: torch.device, crew: Crew) -> Training:
    """Do this process's share of a job, on its own device; the one that leads writes the results."""
    data, hyperparameters, metric, seeds = load_dataset(job.dataset), job.hyperparameters, job.metric, job.seeds
    _check(data.schema, metric=metric, seeds=seeds)
    build = partial(build_model, hyperparameters, data.schema, prior=_prior(data))
    untrained = build()
    step_size = count_multiplications(untrained, data.schema) * hyperparameters.batch_size // crew.size
    how = {"metric": metric, "seeds": seeds, "device": device, "processes": crew.size}
    checkpoint = _checkpoint_path(data.schema, hyperparameters, **how)
    with fitting_threads(device, step_size=step_size):
        saver = crew.saver(checkpoint, device, seeds=seeds, every_seconds=job.checkpoint_seconds)
        make_loop = partial(crew.loop, build, _on_device(data, device), hyperparameters, metric=metric)
        _train_seeds(make_loop, saver, seeds=seeds, n_epochs=hyperparameters.n_epochs)
        training = Training(
            hyperparameters=hyperparameters.model_dump(),
            metric=metric,
            n_parameters=count_parameters(untrained),
            device=describe_device(device, n_processes=crew.size),
            versions={"basekamp": __version__, "python": platform.python_version(), "torch": torch.__version__},
            replicates=[replicate for _, replicate in saver.finished],
        )
    if crew.leads:
        weights = [weights for weights, _ in saver.finished]
        _write(job.directory, training, _model_bytes(hyperparameters, data.schema, weights))
        saver.remove()
    return training


def load_models(path: Path, device: torch.device) -> tuple[Schema, list[torch.nn.Module]]:
    """Rebuild every replicate of a model file, ready to predict. Reads tensors and plain values only.

    Raises InputError for a file that is no model file of ours.
    """
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        if saved["format"] != MODEL_FORMAT:
            raise ValueError(f"format {saved['format']}, this basekamp reads {MODEL_FORMAT}")
        hyperparameters = Hyperparameters.model_validate(saved["hyperparameters"])
        schema = Schema.model_validate(saved["schema"])
        state_dicts = saved["state_dicts"]
    except Exception as error:
        raise InputError(f"{path} is no model file of basekamp ({type(error).__name__}): train it again.") from error
    models = [build_model(hyperparameters, schema).to(device).eval() for _ in state_dicts]
    for model, state_dict in zip(models, state_dicts, strict=True):
        try:
            model.load_state_dict(state_dict)
        except RuntimeError as error:
            name = hyperparameters.model
            raise InputError(f"{path} does not fit model: {name} as its code is now: train it again.") from error
    return schema, models


def _check(schema: Schema, *, metric: str, seeds: int) -> None:
    allowed = CLASSIFICATION_METRICS if schema.task == "classification" else REGRESSION_METRICS
    if metric not in allowed:
        raise InputError(f"metric: {metric} does not fit a {schema.task} target: use {', '.join(allowed)}.")
    if seeds < 1:
        raise InputError(f"seeds={seeds} is not allowed: use 1 or more.")


def _train_seeds(make_loop: Callable[..., ReplicateLoop], saver: Saver, *, seeds: int, n_epochs: int) -> None:
    """Train the seeds that the saver does not hold yet."""
    with show_progress() as progress, saver.stopping_on_sigterm():
        for seed in range(len(saver.finished), seeds):

            def tell(epochs: int, text: str, before: int = seed * n_epochs) -> None:
                progress(before + epochs, seeds * n_epochs, text)

            loop = make_loop(seed=seed)
            saver.attach(loop)
            saver.finish(*loop.run(after_step=saver.after_step, after_epoch=tell))


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


def _on_device(data: Dataset, device: torch.device) -> TrainingData:
    train, validation, schema = data.split("train"), data.split("validation"), data.schema
    y = np.asarray(train.y)
    if schema.task == "regression":
        y = ((y.astype(np.float64) - schema.target_mean) / schema.target_std).astype(np.float32)
    return TrainingData(
        schema=schema,
        x=torch.tensor(np.asarray(train.x), device=device),
        y=torch.tensor(y, device=device),
        x_validation=torch.tensor(np.asarray(validation.x), device=device),
        targets_validation=np.asarray(validation.y),
    )


def _prior(data: Dataset) -> torch.Tensor:
    """Log class frequencies [k] of the training split, or the standardised mean, which is 0."""
    if data.schema.task == "regression":
        return torch.zeros(1)
    counts = np.bincount(np.asarray(data.split("train").y), minlength=len(data.schema.classes))
    return torch.tensor(np.log(counts / counts.sum()), dtype=torch.float32)


def _checkpoint_path(schema: Schema, hyperparameters: Hyperparameters, **more: object) -> Path:
    """The same training has the same checkpoint, in whichever process or pod it runs."""
    parts = [
        code_version(hyperparameters.model),
        torch.__version__,
        schema.dataset_fingerprint,
        hyperparameters.model_dump_json(),
        repr(sorted(more.items(), key=str)),
    ]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
    return work_directory() / "checkpoints" / f"{key}.pt"


def _model_bytes(hyperparameters: Hyperparameters, schema: Schema, weights: list[State]) -> bytes:
    """Serialise so that equal models are equal bytes.

    Through memory, since torch names its archive after the file; with texts that are objects of their own or
    interned, since a pickle tells whether two equal texts were one object.
    """
    buffer = io.BytesIO()
    torch.save(
        {
            "format": MODEL_FORMAT,
            "hyperparameters": json.loads(hyperparameters.model_dump_json()),
            "schema": json.loads(schema.model_dump_json()),
            "state_dicts": [{sys.intern(name): tensor.cpu() for name, tensor in state.items()} for state in weights],
        },
        buffer,
    )
    return buffer.getvalue()
