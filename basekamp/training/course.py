"""Who trains and how each fares: members of a stack, their curves, and what becomes of them."""

import math
from dataclasses import dataclass, field
from typing import Any

from basekamp.evaluation.goals import METRICS
from basekamp.hyperparameters import Hyperparameters
from basekamp.training.results import Curves, Replicate

CURVES = tuple(Curves.model_fields)
State = dict[str, Any]


@dataclass(frozen=True)
class Member:
    """One network of a stack: its seed and settings. Within a stack only lr, weight_decay and dropout may differ."""

    seed: int
    hyperparameters: Hyperparameters


@dataclass
class Course:
    """How a member fares: everything beside its numbers that a resume needs, and at last its result."""

    n_epochs: int = 0
    since_best: int = 0
    best_epoch: int = 0
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    best_weights: State = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CURVES})
    seconds: float = 0.0
    ended: str = ""

    def note(self, done: int, metric: str, value: float, loss: float) -> bool:
        """Take down what it came to after `done` epochs; gives whether that is the best so far."""
        self.curves["validation_metric"].append(value)
        self.curves["validation_loss"].append(loss)
        score = (value if METRICS[metric] == "maximize" else -value, -loss)
        self.since_best += 1
        if score <= self.best_score:
            return False
        self.best_score, self.best_epoch, self.since_best = score, done, 0
        return True

    def value(self, metric: str) -> float:
        """The deciding metric of its best epoch."""
        return self.best_score[0] if METRICS[metric] == "maximize" else -self.best_score[0]

    def copy(self) -> State:
        """Its values, which no later epoch changes."""
        return {**vars(self), "curves": {name: list(values) for name, values in self.curves.items()}}

    def replicate(self, seed: int) -> Replicate:
        """What became of it, once it has ended."""
        return Replicate(
            seed=seed,
            n_epochs=self.n_epochs,
            best_epoch=self.best_epoch,
            seconds=round(self.seconds, 3),
            ended=self.ended,  # type: ignore[arg-type]
            curves=Curves(**self.curves),
        )
