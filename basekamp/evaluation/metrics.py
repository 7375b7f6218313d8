"""The metrics, each a number from targets and outputs.

Shapes: n rows, k classes. Classification: targets int64 [n], outputs float32 [n, k] probabilities.
Regression: targets float32 [n], outputs float32 [n] in the target's own unit.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from basekamp.evaluation.goals import CLASSIFICATION_METRICS, REGRESSION_METRICS

Array = NDArray[np.generic]
SMALLEST_PROBABILITY = 1e-7


def metric_value(name: str, targets: Array, outputs: Array) -> float:
    """Compute one metric by its name in `METRICS`."""
    return float(_METRICS["loss_squared" if name == "loss" and outputs.ndim == 1 else name](targets, outputs))


def all_metrics(targets: Array, outputs: Array) -> dict[str, float]:
    """Compute every metric that fits the task, told by the outputs' shape."""
    names = CLASSIFICATION_METRICS if outputs.ndim == 2 else REGRESSION_METRICS
    return {name: metric_value(name, targets, outputs) for name in names}


def _accuracy(targets: Array, outputs: Array) -> float:
    return float(np.mean(outputs.argmax(axis=1) == targets))


def _balanced_accuracy(targets: Array, outputs: Array) -> float:
    """Mean recall over the classes that the targets hold."""
    right = outputs.argmax(axis=1) == targets
    return float(np.mean([np.mean(right[targets == present]) for present in np.unique(targets)]))


def _f1(targets: Array, outputs: Array) -> float:
    """Mean over classes of F1; a class neither present nor predicted is left out."""
    from sklearn.metrics import f1_score

    return float(f1_score(targets, outputs.argmax(axis=1), average="macro", zero_division=0.0))


def _auc(targets: Array, outputs: Array) -> float:
    """Area under the ROC curve; with more than two classes, the mean of each present class against the rest."""
    from sklearn.metrics import roc_auc_score

    if outputs.shape[1] == 2:
        return float(roc_auc_score(targets, outputs[:, 1]))
    present = np.unique(targets)
    return float(np.mean([roc_auc_score(targets == label, outputs[:, int(label)]) for label in present]))


def _cross_entropy(targets: Array, outputs: Array) -> float:
    """Mean negative log-likelihood, in nats; a probability counts as no less than 1e-7."""
    likelihood = outputs[np.arange(len(targets)), targets.astype(np.int64)]
    return float(-np.mean(np.log(np.clip(likelihood.astype(np.float64), SMALLEST_PROBABILITY, 1.0))))


def _errors(targets: Array, outputs: Array) -> NDArray[np.float64]:
    return outputs.astype(np.float64) - targets.astype(np.float64)


def _mean_squared_error(targets: Array, outputs: Array) -> float:
    return float(np.mean(_errors(targets, outputs) ** 2))


def _r2(targets: Array, outputs: Array) -> float:
    """1 - residual variance over the targets' variance; 0 for the mean itself and for a constant target."""
    variance = float(np.var(targets.astype(np.float64)))
    return 1.0 - _mean_squared_error(targets, outputs) / variance if variance else 0.0


_METRICS: dict[str, Callable[[Array, Array], float]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1": _f1,
    "auc": _auc,
    "loss": _cross_entropy,
    "loss_squared": _mean_squared_error,
    "rmse": lambda targets, outputs: _mean_squared_error(targets, outputs) ** 0.5,
    "mae": lambda targets, outputs: float(np.mean(np.abs(_errors(targets, outputs)))),
    "r2": _r2,
}
