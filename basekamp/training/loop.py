"""One replicate: one training with one seed, which a kill at any moment does not lose.

Shapes: n rows, k outputs. All data stays on the device; nothing is fetched from it inside an epoch.
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from basekamp.data.dataset import Schema
from basekamp.errors import InputError
from basekamp.evaluation.goals import METRICS
from basekamp.evaluation.metrics import metric_value
from basekamp.evaluation.predict import predict
from basekamp.hyperparameters import Hyperparameters
from basekamp.training.results import Curves, Replicate

CURVES = tuple(Curves.model_fields)
State = dict[str, Any]


@dataclass(frozen=True)
class TrainingData:
    """The two splits that training sees, on one device: x as stored, y int64 [n] or standardised float [n]."""

    schema: Schema
    x: Tensor
    y: Tensor
    x_validation: Tensor
    targets_validation: np.ndarray[Any, Any]

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.x.device


@dataclass
class _Position:
    """How far a replicate is: everything beside the network and the optimizer that a resume needs."""

    epoch: int = 0
    step: int = 0
    since_best: int = 0
    best_epoch: int = 0
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    best_weights: State = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CURVES})
    seconds: float = 0.0
    ended: str = ""


class ReplicateLoop:
    """Trains one network with one seed; `run` may be entered again after `load_state`."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        data: TrainingData,
        hyperparameters: Hyperparameters,
        *,
        seed: int,
        metric: str,
    ) -> None:
        torch.manual_seed(seed)
        self.data, self.hyperparameters, self.seed, self.metric = data, hyperparameters, seed, metric
        self.model = build().to(data.device)
        self.optimizer = self._optimizer()
        self.position = _Position()
        self.loss_sum = torch.zeros((), device=data.device)

    def run(
        self, *, after_step: Callable[[], None], after_epoch: Callable[[int, str], None]
    ) -> tuple[State, Replicate]:
        """Train to the end; gives the kept weights and what happened. `after_epoch` gets epochs done and a text."""
        started = time.perf_counter() - self.position.seconds
        if not self.position.curves["validation_loss"]:
            self._validate()
        while not self.position.ended:
            self._epoch(after_step, started)
            after_epoch(self.position.epoch, self._text())
        position = self.position
        replicate = Replicate(
            seed=self.seed,
            n_epochs=position.epoch,
            best_epoch=position.best_epoch,
            seconds=round(position.seconds, 3),
            ended=position.ended,  # type: ignore[arg-type]
            curves=Curves(**position.curves),
        )
        return position.best_weights, replicate

    def state(self) -> State:
        """Everything needed to go on from here bit by bit, as tensors and plain values."""
        cuda = self.data.device.type == "cuda"
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "position": vars(self.position),
            "loss_sum": self.loss_sum,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if cuda else None,
        }

    def load_state(self, state: State) -> None:
        """Go back to where `state` was taken."""
        self.model.load_state_dict(state["model"])
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
        self.position = _Position(**state["position"])
        self.loss_sum = state["loss_sum"]
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"].cpu())

    def _optimizer(self) -> torch.optim.AdamW | None:
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        settings = self.hyperparameters
        if not parameters:
            return None
        return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)

    def _epoch(self, after_step: Callable[[], None], started: float) -> None:
        position, settings = self.position, self.hyperparameters
        if self.optimizer is None:
            position.ended = "finished"
            return
        self.model.train()
        batches = torch.split(self._order(position.epoch), settings.batch_size)
        for rows in batches[position.step :]:
            self._step(rows, total=len(batches) * settings.n_epochs, done=position.epoch * len(batches) + position.step)
            position.step += 1
            position.seconds = time.perf_counter() - started
            after_step()
        train_loss = float(self.loss_sum) / len(batches)
        self.loss_sum.zero_()
        position.epoch, position.step = position.epoch + 1, 0
        if not math.isfinite(train_loss):
            position.ended = "diverged"
            return
        position.curves["train_loss"].append(train_loss)
        position.curves["lr"].append(self.optimizer.param_groups[0]["lr"])
        self._validate()
        if position.ended:
            return
        position.seconds = time.perf_counter() - started
        if position.epoch == settings.n_epochs:
            position.ended = "finished"
        elif settings.patience and position.since_best >= settings.patience:
            position.ended = "early"

    def _step(self, rows: Tensor, *, total: int, done: int) -> None:
        assert self.optimizer is not None
        lr = learning_rate(self.hyperparameters, done / total)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        with _mixed_precision(self.data.device):
            outputs = self.model(self.data.x[rows])
            loss = _loss(outputs, self.data.y[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.loss_sum += loss.detach()

    def _order(self, epoch: int) -> Tensor:
        """The epoch's order of rows, from the seed and the epoch alone."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.data.x), generator=generator).to(self.data.device)

    def _validate(self) -> None:
        """Add a point to the validation curves; keep the weights when best so far, of equals those of lower loss."""
        position = self.position
        outputs = predict(self.model, self.data.x_validation, self.data.schema)
        if not np.isfinite(outputs).all():
            if not position.best_weights:
                raise InputError(
                    f"model: {self.hyperparameters.model} gives NaN or Inf before any training: mend its build."
                )
            position.ended = "diverged"
            return
        value = metric_value(self.metric, self.data.targets_validation, outputs)
        loss = metric_value("loss", self.data.targets_validation, outputs)
        position.curves["validation_loss"].append(loss)
        position.curves["validation_metric"].append(value)
        score = (value if METRICS[self.metric] == "maximize" else -value, -loss)
        position.since_best += 1
        if score > position.best_score:
            position.best_score, position.best_epoch, position.since_best = score, position.epoch, 0
            position.best_weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def _text(self) -> str:
        value = self.position.curves["validation_metric"][-1]
        return f"seed {self.seed}, {self.metric} {value:.4f}"


def learning_rate(hyperparameters: Hyperparameters, progress: float) -> float:
    """The learning rate after the share `progress` (0 to 1) of all steps.

    Source of the cosine: Loshchilov and Hutter, SGDR, 2016, equation 5 without restarts.
    """
    if hyperparameters.schedule == "constant":
        return hyperparameters.lr
    return hyperparameters.lr * 0.5 * (1.0 + math.cos(math.pi * progress))


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy for class indices, mean squared error for numbers."""
    if targets.is_floating_point():
        return functional.mse_loss(outputs[:, 0].float(), targets)
    return functional.cross_entropy(outputs.float(), targets)


def _mixed_precision(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()
