"""What may be wrong with the data, measured once for a data set on bounded samples of it."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from basekamp.data.dataset import CountedIn, Dataset, Schema

MOST_ROWS, MOST_NAMED, MOST_COLUMNS = 4000, 20, 200
SPLITS = 10
FEWEST_ROWS = 20


class Leak(BaseModel):
    """A column that alone tells the target. score: of a small tree on validation; others: the best of all others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    score: float
    others: float


class Shift(BaseModel):
    """How well training and validation rows are told apart.

    auc: of a classifier, on rows it did not see; noise: its deviation where there is no shift. column: the one that
    differs most, by its population stability index.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    auc: float
    noise: float
    column: str
    stability_index: float


class DataHealth(BaseModel):
    """Facts of a data set. Scores are balanced accuracy (0 is guessing, 1 perfect) or R².

    class_shares: of the training split. repeated: how many validation and test rows are training rows as well, and the
    first of validation's. half and whole: the score of a linear model that learned from half the rows, and from all.
    None where it does not apply.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_shares: dict[str, float]
    repeated: int
    repeated_rows: list[int]
    counted_in: CountedIn = "validation"
    leak: Leak | None
    shift: Shift | None
    n_rows: int
    half: float | None
    whole: float | None


def examine_data(data: Dataset) -> DataHealth:
    """Measure all of it; the same data set gives the same facts."""
    from threadpoolctl import threadpool_limits

    schema = data.schema
    train, validation = _sample(data, "train"), _sample(data, "validation")
    with threadpool_limits(1):  # samples this small gain nothing from more, and lose much beside other work
        shift = _shift(schema, train, validation)
        half, whole = _learning_curve(schema, train, validation)
    repeated = _repeated(data)
    return DataHealth(
        class_shares=_class_shares(data),
        repeated=sum(len(rows) for rows in repeated.values()),
        repeated_rows=data.split("validation").source_rows(repeated["validation"][:MOST_NAMED]),
        counted_in=data.split("validation").counted_in,
        leak=_leak(schema, train, validation) if schema.kind == "tabular" else None,
        shift=shift,
        n_rows=schema.rows["train"],
        half=half,
        whole=whole,
    )


def score_of(task: str, targets: NDArray[Any], answers: NDArray[Any]) -> float:
    """Balanced accuracy between guessing (0) and perfect (1), or R²."""
    if task == "regression":
        spread = float(np.var(targets))
        return 1.0 - float(np.mean((targets - answers) ** 2)) / spread if spread else 0.0
    classes = np.unique(targets)
    if len(classes) < 2:
        return 0.0
    recall = float(np.mean([np.mean(answers[targets == one] == one) for one in classes]))
    return (recall - 1 / len(classes)) / (1 - 1 / len(classes))


def _sample(data: Dataset, split: str) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """A random choice of a split's rows, for they may lie in the order of the source, as flat numbers, and targets."""
    arrays = data.split(split)
    rows = np.random.default_rng(0).permutation(len(arrays.y))[:MOST_ROWS]
    return np.asarray(arrays.x[rows], dtype=np.float32).reshape(len(rows), -1), np.asarray(arrays.y[rows])


def _class_shares(data: Dataset) -> dict[str, float]:
    if data.schema.task == "regression":
        return {}
    y = np.asarray(data.split("train").y)
    shares = np.bincount(y, minlength=len(data.schema.classes)) / max(len(y), 1)
    return dict(zip(data.schema.classes, shares.round(6).tolist(), strict=True))


def _repeated(data: Dataset) -> dict[str, list[int]]:
    """The places of rows whose inputs are those of a training row."""
    known = {row.tobytes() for row in np.ascontiguousarray(data.split("train").x)}
    return {
        split: [i for i, row in enumerate(np.ascontiguousarray(data.split(split).x)) if row.tobytes() in known]
        for split in ("validation", "test")
    }


def _leak(schema: Schema, train: Any, validation: Any) -> Leak | None:
    """The column that alone tells most; None for fewer than two columns or too few rows."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    (x, y), (held, targets) = train, validation
    if x.shape[1] < 2 or len(y) < FEWEST_ROWS:
        return None
    tree = DecisionTreeRegressor if schema.task == "regression" else DecisionTreeClassifier
    scores = []
    for i in range(min(x.shape[1], MOST_COLUMNS)):
        fitted = tree(max_depth=5, min_samples_leaf=3, random_state=0).fit(x[:, [i]], y)
        scores.append(score_of(schema.task, targets, fitted.predict(held[:, [i]])))
    order = np.argsort(scores)[::-1]
    names = [feature.column for feature in schema.features]
    column = names[order[0]]
    others = [scores[i] for i in order if names[i] != column]
    return Leak(column=column, score=round(scores[order[0]], 6), others=round(max(others, default=0.0), 6))


def _shift(schema: Schema, train: Any, validation: Any) -> Shift | None:
    """Two-fold: each half is judged by the classifier that learned from the other. None for too few rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    size = min(len(train[0]), len(validation[0]), MOST_ROWS // 2)
    if size < FEWEST_ROWS:
        return None
    x = np.concatenate([train[0][:size], validation[0][:size]])
    side = np.repeat([0, 1], size)
    fold = np.arange(2 * size) % 2
    told = np.empty(2 * size)
    for held in (0, 1):
        model = HistGradientBoostingClassifier(max_iter=30, max_depth=3, early_stopping=False, random_state=0)
        told[fold == held] = model.fit(x[fold != held], side[fold != held]).predict_proba(x[fold == held])[:, 1]
    auc = float(roc_auc_score(side, told))
    indices = [_stability_index(x[:size, i], x[size:, i]) for i in range(min(x.shape[1], MOST_COLUMNS))]
    worst = int(np.argmax(indices))
    column = schema.features[worst].column if schema.features else f"pixel {worst}"
    noise = math.sqrt((2 * size + 1) / (12 * size * size))  # of an AUC without any shift: Mann and Whitney, 1947
    return Shift(auc=round(auc, 6), noise=round(noise, 6), column=column, stability_index=round(indices[worst], 6))


def _stability_index(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Sum of (p - q) ln(p / q) over the deciles of the first."""
    edges = np.unique(np.quantile(one, np.linspace(0.1, 0.9, 9)))
    shares = [
        (np.bincount(np.searchsorted(edges, side), minlength=len(edges) + 1) + 0.5)
        / (len(side) + 0.5 * len(edges) + 0.5)
        for side in (one, other)
    ]
    return float(np.sum((shares[0] - shares[1]) * np.log(shares[0] / shares[1])))


def _learning_curve(schema: Schema, train: Any, validation: Any) -> tuple[float | None, float | None]:
    """The mean score, on a fifth held out, of linear models that learned from four fifths, and from half of these."""
    x, y = (np.concatenate(pair)[-MOST_ROWS:] for pair in zip(train, validation, strict=True))
    if len(y) < FEWEST_ROWS:
        return None, None
    chance, scores = np.random.default_rng(0), []
    for _ in range(SPLITS):
        held, learned = np.split(chance.permutation(len(y)), [len(y) // 5])
        for rows in (learned[: len(learned) // 2], learned):
            scores.append(_linear_score(schema, x[rows], y[rows], x[held], y[held]))
    return round(float(np.mean(scores[::2])), 6), round(float(np.mean(scores[1::2])), 6)


def _linear_score(schema: Schema, x: Any, y: Any, held: Any, targets: Any) -> float:
    from sklearn.linear_model import Ridge, RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if schema.task == "classification" and len(np.unique(y)) < 2:
        return 0.0
    model = make_pipeline(StandardScaler(), Ridge() if schema.task == "regression" else RidgeClassifier())
    return score_of(schema.task, targets, model.fit(x, y).predict(held))
