"""Order and choose rows of the leaderboard."""

import math
from collections.abc import Iterable, Sequence

from basekamp.errors import InputError
from basekamp.evaluation.goals import METRICS
from basekamp.naming import Value
from basekamp.records.shelf import Row

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
)


def best_first(rows: Iterable[Row]) -> list[Row]:
    """Experiments by name; in each the baseline first, then by the deciding metric, NaN last."""
    return sorted(rows, key=lambda row: (row.experiment, row.role != "baseline", _badness(row), row.id))


def select_rows(rows: Sequence[Row], conditions: Sequence[str], sort_key: str | None) -> list[Row]:
    """Keep the rows that meet every KEY=VALUE condition; sort by a key if one is given, missing values last.

    Raises InputError for a condition without '=', or a key that no row has.
    """
    kept = list(rows)
    for condition in conditions:
        key, found, wanted = condition.partition("=")
        if not found:
            raise InputError(f"{condition} is no KEY=VALUE condition: write, say, model=mlp.")
        _check_key(rows, key)
        kept = [row for row in kept if _as_text(_value(row, key)) == wanted]
    if sort_key is not None:
        _check_key(rows, sort_key)
        kept.sort(key=lambda row: _order(_value(row, sort_key), sort_key))
    return kept


def _badness(row: Row) -> float:
    if math.isnan(row.value):
        return math.inf
    return -row.value if METRICS.get(row.metric, "maximize") == "maximize" else row.value


def _value(row: Row, key: str) -> Value | None:
    if key in row.params:
        return row.params[key]
    if key in row.metrics:
        return row.metrics[key]
    value: Value | None = getattr(row, key) if key in COLUMNS else None
    return value


def _order(value: Value | None, key: str) -> tuple[int, float, str]:
    """Numbers before texts before missing ones; a metric's better values first."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return 2, 0.0, ""
    if isinstance(value, str):
        return 1, 0.0, value
    return 0, -value if METRICS.get(key) == "maximize" else value, ""


def _as_text(value: Value | None) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _check_key(rows: Sequence[Row], key: str) -> None:
    known = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in (*row.params, *row.metrics))]))
    if rows and key not in known:
        raise InputError(f"{key} is no column of these records: use one of {', '.join(known)}.")
