"""Order, choose and group rows of the leaderboard."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl

from basekamp.evaluation.goals import METRICS
from basekamp.naming import Value
from basekamp.records.columns import Column
from basekamp.records.conditions import check_keys, parse_condition
from basekamp.records.shelf import Row
from basekamp.records.table import Rows

COLUMNS = (
    "name",
    "experiment",
    "role",
    "attempt",
    "id",
    "metric",
    "n",
    "spread",
    "difference",
    "verdict",
    "champion",
    "key",
    "lineage",
)


def joined(parts: Iterable[Sequence[Row]]) -> Sequence[Row]:
    """The rows of all parts, as columns where all are of one listing."""
    parts = [part for part in parts if part]
    listed = [part for part in parts if isinstance(part, Rows)]
    if listed and len(listed) == len(parts):
        return reduce(Rows.and_then, listed)
    return [row for part in parts for row in part]


def best_first(rows: Iterable[Row]) -> Sequence[Row]:
    """Experiments by name, the present lineage first; in each the baseline, then by the deciding metric, NaN last."""
    rows = rows if isinstance(rows, Sequence) else list(rows)
    role, value = _column(rows, "role"), _deciding(rows)
    order = {
        "experiment": _column(rows, "experiment").texts,
        "lineage": -_column(rows, "lineage").numbers,
        "role": role.texts != "baseline",
        **value,
        "id": _column(rows, "id").texts,
    }
    return _sorted(rows, order)


def select_rows(
    rows: Sequence[Row], conditions: Sequence[str], sort_key: str | None = None, *, top: int | None = None
) -> Sequence[Row]:
    """Keep the rows that meet every condition; sort by a key if one is given; keep the first `top`.

    Metrics and the difference sort best first, all else rises; '-' before the key turns that round. NaN and missing
    values come last either way.

    Raises InputError for what is no condition (see basekamp.records.conditions), or a key that no row has.
    """
    known = columns(rows)
    for text in conditions:
        condition, keys = parse_condition(text)
        _check(rows, keys, known)
        rows = _take(rows, np.flatnonzero(condition(partial(_column, rows))))
    if sort_key is not None:
        key, is_reversed = sort_key.removeprefix("-"), sort_key.startswith("-")
        _check(rows, [key], known)
        rows = _sorted(rows, _order(rows, key), descending=[False, is_reversed, is_reversed])
    return rows[:top]


@dataclass(frozen=True)
class Group:
    """Rows that agree in the keys asked for. mean, spread and interval are of all their replicates as one sample.

    With n_i replicates of mean m_i and standard deviation s_i in row i, N in all and M their mean, the variance is
    (sum (n_i - 1) s_i^2 + sum n_i (m_i - M)^2) / (N - 1), and the interval Student's at 95 %. Where a row of several
    replicates does not tell its spread, or there is one replicate in all, both are NaN.
    """

    values: dict[str, Value | None]
    metric: str
    rows: int
    n: int
    mean: float
    spread: float
    interval: tuple[float, float]


def group_rows(rows: Sequence[Row], keys: Sequence[str]) -> list[Group]:
    """Put rows of one deciding metric that agree in every key together; best mean first, NaN last.

    Raises InputError for a key that no row has.
    """
    _check(rows, keys, columns(rows))

    def place(row: Row) -> tuple[object, ...]:
        return row.metric, *(repr(value_of(row, key)) for key in keys)

    found = [_group(list(alike), keys) for _, alike in groupby(sorted(rows, key=place), key=place)]
    return sorted(found, key=lambda group: (group.metric, math.isnan(group.mean), rank(group.mean, group.metric)))


def rank(value: float, metric: str) -> float:
    """A number that is smaller for what is better, where that is known."""
    return -value if METRICS.get(metric) == "maximize" else value


def columns(rows: Sequence[Row]) -> list[str]:
    """Every key that a row can be asked for."""
    told = rows.known_keys() if isinstance(rows, Rows) else (one for row in rows for one in (*row.params, *row.metrics))
    return list(dict.fromkeys([*COLUMNS, *told]))


def _group(rows: list[Row], keys: Sequence[str]) -> Group:
    from scipy.special import stdtrit

    n = sum(row.n for row in rows)
    mean = sum(row.n * row.value for row in rows) / n
    within = sum((row.n - 1) * row.spread**2 for row in rows if row.n > 1)
    between = sum(row.n * (row.value - mean) ** 2 for row in rows)
    spread = math.sqrt((within + between) / (n - 1)) if n > 1 else math.nan
    half = float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n) if n > 1 else math.nan
    values = {key: value_of(rows[0], key) for key in keys}
    return Group(values, rows[0].metric, len(rows), n, mean, spread, (mean - half, mean + half))


def value_of(row: Row, key: str) -> Value | None:
    """What a row has under a key; None where it has nothing."""
    if key in row.params:
        return row.params[key]
    if key in row.metrics:
        return row.metrics[key]
    value: Value | None = getattr(row, key) if key in COLUMNS else None
    return value


def _column(rows: Sequence[Row], key: str) -> Column:
    return rows.column(key) if isinstance(rows, Rows) else Column.of(value_of(row, key) for row in rows)


def _order(rows: Sequence[Row], key: str) -> dict[str, Any]:
    """What sorts by a key: numbers before texts before missing ones; better values first where that is known."""
    deciding = _column(rows, "metric").texts if key == "difference" else pl.repeat(key, len(rows), eager=True)
    return _ranked(_column(rows, key), deciding)


def _deciding(rows: Sequence[Row]) -> dict[str, Any]:
    """What sorts by the deciding metric."""
    values = rows.deciding() if isinstance(rows, Rows) else Column.of(row.value for row in rows)
    return _ranked(values, _column(rows, "metric").texts)


def _ranked(values: Column, metrics: pl.Series) -> dict[str, Any]:
    places, numbers, texts = values.ranks()
    is_gain = metrics.is_in([name for name, goal in METRICS.items() if goal == "maximize"]).to_numpy()
    return {"place": places, "number": np.where(is_gain, -numbers, numbers), "text": texts}


def _sorted(rows: Sequence[Row], by: dict[str, Any], *, descending: bool | list[bool] = False) -> Sequence[Row]:
    """The rows in the order of these columns; those that are alike in all of them stay as they are."""
    down = descending if isinstance(descending, list) else [descending] * len(by)
    frame = pl.DataFrame(by)
    telling = [(name, is_down) for name, is_down in zip(by, down, strict=True) if frame[name].n_unique() > 1]
    if not telling:
        return rows
    places = pl.arg_sort_by(
        [name for name, _ in telling], descending=[is_down for _, is_down in telling], maintain_order=True
    )
    return _take(rows, frame.select(places).to_series())


def _take(rows: Sequence[Row], places: Any) -> Sequence[Row]:
    return rows.take(np.asarray(places)) if isinstance(rows, Rows) else [rows[i] for i in places]


def _check(rows: Sequence[Row], keys: Sequence[str], known: Sequence[str]) -> None:
    if rows:
        check_keys(keys, known)
