"""What may be wrong with the data, measured once for a data set on bounded samples of it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from basekamp.data.dataset import SPLITS, CountedIn, Dataset, Schema
from basekamp.data.leakage import (
    FEWEST_ROWS,
    MOST_COLUMNS,
    MOST_NAMED,
    MOST_ROWS,
    Leak,
    flat_sample,
    leaking_feature,
    repeated_rows,
    row_hashes,
    score_of,
)
from basekamp.data.two_samples import separability, stability_index

DRAWS = 10


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
    splits = {name: data.split(name) for name in SPLITS}
    train, validation = flat_sample(data, "train"), flat_sample(data, "validation")
    with threadpool_limits(1):  # samples this small gain nothing from more, and lose much beside other work
        shift = _shift(schema, train, validation)
        half, whole = _learning_curve(schema, train, validation)
    repeated = repeated_rows({name: row_hashes(arrays.x) for name, arrays in splits.items()})
    return DataHealth(
        class_shares=_class_shares(data),
        repeated=sum(len(rows) for rows, _ in repeated.values()),
        repeated_rows=splits["validation"].source_rows(repeated["validation"][0][:MOST_NAMED]),
        counted_in=splits["validation"].counted_in,
        leak=leaking_feature(schema, train, validation) if schema.kind == "tabular" else None,
        shift=shift,
        n_rows=schema.rows["train"],
        half=half,
        whole=whole,
    )


def _class_shares(data: Dataset) -> dict[str, float]:
    if data.schema.task == "regression":
        return {}
    y = np.asarray(data.split("train").y)
    shares = np.bincount(y, minlength=len(data.schema.classes)) / max(len(y), 1)
    return dict(zip(data.schema.classes, shares.round(6).tolist(), strict=True))


def _shift(schema: Schema, train: Any, validation: Any) -> Shift | None:
    """None for too few rows."""
    told = separability(train[0], validation[0])
    if told is None:
        return None
    size = min(len(train[0]), len(validation[0]), MOST_ROWS // 2)
    x, held = train[0][:size], validation[0][:size]
    indices = [_decile_index(x[:, i], held[:, i]) for i in range(min(x.shape[1], MOST_COLUMNS))]
    worst = int(np.argmax(indices))
    column = schema.features[worst].column if schema.features else f"pixel {worst}"
    return Shift(auc=told[0], noise=told[1], column=column, stability_index=round(indices[worst], 6))


def _decile_index(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The stability index over the deciles of the first."""
    edges = np.unique(np.quantile(one, np.linspace(0.1, 0.9, 9)))
    return stability_index(
        *(np.bincount(np.searchsorted(edges, side), minlength=len(edges) + 1) for side in (one, other))
    )


def _learning_curve(schema: Schema, train: Any, validation: Any) -> tuple[float | None, float | None]:
    """The mean score, on a fifth held out, of linear models that learned from four fifths, and from half of these."""
    x, y = (np.concatenate(pair)[-MOST_ROWS:] for pair in zip(train, validation, strict=True))
    if len(y) < FEWEST_ROWS:
        return None, None
    chance, scores = np.random.default_rng(0), []
    for _ in range(DRAWS):
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
