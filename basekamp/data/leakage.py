"""How the answer may get into what is measured: a column that gives the target away, rows, groups or time that leak.

Facts are measured while the data are prepared, for only then all rows and columns are there; `basekamp.data.checks`
judges them. Source rows are numbered from 1, the first after a header.

n rows, d columns, k values of a column, c classes.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.data.dataset import SPLITS, Dataset, Schema
from basekamp.data.split import Hashes, hash_images
from basekamp.data.table import BATCH_VALUES, Table
from basekamp.document import Strict

LEAKAGE_FILE = "leakage.json"
MOST_ROWS, MOST_NAMED, MOST_COLUMNS = 4000, 20, 200
FEWEST_ROWS = 20
LEAK_SCORE, LEAK_MARGIN = 0.95, 0.15
"""A column that reaches this alone, and by so much more than every other, tells what it should not know."""

FEWEST_VALUES, MOST_PER_VALUE = 20, 100
"""Of a column that could number groups: fewer values are a category, more rows of each as well."""

MOST_CELLS = 20_000_000
GROUP_GAIN, GROUP_DEVIATIONS, SHUFFLES = 0.1, 5, 20
IN_ORDER = 0.95
"""Rank correlation of a date and the place in the source from which the rows count as a log."""


class Leak(Strict):
    """A column that alone tells the target. score: of a small tree on validation; others: the best of all others."""

    column: str
    score: float
    others: float

    @property
    def is_clear(self) -> bool:
        """Whether it stands out so far that the column hardly can be known when the model is used."""
        return self.score >= LEAK_SCORE and self.score - self.others >= LEAK_MARGIN


class GroupLeak(Strict):
    """A column whose rows belong together, on both sides of the split.

    score: of answering with the commonest (or mean) target of the training rows of the same value; neighbours: the same
    with the values before and after it. shared: the share of validation rows whose value has training rows. rows: two
    source rows of one value, a training and a validation row.
    """

    column: str
    score: float
    neighbours: float
    shared: float
    rows: tuple[int, int]


class TimeLeak(Strict):
    """A date that orders the source's rows.

    order: their rank correlation; older: the share of validation rows that are older than the newest training row.
    """

    column: str
    order: float
    older: float


class Leakage(Strict):
    """All facts of a data set. repeated_rows: source rows of a training row and of the held-out row that repeats it."""

    feature: Leak | None
    repeated: int
    repeated_rows: list[tuple[int, int]]
    groups: list[GroupLeak]
    time: TimeLeak | None


class Rows(NamedTuple):
    """All clean rows [n]: inputs before encoding (None for images), the source's dates, targets, side of the split.

    numbers: the row of the source, from 1; hashes: of the inputs after encoding; per_value: how many training rows of
    each input share a value, on average. Of a table a few columns at a time are read.
    """

    inputs: Table | None
    dates: Table | None
    y: NDArray[Any]
    numbers: NDArray[np.int64]
    sides: NDArray[np.int8]
    hashes: Hashes
    per_value: dict[str, float]


def find_leakage(data: Dataset, rows: Rows, *, is_random: bool) -> Leakage:
    """Measure all of it; without `is_random` (a split by group) neither groups nor time are looked at."""
    numbers = [rows.numbers[rows.sides == side] for side in range(len(SPLITS))]
    repeated = repeated_rows({name: rows.hashes[rows.sides == side] for side, name in enumerate(SPLITS)})
    pairs = [
        (int(numbers[0][known]), int(numbers[side][place]))
        for side, name in enumerate(SPLITS)
        if name != "train"
        for place, known in zip(*repeated[name], strict=True)
    ]
    feature = None
    if data.schema.kind == "tabular":
        feature = leaking_feature(data.schema, flat_sample(data, "train"), flat_sample(data, "validation"))
    looks_further = is_random and rows.inputs is not None
    return Leakage(
        feature=feature,
        repeated=len(pairs),
        repeated_rows=pairs[:MOST_NAMED],
        groups=_group_leaks(data.schema, rows) if looks_further else [],
        time=_time_leak(rows) if looks_further else None,
    )


def flat_sample(data: Dataset, name: str) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """A random choice of a split's rows, for they may lie in the order of the source, as flat numbers, and targets."""
    x, y = data.sample(name, MOST_ROWS)
    return x.reshape(len(x), -1).astype(np.float32), y


def leaking_feature(schema: Schema, train: Any, validation: Any) -> Leak | None:
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


def repeated_rows(splits: dict[str, Hashes]) -> dict[str, tuple[list[int], list[int]]]:
    """Places in each other split of rows whose hashes are those of a training row, and the places of these."""
    known = pl.DataFrame({"hash": splits["train"]}).with_row_index("known")
    found = {}
    for name, hashes in splits.items():
        if name == "train":
            continue
        rows = pl.DataFrame({"hash": hashes}).with_row_index("place").join(known, on="hash", how="semi")
        twins = known.join(rows, on="hash", how="semi").unique("hash", keep="first")
        pairs = rows.join(twins, on="hash").sort("place")
        found[name] = (pairs["place"].to_list(), pairs["known"].to_list())
    return found


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


def row_hashes(x: NDArray[Any]) -> Hashes:
    """Hash rows [n] of encoded inputs batch by batch, for they may be more than fit in memory."""
    hashes, rows = np.empty(len(x), np.uint64), max(1, BATCH_VALUES // x[0].size)
    for start in range(0, len(hashes), rows):
        some = np.ascontiguousarray(x[start : start + rows])
        hashes[start : start + rows] = hash_images(some.view(np.uint8).reshape(len(some), -1))
    return hashes


def _group_leaks(schema: Schema, rows: Rows) -> list[GroupLeak]:
    """Columns whose values tell more as names than by their order: what is true of one is not true of the next."""
    assert rows.inputs is not None
    names = [
        name
        for name, dtype in rows.inputs.schema.items()
        if (dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum))
        and rows.per_value[name] <= 2 * MOST_PER_VALUE
    ]
    return [leak for leak in rows.inputs.map_columns(partial(_group_leak, schema, rows), names) if leak]


def _group_leak(schema: Schema, rows: Rows, column: pl.Series) -> GroupLeak | None:
    known = column.drop_nulls()
    distinct = known.n_unique()
    if not (FEWEST_VALUES <= distinct <= len(known) / 2 and len(known) <= distinct * MOST_PER_VALUE):
        return None
    text = column if column.dtype.is_integer() else column.cast(pl.String)
    values = text.rank("dense").fill_null(0).to_numpy().astype(np.int64)
    train, held = ((rows.sides == side) & (values > 0) for side in (0, 1))
    sums = _sums(schema, values[train], rows.y[train], int(values.max()) + 2)
    counts = np.bincount(values[train], minlength=int(values.max()) + 2)
    held &= counts[values] > 0
    if sums is None or held.sum() < FEWEST_ROWS:
        return None
    shared = float(held.sum() / ((rows.sides == 1) & (values > 0)).sum())
    targets, place = rows.y[held], values[held]
    answers = _answers(sums[place], counts[place], schema.task)
    beside = _answers(sums[place - 1] + sums[place + 1], counts[place - 1] + counts[place + 1], schema.task)
    score, neighbours = (score_of(schema.task, targets, told) for told in (answers, beside))
    chance = np.random.default_rng(0)
    noise = np.std([score_of(schema.task, targets, chance.permutation(answers)) for _ in range(SHUFFLES)])
    if shared < 0.5 or min(score, score - neighbours) < max(GROUP_GAIN, GROUP_DEVIATIONS * float(noise)):
        return None
    first = int(np.flatnonzero(held)[0])
    twin = int(np.flatnonzero(train & (values == values[first]))[0])
    pair = (int(rows.numbers[twin]), int(rows.numbers[first]))
    told = {"score": round(score, 6), "neighbours": round(neighbours, 6), "shared": round(shared, 6)}
    return GroupLeak(column=column.name, rows=pair, **told)


def _sums(schema: Schema, values: NDArray[np.int64], y: NDArray[Any], k: int) -> NDArray[np.float64] | None:
    """Per value the rows of each class [k, c], or the sum of the target [k, 1]; None where that is too large."""
    if schema.task == "regression":
        return np.bincount(values, weights=y.astype(np.float64), minlength=k)[:, None].astype(np.float64)
    c = len(schema.classes)
    return np.bincount(values * c + y, minlength=k * c).reshape(k, c).astype(np.float64) if k * c < MOST_CELLS else None


def _answers(sums: NDArray[np.float64], counts: NDArray[np.int64], task: str) -> NDArray[Any]:
    told: NDArray[Any] = sums[:, 0] / counts.clip(min=1) if task == "regression" else sums.argmax(1)
    return told


def _time_leak(rows: Rows) -> TimeLeak | None:
    """The date that orders the source's rows most."""
    leaks = rows.dates.map_columns(partial(_order, rows)) if rows.dates else ()
    return max((leak for leak in leaks if leak), key=lambda leak: abs(leak.order), default=None)


def _order(rows: Rows, column: pl.Series) -> TimeLeak | None:
    from scipy.stats import spearmanr

    known = column.is_not_null().to_numpy()
    if column.n_unique() < FEWEST_VALUES or known.sum() < len(column) / 2:
        return None
    times = column.to_physical().fill_null(0).to_numpy()
    sample = np.random.default_rng(0).permutation(np.flatnonzero(known))[:MOST_ROWS]
    order = float(spearmanr(rows.numbers[sample], times[sample]).statistic)
    if abs(order) < IN_ORDER:
        return None
    train, held = (times[known & (rows.sides == side)] for side in (0, 1))
    older = float((held < train.max()).mean()) if len(train) and len(held) else 0.0
    return TimeLeak(column=column.name, order=round(order, 6), older=round(older, 6)) if older > 0.5 else None
