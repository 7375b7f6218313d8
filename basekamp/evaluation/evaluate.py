"""Evaluate every replicate of a model file on one split."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from basekamp.data.dataset import Dataset, load_dataset
from basekamp.document import load_document
from basekamp.errors import InputError
from basekamp.evaluation.arrays import MOST_BYTES, load_arrays
from basekamp.evaluation.goals import METRICS
from basekamp.evaluation.metrics import all_metrics
from basekamp.storage import Store
from basekamp.storage.protocol import whole_file, write_whole

EVALUATION_FILE = "evaluation.json"
PREDICTIONS_FILE = "predictions.npz"
DIGITS = 6
ROC_POINTS = 200
MOST_CLASSES_SHOWN = 100

SplitName = Literal["train", "validation", "test"]


class Roc(BaseModel):
    """A ROC curve: false and true positive rates and their thresholds, all finite, at most 200 points."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fpr: list[float]
    tpr: list[float]
    thresholds: list[float]


class Evaluation(BaseModel):
    """What a model does on one split.

    metrics and spread: mean and sample standard deviation over replicates; floor: the metrics of answering the
    training split's majority class, or mean. `shown` is the replicate with the median deciding metric, the one
    that confusion (rows: true classes, columns: predicted; up to 100 classes) and roc (two classes, both of them
    on the split) belong to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: SplitName
    metric: str
    classes: list[str]
    n_examples: int
    metrics: dict[str, float]
    spread: dict[str, float]
    floor: dict[str, float]
    replicates: list[dict[str, float]]
    shown: int
    confusion: list[list[int]]
    roc: Roc | None

    def scorecard(self) -> dict[str, float]:
        """The numbers a run is compared by: the same keys for every run of the same task, finite and rounded."""
        numbers = {
            **self.metrics,
            "spread": self.spread[self.metric],
            "floor": self.floor[self.metric],
            "n_seeds": len(self.replicates),
            "n_examples": self.n_examples,
        }
        return {name: round(float(number), DIGITS) for name, number in numbers.items()}

    def log_scorecard(self, metrics: Any) -> None:
        """Log the scorecard into a Kubeflow `Metrics` artifact, and write its file: without one nothing is cached."""
        for name, value in self.scorecard().items():
            metrics.log_metric(name, value)
        write_whole(Path(metrics.path), json.dumps(self.scorecard(), indent=1))

    def log_classification(self, metrics: Any) -> None:
        """Log confusion matrix and ROC, where there are any, into a `ClassificationMetrics` artifact and its file."""
        if self.confusion:
            metrics.log_confusion_matrix(self.classes, self.confusion)
        if self.roc:
            metrics.log_roc_curve(self.roc.fpr, self.roc.tpr, self.roc.thresholds)
        write_whole(Path(metrics.path), self.model_dump_json(include={"classes", "confusion", "roc"}, indent=1))


class Predictions(BaseModel):
    """Row by row: rows uint64 [n] (hashes), targets [n], outputs float32 [replicates, n, k] or [replicates, n].

    groups uint64 [n]: which rows belong together, where the split was made by groups.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    rows: NDArray[np.uint64]
    targets: NDArray[Any]
    outputs: NDArray[np.float32]
    groups: NDArray[np.uint64] | None = None

    def write(self, path: Path) -> None:
        """Write as a compressed .npz file; raises StoreError."""
        with whole_file(path) as stream:
            np.savez_compressed(stream, **{name: values for name, values in self if values is not None})

    @classmethod
    def fetch(cls, store: Store, key: str) -> "Predictions":
        """Read those under a key; raises InputError, or StoreError."""
        return cls.from_bytes(store.get(key, most_bytes=MOST_BYTES))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Predictions":
        """Read what `write` wrote; nothing pickled is accepted.

        Raises InputError for anything else, and for arrays of more than 2 GiB.
        """
        try:
            predictions = cls(**load_arrays(data, ("rows", "targets", "outputs"), optional=("groups",)))
            predictions._check()
        except ValueError as error:
            raise InputError(f"these are no predictions ({error}): evaluate the model again.") from error
        return predictions

    def _check(self) -> None:
        n = len(self.rows)
        groups = self.rows if self.groups is None else self.groups
        shapes = (self.rows.shape, self.targets.shape, self.outputs.shape[1:2], groups.shape)
        if set(shapes) != {(n,)} or self.outputs.ndim > 3:
            raise ValueError("rows, targets, outputs and groups are not of one number")
        if not np.isfinite(self.outputs).all():
            raise ValueError("an output is NaN or infinite")


def evaluate_model(
    dataset: Path,
    model: Path,
    directory: Path,
    *,
    metric: str,
    split: SplitName = "validation",
    gpus: str = "0",
    examine: bool = False,
) -> Evaluation:
    """Evaluate the model file `model` on a split; write `evaluation.json` and `predictions.npz` into `directory`.

    With `examine` also `network.json`, how the networks are (see basekamp.diagnosis), and `worst.json`, the examples
    that they are most wrong about.
    """
    data = load_dataset(dataset)
    predictions = predict_split(data, model, split=split, gpus=gpus)
    evaluation = judge_predictions(data, predictions, metric=metric, split=split)
    predictions.write(directory / PREDICTIONS_FILE)
    write_whole(directory / EVALUATION_FILE, evaluation.model_dump_json(indent=1))
    if examine:
        from basekamp.diagnosis.network_health import NETWORK_FILE, examine_networks
        from basekamp.evaluation.worst import WORST_FILE, find_worst

        write_whole(directory / NETWORK_FILE, examine_networks(data, model, predictions).model_dump_json(indent=1))
        write_whole(directory / WORST_FILE, find_worst(data, predictions).model_dump_json(indent=1))
    return evaluation


def read_evaluation(directory: Path) -> tuple[Evaluation, Predictions]:
    """Read what `evaluate_model` wrote."""
    evaluation = load_document(Evaluation, directory / EVALUATION_FILE)
    return evaluation, Predictions.from_bytes((directory / PREDICTIONS_FILE).read_bytes())


def predict_split(data: Dataset, model: Path, *, split: SplitName, gpus: str = "0") -> Predictions:
    """Outputs of every replicate of a model file on one split of a data set.

    Raises InputError when an output is NaN or infinite: no metric of it would mean anything.
    """
    import torch

    from basekamp.evaluation.predict import predict
    from basekamp.training.device import choose_device
    from basekamp.training.model_file import load_models

    device = choose_device(gpus)
    _, models = load_models(model, device)
    arrays = data.split(split)
    x = torch.tensor(np.asarray(arrays.x), device=device)
    outputs = np.stack([predict(network, x, data.schema) for network in models])
    if not np.isfinite(outputs).all():
        raise InputError(
            f"the model answers NaN or Inf on the {split} split: train it with a lower lr, or mend its forward."
        )
    groups = None if arrays.groups is None else np.asarray(arrays.groups)
    return Predictions(rows=np.asarray(arrays.rows), targets=np.asarray(arrays.y), outputs=outputs, groups=groups)


def judge_predictions(data: Dataset, predictions: Predictions, *, metric: str, split: SplitName) -> Evaluation:
    """Turn predictions into metrics, spread, confusion matrix and ROC."""
    targets, outputs = predictions.targets, predictions.outputs
    replicates = [all_metrics(targets, one) for one in outputs]
    names = list(replicates[0])
    table = np.array([[one[name] for name in names] for one in replicates])
    mean, variance = mean_and_variance(table)
    shown = int(np.argsort(table[:, names.index(metric)])[len(table) // 2])
    return Evaluation(
        split=split,
        metric=metric,
        classes=list(data.schema.classes),
        n_examples=len(targets),
        metrics=dict(zip(names, mean.tolist(), strict=True)),
        spread=dict(zip(names, np.sqrt(variance).tolist(), strict=True)),
        floor=all_metrics(targets, constant_outputs(data, len(targets))),
        replicates=replicates,
        shown=shown,
        confusion=_confusion(targets, outputs[shown], len(data.schema.classes)),
        roc=_roc(targets, outputs[shown]) if len(data.schema.classes) == 2 else None,
    )


def mean_and_variance(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sample variance over the rows; equal rows have no variance at all, and neither has a single one."""
    apart = table - table[0]  # without it, rounding leaves equal rows a variance
    mean = table[0] + apart.mean(axis=0)
    return mean, apart.var(axis=0, ddof=1) if len(table) > 1 else np.zeros_like(mean)


def constant_outputs(data: Dataset, n: int) -> NDArray[np.float32]:
    """What the majority model (class frequencies) or the mean model of the training split answers, for n rows."""
    y = np.asarray(data.split("train").y)
    if data.schema.task == "regression":
        return np.full(n, y.mean(), dtype=np.float32)
    frequencies = np.bincount(y, minlength=len(data.schema.classes)) / len(y)
    return np.tile(frequencies.astype(np.float32), (n, 1))


def is_better(metric: str, candidate: float, other: float) -> bool:
    """Whether one value of a metric beats another; NaN beats nothing."""
    return candidate > other if METRICS[metric] == "maximize" else candidate < other


def _confusion(targets: NDArray[Any], outputs: NDArray[np.float32], n_classes: int) -> list[list[int]]:
    if not 0 < n_classes <= MOST_CLASSES_SHOWN:
        return []
    cells = np.bincount(targets * n_classes + outputs.argmax(axis=1), minlength=n_classes**2)
    matrix: list[list[int]] = cells.reshape(n_classes, n_classes).tolist()
    return matrix


def _roc(targets: NDArray[Any], outputs: NDArray[np.float32]) -> Roc | None:
    """The curve of the second class, if both are there; scikit-learn's first threshold is inf and becomes 1."""
    from sklearn.metrics import roc_curve

    if (targets == targets[0]).all():
        return None
    fpr, tpr, thresholds = roc_curve(targets, outputs[:, 1])
    kept = np.unique(np.linspace(0, len(fpr) - 1, ROC_POINTS).round().astype(int))
    thresholds = np.minimum(thresholds, 1.0)
    return Roc(
        fpr=fpr[kept].round(DIGITS).tolist(),
        tpr=tpr[kept].round(DIGITS).tolist(),
        thresholds=thresholds[kept].round(DIGITS).tolist(),
    )
