"""Order, choose and group rows of the leaderboard."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from basekamp.evaluation.goals import METRICS
from basekamp.naming import Value
from basekamp.records.conditions import check_keys, parse_condition
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


def select_rows(
    rows: Sequence[Row], conditions: Sequence[str], sort_key: str | None = None, *, top: int | None = None
) -> list[Row]:
    """Keep the rows that meet every condition; sort by a key if one is given; keep the first `top`.

    Metrics and the difference sort best first, all else rises; '-' before the key turns that round. NaN and missing
    values come last either way.

    Raises InputError for what is no condition (see basekamp.records.conditions), or a key that no row has.
    """
    kept, known = list(rows), columns(rows)
    for text in conditions:
        condition, keys = parse_condition(text)
        _check(rows, keys, known)
        kept = [row for row in kept if condition(lambda key, row=row: value_of(row, key))]  # type: ignore[misc]
    if sort_key is not None:
        key, is_reversed = sort_key.removeprefix("-"), sort_key.startswith("-")
        _check(rows, [key], known)
        kept.sort(key=lambda row: _order(row, key), reverse=is_reversed)
        kept.sort(key=lambda row: _order(row, key)[0])
    return kept[:top]


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
    return list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in (*row.params, *row.metrics))]))


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


def _order(row: Row, key: str) -> tuple[int, float, str]:
    """Numbers before texts before missing ones; better values first where that is known."""
    value = value_of(row, key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return 2, 0.0, ""
    if isinstance(value, str):
        return 1, 0.0, value
    return 0, rank(value, row.metric if key == "difference" else key), ""


def _check(rows: Sequence[Row], keys: Sequence[str], known: Sequence[str]) -> None:
    if rows:
        check_keys(keys, known)
