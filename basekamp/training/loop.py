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
from basekamp.hyperparameters import Hyperparameters, is_own_model
from basekamp.models.build import n_outputs, one_line
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
        """Train to the end; gives the kept weights and what happened.

        `after_epoch` gets a text and the epochs done; an end before the last epoch counts as all of them.
        """
        position, n_epochs = self.position, self.hyperparameters.n_epochs
        started = time.perf_counter() - position.seconds
        if not position.curves["validation_loss"]:
            self._start()
            after_epoch(n_epochs if position.ended else 0, self._text())
        while not position.ended:
            self._epoch(after_step, started)
            after_epoch(n_epochs if position.ended else position.epoch, self._text())
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
        self.loss_sum = state["loss_sum"].to(self.data.device)
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"].cpu())

    def _optimizer(self) -> torch.optim.AdamW | None:
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        settings = self.hyperparameters
        if not parameters:
            return None
        return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)

    def _start(self) -> None:
        """Judge the untrained model: epoch 0. A model without parameters is finished with it."""
        if is_own_model(self.hyperparameters.model):
            self._try_own_model()
        if not self._validate():
            raise InputError(
                f"model: {self.hyperparameters.model} gives NaN or Inf before any training: mend its build."
            )
        if self.optimizer is None:
            self.position.ended = "finished"

    def _epoch(self, after_step: Callable[[], None], started: float) -> None:
        """Train what is left of one epoch and judge it; an epoch that diverged leaves no point in the curves."""
        assert self.optimizer is not None
        position = self.position
        batches = self._batches(position.epoch)
        total = len(batches) * self.hyperparameters.n_epochs
        self.model.train()
        for rows in batches[position.step :]:
            self._step(rows, progress=(position.epoch * len(batches) + position.step) / total)
            position.step += 1
            position.seconds = time.perf_counter() - started
            after_step()
        train_loss = float(self.loss_sum) / len(self.data.x)
        self.loss_sum.zero_()
        position.epoch, position.step = position.epoch + 1, 0
        if math.isfinite(train_loss) and self._validate():
            position.curves["train_loss"].append(train_loss)
            position.curves["lr"].append(self.optimizer.param_groups[0]["lr"])
            position.ended = self._reason_to_end()
        else:
            position.ended = "diverged"
        position.seconds = time.perf_counter() - started

    def _reason_to_end(self) -> str:
        position, settings = self.position, self.hyperparameters
        if position.epoch == settings.n_epochs:
            return "finished"
        return "early" if settings.patience and position.since_best >= settings.patience else ""

    def _step(self, rows: Tensor, *, progress: float) -> None:
        """Take one step; the summed loss of the rows stays on the device."""
        assert self.optimizer is not None
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.hyperparameters, progress)
        self.optimizer.zero_grad()
        summed_loss = self._backward(rows)
        self.optimizer.step()
        self.loss_sum += summed_loss

    def _backward(self, rows: Tensor) -> Tensor:
        """Compute the gradients of the rows' mean loss; gives their summed loss."""
        with mixed_precision(self.data.device):
            outputs = self.model(self.data.x[rows])
            loss = mean_loss(outputs, self.data.y[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach() * len(rows)

    def _batches(self, epoch: int) -> list[Tensor]:
        """The epoch's batches of row numbers, from the seed and the epoch alone.

        A single row left over joins the batch before it: layers such as BatchNorm cannot train on one row.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.data.x), generator=generator).to(self.data.device)
        batches = list(torch.split(order, self.hyperparameters.batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1 < len(batches[-2]):
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def _try_own_model(self) -> None:
        """Run the user's own network on two rows, so that what is wrong with it is said in one sentence."""
        name, needed = self.hyperparameters.model, [2, n_outputs(self.data.schema)]
        try:
            with torch.no_grad():
                given = list(self.model.eval()(self.data.x_validation[:2]).shape)
        except Exception as error:
            raise InputError(f"model: {name} fails on a batch ({one_line(error)}): mend its forward.") from error
        if given != needed:
            raise InputError(f"model: {name} gives {given} for 2 rows: let it give {needed}, one column per output.")

    def _validate(self) -> bool:
        """Judge the model: False, and nothing else, when its outputs are not finite.

        Adds a point to the validation curves and keeps the weights when best so far, of equals those of lower loss.
        """
        position = self.position
        outputs = predict(self.model, self.data.x_validation, self.data.schema)
        if not np.isfinite(outputs).all():
            return False
        value = metric_value(self.metric, self.data.targets_validation, outputs)
        loss = metric_value("loss", self.data.targets_validation, outputs)
        position.curves["validation_loss"].append(loss)
        position.curves["validation_metric"].append(value)
        score = (value if METRICS[self.metric] == "maximize" else -value, -loss)
        position.since_best += 1
        if score > position.best_score:
            position.best_score, position.best_epoch, position.since_best = score, position.epoch, 0
            position.best_weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return True

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


def mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy for class indices, mean squared error for numbers."""
    if targets.is_floating_point():
        return functional.mse_loss(outputs[:, 0].float(), targets)
    return functional.cross_entropy(outputs.float(), targets)


def mixed_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Compute in bfloat16 where that is fast."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()
