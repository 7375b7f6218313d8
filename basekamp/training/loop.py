"""Trains a stack of networks epoch by epoch; a kill at any moment loses nothing that was saved.

Shapes: K networks, n rows, k outputs. The rows of a step are [n] where all networks see the same (one network, or all
of one seed), else [K, n]. Nothing is fetched from the device inside an epoch.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from basekamp.errors import InputError
from basekamp.evaluation.metrics import metric_values
from basekamp.evaluation.predict import predict
from basekamp.hyperparameters import Hyperparameters, is_own_model
from basekamp.models.build import n_outputs, one_line
from basekamp.models.layers import next_keys
from basekamp.training.augment import augmentation
from basekamp.training.course import Course, Member, State
from basekamp.training.cuda_graph import Stepper
from basekamp.training.device import is_mixed_precision
from basekamp.training.feed import TrainingData
from basekamp.training.loss import mean_losses
from basekamp.training.meter import Meter
from basekamp.training.optimizer import StackedAdamW, clip_gradients
from basekamp.training.stack import Stack
from basekamp.training.steps import Epochs, Step


class StackLoop:
    """Trains members together; `run` may be entered again, and after `load_state`.

    `after_step` is called between steps and between the parts of a validation; it may save, and leave by an exception.
    Without `keeps_weights` only the curves are kept. `meter` is told what the time goes to.
    """

    def __init__(
        self,
        build: Callable[[Hyperparameters], nn.Module],
        data: TrainingData,
        members: Sequence[Member],
        *,
        metric: str,
        keeps_weights: bool = True,
        meter: Meter | None = None,
    ) -> None:
        self.data, self.metric, self.keeps_weights = data, metric, keeps_weights
        self.meter = meter or Meter(data.device)
        self.members, self.courses = tuple(members), [Course() for _ in members]
        self.alive = list(range(len(members)))
        self.hyperparameters = members[0].hyperparameters
        self.augment = augmentation(self.hyperparameters, data.schema, data.device)
        self.epochs = Epochs(self.hyperparameters, len(data.y), data.device, self.augment)
        networks = [self._built(build, member) for member in members]
        self.stack = Stack(networks, channels_last=data.schema.kind == "image")
        settings = [member.hyperparameters for member in members]
        self.optimizer = StackedAdamW(self.stack, settings) if self.stack.n_trained else None
        self.average = self.stack.storage.clone() if self.hyperparameters.ema else None
        self.loss_sums = torch.zeros(len(members), device=data.device)
        self.epoch = self.step = 0
        self.has_started = False
        self.after_step: Callable[[], None] = lambda: None
        self.stepper = self._stepper()
        self.marked_at: float | None = None

    def run(self, *, after_epoch: Callable[[], None] = lambda: None, until: int | None = None) -> None:
        """Train until every member has ended, or has `until` epochs behind it."""
        if not self.alive:
            return
        self.marked_at = time.perf_counter()
        self.stack.set_keys([self.members[place].seed for place in self.alive], steps=self.steps_done())
        try:
            if not self.has_started:
                self._start()
                after_epoch()
            while self.alive and (until is None or self.epoch < until):
                self._epoch()
                after_epoch()
        finally:
            self.data.feed.end()
            self._share_time()
            self.marked_at = None

    def end(self, places: Sequence[int], how: str) -> None:
        """End members between two epochs."""
        for place in places:
            self.courses[place].ended = how
        self._drop_ended()

    def state(self) -> State:
        """A copy of everything needed to go on from here bit by bit, as tensors and plain values."""
        self._share_time()
        moments = self.optimizer.state() if self.optimizer and self.alive else {}
        return {
            "has_started": self.has_started,
            "alive": list(self.alive),
            "epoch": self.epoch,
            "step": self.step,
            "courses": [course.copy() for course in self.courses],
            "storage": self.stack.snapshot() if self.alive else torch.empty(0),
            "shared": {name: tensor.clone() for name, tensor in self.stack.shared().items()},
            "moments": {name: tensor.clone() for name, tensor in moments.items()},
            "average": None if self.average is None else self.average.clone(),
            "loss_sums": self.loss_sums.clone(),
        }

    def load_state(self, state: State) -> None:
        """Go back to where `state` was taken."""
        self.has_started, self.epoch, self.step = state["has_started"], state["epoch"], state["step"]
        self.alive, self.courses = list(state["alive"]), [Course(**course) for course in state["courses"]]
        if not self.alive:
            return
        if len(self.alive) < self.stack.size:
            self.stack.keep(self.alive)
        self.stack.storage.copy_(state["storage"])
        for name, tensor in self.stack.shared().items():
            tensor.copy_(state["shared"][name])
        if self.optimizer:
            settings = [self.members[place].hyperparameters for place in self.alive]
            self.optimizer = StackedAdamW(self.stack, settings, state["moments"])
        self.average = None if state["average"] is None else state["average"].to(self.data.device)
        self.loss_sums = state["loss_sums"].to(self.data.device)
        self.stepper = self._stepper()

    def try_batch(self, size: int) -> None:
        """Compute the gradients of that many rows, and forget them; raises what that raises."""
        rows = torch.arange(size, device=self.data.device)
        self.data.feed.begin([rows])
        self.stack.train()
        self._backward(self._steps()[0]._replace(rows=rows, draws=None))

    def who(self) -> str:
        """Which seeds train, as a text."""
        seeds = sorted({self.members[place].seed for place in self.alive} or {member.seed for member in self.members})
        return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"

    def text(self) -> str:
        """One short text for the progress: who trains, and the mean of the deciding metric."""
        curves = [course.curves["validation_metric"] for course in self.courses]
        values = [curve[-1] for curve in curves if curve]
        return f"{self.who()}, {self.metric} {sum(values) / len(values):.4f}"

    def _built(self, build: Callable[[Hyperparameters], nn.Module], member: Member) -> nn.Module:
        torch.manual_seed(member.seed)
        network = build(member.hyperparameters).to(self.data.device)
        if is_own_model(member.hyperparameters.model):
            self._try(network)
        return network

    def _try(self, network: nn.Module) -> None:
        """Run the user's own network on two rows, so that what is wrong with it is said in one sentence."""
        name, needed = self.hyperparameters.model, [2, n_outputs(self.data.schema)]
        try:
            with torch.no_grad():
                given = list(network.eval()(self.data.x_validation[:2].to(self.data.device)).shape)
        except Exception as error:
            raise InputError(f"model: {name} fails on a batch ({one_line(error)}): mend its forward.") from error
        if given != needed:
            raise InputError(f"model: {name} gives {given} for 2 rows: let it give {needed}, one column per output.")

    def _start(self) -> None:
        """Judge the untrained networks: epoch 0. Those without parameters are finished with it."""
        with self.meter.spending("validation"):
            ended = self._judge(None)
        if "diverged" in ended:
            raise InputError(
                f"model: {self.hyperparameters.model} gives NaN or Inf before any training: mend its build."
            )
        self.has_started = True
        if self.optimizer is None:
            self.end(self.alive, "finished")

    def _epoch(self) -> None:
        """Train what is left of one epoch and judge it; for whom it diverged it leaves no point in the curves."""
        with self.meter.spending("compute"):
            train_losses = self._take_steps()
        with self.meter.spending("validation"):
            ended = self._judge(train_losses)
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sums.zero_()
        for place, how in zip(self.alive, ended, strict=True):
            course = self.courses[place]
            course.n_epochs, course.ended = self.epoch, how
            if how == "diverged":
                lost = f"Seed {self.members[place].seed} diverged in epoch {self.epoch} (its loss is NaN or Inf)"
                print(f"{lost}: the weights of epoch {course.best_epoch} are kept.", flush=True)
        self._share_time()
        self._drop_ended()

    def _take_steps(self) -> list[float]:
        """Take the steps that are left of the epoch; gives each network's mean loss, which waits for the device."""
        steps = self._steps()[self.step :]
        self.data.feed.begin([step.rows for step in steps])
        self.stack.train()
        for step in steps:
            if self.stepper is None:
                self._take(step)
            else:
                self.stepper(step.tensors())
            self.step += 1
            self.meter.rows += step.rows.shape[-1] * len(self.alive)
            self.after_step()
        train_losses: list[float] = (self.loss_sums / len(self.data.y)).tolist()
        return train_losses

    def _judge(self, train_losses: Sequence[float] | None) -> list[str]:
        """Judge the networks alive on the validation split; gives how each ended, "" for one that goes on.

        A finite one gets a point in its curves, and is kept when best so far, of equals the one of lower loss. Without
        train_losses it is epoch 0.
        """
        ended = []
        with self._averaged():
            outputs = predict(
                self.stack, self.data.x_validation, self.data.schema, device=self.data.device, between=self.after_step
            )
            outputs = outputs if self.stack.size > 1 else outputs[np.newaxis]
            values = metric_values(self.metric, self.data.targets_validation, outputs)
            losses = metric_values("loss", self.data.targets_validation, outputs)
            is_finite = [bool(np.isfinite(one).all()) for one in outputs]
            for k, place in enumerate(self.alive):
                train_loss = 0.0 if train_losses is None else train_losses[k]
                if not (is_finite[k] and math.isfinite(train_loss)):
                    ended.append("diverged")
                    continue
                self._note(k, float(values[k]), float(losses[k]))
                if train_losses is not None:
                    self._note_training(place, train_loss)
                ended.append("" if train_losses is None else self._reason_to_end(self.courses[place]))
        return ended

    def _note(self, k: int, value: float, loss: float) -> None:
        """Take down what a network came to, and keep it when it is the best so far."""
        course, done = self.courses[self.alive[k]], self.epoch + 1 if self.has_started else 0
        if course.note(done, self.metric, value, loss) and self.keeps_weights:
            course.best_weights = self.stack.state_dict(k)

    def _note_training(self, place: int, train_loss: float) -> None:
        last = self.epochs.last_rate(self.epoch)
        curves = self.courses[place].curves
        curves["train_loss"].append(train_loss)
        curves["lr"].append(self.members[place].hyperparameters.lr * last)

    def _reason_to_end(self, course: Course) -> str:
        settings = self.hyperparameters
        if self.epoch + 1 == settings.n_epochs:
            return "finished"
        return "early" if settings.patience and course.since_best >= settings.patience else ""

    def _steps(self) -> list[Step]:
        """The steps of the present epoch."""
        return self.epochs.steps(self.epoch, [self.members[place].seed for place in self.alive])

    def _take(self, step: Step) -> None:
        """Take one step; the summed loss of its rows stays on the device."""
        assert self.optimizer is not None
        self.stack.gradients.zero_()
        self.loss_sums += self._backward(step)
        if self.hyperparameters.clip_norm:
            clip_gradients(self.stack, self.hyperparameters.clip_norm)
        self.optimizer.step(step.rate)
        if self.average is not None:
            self.average.lerp_(self.stack.storage, step.follow)
        next_keys(self.stack.keys)

    def _backward(self, step: Step) -> Tensor:
        """Add up the gradients of each network's mean loss; gives the rows' summed losses [K]."""
        x, y = self._batch(step)
        with self._mixed_precision():
            outputs = self.stack(x, own_rows=step.rows.dim() == 2)
            losses = mean_losses(outputs, y, label_smoothing=self.hyperparameters.label_smoothing)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach() * step.rows.shape[-1]

    def _batch(self, step: Step) -> tuple[Tensor, Tensor]:
        outer = self.meter.turn_to("data")
        x = self.data.feed.take(step.rows)
        self.meter.turn_to(outer)
        if self.augment is not None and step.draws is not None:
            x = self.augment(x, step.draws)
        return x, self.data.y[step.rows]

    def _mixed_precision(self) -> AbstractContextManager[Any]:
        """Compute in bfloat16 on a GPU, or where it is asked for."""
        device = self.data.device
        is_mixed = is_mixed_precision(self.hyperparameters.precision, device)
        return torch.autocast(device.type, dtype=torch.bfloat16) if is_mixed else nullcontext()

    def _stepper(self) -> Stepper | None:
        """What takes steps as a CUDA graph when that pays; only for rows that lie on the GPU."""
        if self.data.device.type != "cuda" or not self.data.feed.is_resident or self.optimizer is None:
            return None
        left = len(self.epochs.sizes) * self.hyperparameters.n_epochs - self.steps_done()
        return Stepper(lambda tensors: self._take(Step.of(tensors)), left)

    def _averaged(self) -> AbstractContextManager[None]:
        """Judge and keep the averaged weights where there are any."""
        return nullcontext() if self.average is None else self.stack.holding(self.average)

    def _drop_ended(self) -> None:
        """Go on with the networks whose members have not ended."""
        kept = [k for k, place in enumerate(self.alive) if not self.courses[place].ended]
        if len(kept) == len(self.alive):
            return
        self.alive = [self.alive[k] for k in kept]
        if not kept:
            return
        select = self.stack.selection(kept)
        self.stack.keep(kept)
        if self.optimizer:
            self.optimizer.keep(kept, select)
        if self.average is not None:
            self.average = select(self.average)
        self.loss_sums = self.loss_sums[kept]
        self.stepper = self._stepper()

    def steps_done(self) -> int:
        """How many steps were taken so far."""
        return self.epoch * len(self.epochs.sizes) + self.step

    def _share_time(self) -> None:
        """Add the time since the last call to the members alive, in equal shares; nothing while it does not run."""
        if self.marked_at is None:
            return
        now = time.perf_counter()
        for place in self.alive:
            self.courses[place].seconds += (now - self.marked_at) / len(self.alive)
        self.marked_at = now
