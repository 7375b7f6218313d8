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
    "lineage",
)


def best_first(rows: Iterable[Row]) -> list[Row]:
    """Experiments by name, the present lineage first; in each the baseline, then by the deciding metric, NaN last."""

    def order(row: Row) -> tuple[object, ...]:
        return row.experiment, -row.lineage, row.role != "baseline", _order(row, row.metric), row.id

    return sorted(rows, key=order)


def select_rows(rows: Sequence[Row], conditions: Sequence[str], sort_key: str | None) -> list[Row]:
    """Keep the rows that meet every KEY=VALUE condition; sort by a key if one is given, missing values last.

    Numbers are compared as numbers, so that lr=1e-3 finds 0.001. Metrics and the difference sort best first.

    Raises InputError for a condition without '=', or a key that no row has.
    """
    kept = list(rows)
    for condition in conditions:
        key, found, wanted = condition.partition("=")
        if not found:
            raise InputError(f"{condition} is no KEY=VALUE condition: write, say, model=mlp.")
        _check_key(rows, key)
        kept = [row for row in kept if _is(_value(row, key), wanted)]
    if sort_key is not None:
        _check_key(rows, sort_key)
        kept.sort(key=lambda row: _order(row, sort_key))
    return kept


def _value(row: Row, key: str) -> Value | None:
    if key in row.params:
        return row.params[key]
    if key in row.metrics:
        return row.metrics[key]
    value: Value | None = getattr(row, key) if key in COLUMNS else None
    return value


def _order(row: Row, key: str) -> tuple[int, float, str]:
    """Numbers before texts before missing ones; better values first where that is known."""
    value = _value(row, key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return 2, 0.0, ""
    if isinstance(value, str):
        return 1, 0.0, value
    is_better_high = METRICS.get(row.metric if key == "difference" else key) == "maximize"
    return 0, -value if is_better_high else value, ""


def _is(value: Value | None, wanted: str) -> bool:
    if isinstance(value, bool):
        return str(value).lower() == wanted.lower()
    if value is None or isinstance(value, str):
        return (value or "") == wanted
    try:
        return value == float(wanted)
    except ValueError:
        return False


def _check_key(rows: Sequence[Row], key: str) -> None:
    known = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in (*row.params, *row.metrics))]))
    if rows and key not in known:
        raise InputError(f"{key} is no column of these records: use one of {', '.join(known)}.")
