"""A condition that was found, what it was found in, and the attempt that could follow."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from basekamp.data.dataset import CountedIn
from basekamp.diagnosis.data_health import DataHealth
from basekamp.diagnosis.network_health import NetworkHealth
from basekamp.hyperparameters import Hyperparameters, settings_read_by
from basekamp.naming import Value
from basekamp.records.record import Record

Severity = Literal["critical", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")

FEW_EPOCHS = 4
"""With fewer a curve has no shape."""


@dataclass(frozen=True)
class Finding:
    """One condition: what was seen, and the next idea as settings that differ from this result's, with its reason."""

    condition: str
    severity: Severity
    sentence: str
    evidence: dict[str, float]
    hypothesis: str
    settings: dict[str, Value] = field(default_factory=dict)
    rows: tuple[int, ...] = ()
    counted_in: CountedIn = "validation"


@dataclass(frozen=True)
class Case:
    """What is known of one result; curves are means over the replicates."""

    record: Record

    @property
    def data(self) -> DataHealth | None:
        """Facts of the data set."""
        return self.record.ladder.health if self.record.ladder else None

    @property
    def network(self) -> NetworkHealth | None:
        """Facts of the networks."""
        return self.record.network

    def curve(self, name: str) -> list[float]:
        """The mean over the replicates, as far as all of them went."""
        curves = [getattr(one.curves, name) for one in self.record.training.replicates]
        return [sum(values) / len(values) for values in zip(*curves, strict=False)]

    @property
    def untrained_loss(self) -> float | None:
        """What the training loss begins with: the untrained network's, or the variance of a standardised target."""
        if self.record.data.task == "regression":
            return 1.0
        return next(iter(self.curve("validation_loss")), None)

    def setting(self, name: str, default: float) -> float:
        """A numeric setting of the result."""
        value = self.record.params.get(name, default)
        return float(value) if isinstance(value, int | float) else default

    @property
    def score_name(self) -> str:
        """The metric in which the rungs of the ladder are compared: accuracy or R²."""
        return "r2" if self.record.data.task == "regression" else "accuracy"

    @property
    def lag(self) -> float | None:
        """How far the result lies behind the best rung of its ladder; None without one."""
        ladder, name = self.record.ladder, self.score_name
        if ladder is None or name not in self.record.evaluation.metrics:
            return None
        best = max(rung.metrics[name] for rung in ladder.rungs if name in rung.metrics)
        return best - self.record.evaluation.metrics[name]

    @property
    def gradient_span(self) -> float | None:
        """Log10 of the first layer's gradient over the last one's, before training; None for fewer than 3 layers."""
        layers = self.network.layers if self.network else []
        if len(layers) < 3 or not layers[-1].untrained_gradient:
            return None
        return math.log10(max(layers[0].untrained_gradient, 1e-300) / layers[-1].untrained_gradient)

    @property
    def ended_early(self) -> bool:
        """Whether a replicate stopped before its epochs were over."""
        return any(one.ended == "early" for one in self.record.training.replicates)


def next_attempt(finding: Finding, record: Record) -> dict[str, Any]:
    """The attempt that could follow, as the experiment file has it; empty where the next idea is no setting.

    It keeps what makes the record differ from its baseline, which an attempt is laid over, and changes what the model
    reads of the finding's settings.
    """
    kept = {key: ours for key, (_, ours) in record.differs.items() if ours is not None}
    model = str((record.params | finding.settings)["model"])
    read = set(settings_read_by(model)) - ({"n_layers"} if model == "resnet" else set())  # it has 9 or 18
    changed = {key: value for key, value in finding.settings.items() if key in read}
    if not changed:
        return {}
    options = {key: value for key, value in kept.items() if key not in Hyperparameters.model_fields}
    kept = {key: value for key, value in kept.items() if key in settings_read_by(model)}
    told: dict[str, Any] = {"hypothesis": finding.hypothesis, "expect": 0.01, **kept, **changed}
    return told | ({"options": options} if options and model == record.params["model"] else {})
