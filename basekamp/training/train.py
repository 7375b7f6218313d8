"""Train an attempt: k replicates of one set of hyperparameters, to one model file."""

import hashlib
import io
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from basekamp import __version__
from basekamp.data.dataset import Dataset, Schema, load_dataset
from basekamp.errors import InputError
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.build import build_model, count_parameters
from basekamp.training.checkpoint import read_checkpoint, write_checkpoint
from basekamp.training.device import choose_device, describe_device
from basekamp.training.loop import ReplicateLoop, State, TrainingData
from basekamp.training.progress import Progress, show_progress
from basekamp.training.results import MODEL_FILE, Replicate, Training
from basekamp.work import work_directory

MODEL_FORMAT = 1


def train_model(
    dataset: Path,
    directory: Path,
    hyperparameters: Hyperparameters,
    *,
    metric: str,
    seeds: int = 3,
    gpus: str = "0",
    checkpoint_seconds: float = 30.0,
) -> Training:
    """Train seeds 0 to `seeds` - 1 one after the other; write `model.pth` and `training.json` into `directory`.

    A training of the same data, settings and release that was killed goes on from its last checkpoint, and
    on CPU ends with the same bytes as one never killed. On SIGTERM it saves and exits with 143.

    Raises InputError for settings that do not fit the data, DeviceError for a GPU that is not there.
    """
    data = load_dataset(dataset)
    device = choose_device(gpus)
    tensors = _on_device(data, device)
    prior = _prior(data)

    def build() -> torch.nn.Module:
        return build_model(hyperparameters, data.schema, prior=prior)

    key = _checkpoint_key(data.schema, hyperparameters, metric=metric, seeds=seeds, device=device)
    saver = _Saver(work_directory() / "checkpoints" / f"{key}.pt", device, every_seconds=checkpoint_seconds)
    with show_progress() as progress, saver.stopping_on_sigterm():
        for seed in range(len(saver.finished), seeds):
            loop = ReplicateLoop(build, tensors, hyperparameters, seed=seed, metric=metric)
            saver.attach(loop)
            saver.finish(
                *loop.run(after_step=saver.after_step, after_epoch=_telling(progress, hyperparameters, seed, seeds))
            )
    training = Training(
        hyperparameters=hyperparameters.model_dump(),
        metric=metric,
        n_parameters=count_parameters(build()),
        device=describe_device(device),
        versions={"basekamp": __version__, "python": platform.python_version(), "torch": torch.__version__},
        replicates=[replicate for _, replicate in saver.finished],
    )
    directory.mkdir(parents=True, exist_ok=True)
    weights = [weights for weights, _ in saver.finished]
    (directory / MODEL_FILE).write_bytes(_model_bytes(hyperparameters, data.schema, weights))
    training.write(directory)
    saver.path.unlink(missing_ok=True)
    return training


def load_models(path: Path, device: torch.device) -> tuple[Schema, list[torch.nn.Module]]:
    """Rebuild every replicate of a model file, ready to predict. Reads tensors and plain values only.

    Raises InputError for a file that is no model file of ours.
    """
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        hyperparameters = Hyperparameters.model_validate(saved["hyperparameters"])
        schema = Schema.model_validate(saved["schema"])
        state_dicts = saved["state_dicts"]
    except Exception as error:
        raise InputError(f"{path} is no model file of basekamp ({type(error).__name__}): train it again.") from error
    models = []
    for state_dict in state_dicts:
        model = build_model(hyperparameters, schema).to(device)
        model.load_state_dict(state_dict)
        models.append(model.eval())
    return schema, models


class _Saver:
    """Keeps finished replicates and the running one in one checkpoint file, at most every few seconds."""

    def __init__(self, path: Path, device: torch.device, *, every_seconds: float) -> None:
        self.path, self.every_seconds, self.saved_at = path, every_seconds, time.monotonic()
        self.finished: list[tuple[State, Replicate]] = []
        self.running: State | None = None
        self.loop: ReplicateLoop | None = None
        self.stop = False
        state = read_checkpoint(path, device=device)
        if state is not None:
            self.finished = [(weights, Replicate.model_validate(told)) for weights, told in state["finished"]]
            self.running = state["running"]
            print(f"Resuming from a checkpoint: {len(self.finished)} of the seeds are trained.", flush=True)

    def attach(self, loop: ReplicateLoop) -> None:
        self.loop = loop
        if self.running is not None:
            loop.load_state(self.running)
            self.running = None

    def after_step(self) -> None:
        if self.stop:
            self.save()
            sys.exit(128 + signal.SIGTERM)
        if time.monotonic() - self.saved_at >= self.every_seconds:
            self.save()

    def finish(self, weights: State, replicate: Replicate) -> None:
        if replicate.ended == "diverged":
            print(f"Seed {replicate.seed} diverged in epoch {replicate.n_epochs}: its best earlier weights are kept.")
        self.finished.append((weights, replicate))
        self.loop = None
        self.save()

    def save(self) -> None:
        finished = [(weights, replicate.model_dump()) for weights, replicate in self.finished]
        running = self.loop.state() if self.loop else None
        write_checkpoint(self.path, {"finished": finished, "running": running})
        self.saved_at = time.monotonic()

    @contextmanager
    def stopping_on_sigterm(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask_to_stop(_signal: int, _frame: Any) -> None:
            self.stop = True

        before = signal.signal(signal.SIGTERM, ask_to_stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _telling(progress: Progress, hyperparameters: Hyperparameters, seed: int, seeds: int) -> Callable[[int, str], None]:
    n_epochs = hyperparameters.n_epochs
    return lambda epochs, text: progress(seed * n_epochs + epochs, seeds * n_epochs, text)


def _on_device(data: Dataset, device: torch.device) -> TrainingData:
    train, validation, schema = data.split("train"), data.split("validation"), data.schema
    y = np.asarray(train.y)
    if schema.task == "regression":
        y = ((y - schema.target_mean) / schema.target_std).astype(np.float32)
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


def _checkpoint_key(schema: Schema, hyperparameters: Hyperparameters, **more: object) -> str:
    """The same training has the same key, in whichever process or pod it runs."""
    parts = [
        __version__,
        schema.dataset_fingerprint,
        hyperparameters.model_dump_json(),
        repr(sorted(more.items(), key=str)),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _model_bytes(hyperparameters: Hyperparameters, schema: Schema, weights: list[State]) -> bytes:
    """Serialise through memory: torch names its archive after the file, and equal models must be equal bytes."""
    buffer = io.BytesIO()
    torch.save(
        {
            "format": MODEL_FORMAT,
            "hyperparameters": hyperparameters.model_dump(mode="json"),
            "schema": schema.model_dump(mode="json"),
            "state_dicts": [{name: tensor.cpu() for name, tensor in state.items()} for state in weights],
        },
        buffer,
    )
    return buffer.getvalue()
