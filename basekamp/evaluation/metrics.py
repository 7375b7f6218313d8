"""The metrics, each a number from targets and outputs.

Shapes: n rows, k classes. Classification: targets int64 [n], outputs float32 [n, k] probabilities.
Regression: targets float32 [n], outputs float32 [n] in the target's own unit.
`metric_values` takes outputs of K networks, with a leading dimension K.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basekamp.evaluation.goals import CLASSIFICATION_METRICS, REGRESSION_METRICS

Array = NDArray[np.generic]
SMALLEST_PROBABILITY = 1e-7


def metric_value(name: str, targets: Array, outputs: Array) -> float:
    """Compute one metric by its name in `METRICS`."""
    return float(_METRICS["loss_squared" if name == "loss" and outputs.ndim == 1 else name](targets, outputs))


def metric_values(name: str, targets: Array, outputs: Array) -> NDArray[np.float64]:
    """Compute one metric of each of K networks [K]; the usual ones for all networks at once."""
    together = _TOGETHER.get("loss_squared" if name == "loss" and outputs.ndim == 2 else name)
    if together is not None:
        return np.asarray(together(targets, outputs), dtype=np.float64)
    return np.array([metric_value(name, targets, one) for one in outputs])


def all_metrics(targets: Array, outputs: Array) -> dict[str, float]:
    """Compute every metric that fits the task, told by the outputs' shape."""
    names = CLASSIFICATION_METRICS if outputs.ndim == 2 else REGRESSION_METRICS
    return {name: metric_value(name, targets, outputs) for name in names}


def _accuracy(targets: Array, outputs: Array) -> Any:
    return np.mean(outputs.argmax(axis=-1) == targets, axis=-1)


def _balanced_accuracy(targets: Array, outputs: Array) -> float:
    """Mean recall over the classes that the targets hold."""
    right, true, _ = _counts(targets, outputs)
    return float(np.mean(right[true > 0] / true[true > 0]))


def _f1(targets: Array, outputs: Array) -> float:
    """Mean over classes of F1; a class neither present nor predicted is left out."""
    right, true, predicted = _counts(targets, outputs)
    known = true + predicted > 0
    return float(np.mean(2 * right[known] / (true + predicted)[known]))


def _counts(targets: Array, outputs: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows per class [k]: answered rightly, with this target, with this answer."""
    answers, n_classes = outputs.argmax(axis=1), outputs.shape[1]
    rows = (answers[answers == targets], targets.astype(np.int64), answers)
    right, true, predicted = (np.bincount(each, minlength=n_classes) for each in rows)
    return right, true, predicted


def _auc(targets: Array, outputs: Array) -> float:
    """Area under the ROC curve; with more than two classes, the mean of each present class against the rest.

    0.5 where the targets hold a single class.
    """
    labels = [1] if outputs.shape[1] == 2 else np.unique(targets).tolist()
    return float(np.mean([_area(outputs[:, label], targets == label) for label in labels]))


def _area(scores: Array, is_positive: NDArray[np.bool_]) -> float:
    """The chance that a positive row scores above a negative one, equal scores counting half."""
    positive, negative = np.sort(scores[is_positive]), np.sort(scores[~is_positive])
    if not len(positive) or not len(negative):
        return 0.5
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(np.mean(below)) / 2 / len(negative)


def _cross_entropy(targets: Array, outputs: Array) -> Any:
    """Mean negative log-likelihood, in nats; a probability counts as no less than 1e-7."""
    likelihood = outputs[..., np.arange(len(targets)), targets.astype(np.int64)]
    return -np.mean(np.log(np.clip(likelihood.astype(np.float64), SMALLEST_PROBABILITY, 1.0)), axis=-1)


def _errors(targets: Array, outputs: Array) -> NDArray[np.float64]:
    return outputs.astype(np.float64) - targets.astype(np.float64)


def _mean_squared_error(targets: Array, outputs: Array) -> Any:
    return np.mean(_errors(targets, outputs) ** 2, axis=-1)


def _r2(targets: Array, outputs: Array) -> Any:
    """1 - residual variance over the targets' variance; 0 for the mean itself and for a constant target."""
    variance = float(np.var(targets.astype(np.float64)))
    return 1.0 - _mean_squared_error(targets, outputs) / variance if variance else 0.0


_TOGETHER: dict[str, Callable[[Array, Array], Any]] = {
    "accuracy": _accuracy,
    "loss": _cross_entropy,
    "loss_squared": _mean_squared_error,
    "rmse": lambda targets, outputs: _mean_squared_error(targets, outputs) ** 0.5,
    "mae": lambda targets, outputs: np.mean(np.abs(_errors(targets, outputs)), axis=-1),
    "r2": _r2,
}
_METRICS: dict[str, Callable[[Array, Array], Any]] = {
    **_TOGETHER,
    "balanced_accuracy": _balanced_accuracy,
    "f1": _f1,
    "auc": _auc,
}
