"""The leaderboard as people and programs read it: in a terminal, as CSV, Markdown and JSON."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from basekamp.errors import InputError
from basekamp.evaluation.goals import METRICS
from basekamp.naming import Value, id_time
from basekamp.records import leaderboard as records
from basekamp.records.shelf import Row, Shelf
from basekamp.report.markdown import markdown_table
from basekamp.report.numbers import change, number, printable, setting

VERDICT_STYLES = {"supported": "green", "refuted": "red", "inconclusive": "yellow"}


@dataclass(frozen=True)
class Sheet:
    """A table for a file: headings, and lines of values; None where there is none. `texts` counts the first columns."""

    heads: list[str]
    lines: list[list[Value | None]]
    texts: int


def changing_params(rows: Sequence[Row]) -> list[str]:
    """The hyperparameters that are not alike in all rows, as far as the names tell: the only ones worth a column."""
    keys = list(dict.fromkeys(key for row in rows for key in row.params))
    telling = {key: [row for row in rows if key in row.params or not row.cut] for key in keys}
    return [key for key in keys if len({repr(row.params.get(key)) for row in telling[key]}) > 1]


def leaderboard(rows: Sequence[Row], *, width: int) -> Group:
    """One line a record, in the order given: what differs, the metric, the difference and the verdict.

    Every differing hyperparameter has a column of its own where `width` characters allow, else they follow below.
    """
    params = changing_params(rows)
    wide = _table(rows, params)
    if not params or Console(width=10_000).measure(wide).maximum <= width:
        return Group(wide)
    settings = Table(box=None, header_style="bold", pad_edge=False)
    settings.add_column("attempt", no_wrap=True)
    settings.add_column("what differs", overflow="fold")
    for row in rows:
        told = " ".join(f"{key}={_cell(row, key)}" for key in params if key in row.params)
        settings.add_row(_attempt(row), told)
    return Group(_table(rows, []), Text(), settings)


def _table(rows: Sequence[Row], params: list[str]) -> Table:
    several = len({row.experiment for row in rows}) > 1
    lineages = len({row.lineage for row in rows}) > 1
    metrics = list(dict.fromkeys(row.metric for row in rows))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in (["experiment"] if several else []) + (["lineage"] if lineages else []) + ["attempt", *params]:
        table.add_column(heading, no_wrap=True)
    for heading in (metrics[0] if len(metrics) == 1 else "metric", "± seeds", "n", "difference", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        first = ([row.experiment] if several else []) + ([str(row.lineage)] if lineages else [])
        cells = (_cell(row, key) for key in params)
        table.add_row(*first, _attempt(row), *cells, *_results(row, named=len(metrics) > 1))
    return table


def rows_as_sheet(rows: Sequence[Row], *, only_changed: bool = False) -> Sheet:
    """One column for each hyperparameter and metric of any row; `only_changed` leaves out what is alike in all."""
    params = changing_params(rows) if only_changed else list(dict.fromkeys(key for row in rows for key in row.params))
    metrics = list(dict.fromkeys(key for row in rows for key in row.metrics))
    named = ["name", "experiment", "role", "attempt", *params]
    results = ["n", "spread", "difference", "low", "high", "verdict", "champion", "key", "lineage"]

    def line(row: Row) -> list[Value | None]:
        low, high = row.interval or (None, None)
        measured = [row.n, None if math.isnan(row.spread) else row.spread, row.difference, low, high]
        return (
            [row.name, row.experiment, row.role, row.attempt]
            + [row.params.get(key) for key in params]
            + [row.metrics.get(key) for key in metrics]
            + [*measured, row.verdict, row.champion, row.key, row.lineage]
        )

    lines = [line(row) for row in rows]
    heads = [*named, *metrics, *results]
    if only_changed and len(lines) > 1:
        kept = [i for i in range(len(heads)) if i == 3 or len({repr(one[i]) for one in lines}) > 1]
        return Sheet([heads[i] for i in kept], [[one[i] for i in kept] for one in lines], _before(kept, len(named)))
    return Sheet(heads, lines, len(named))


def groups_as_sheet(groups: Sequence[records.Group]) -> Sheet:
    """One line a group: what it agrees in, then mean, spread, n and interval."""
    keys = list(groups[0].values) if groups else []
    heads = [*keys, "metric", "mean", "spread", "n", "rows", "low", "high"]
    lines: list[list[Value | None]] = [
        [*one.values.values(), one.metric, one.mean, one.spread, one.n, one.rows, *one.interval] for one in groups
    ]
    return Sheet(heads, [[_finite(value) for value in line] for line in lines], len(keys) + 1)


def rows_as_json(rows: Sequence[Row], *, only_changed: bool = False) -> list[dict[str, Any]]:
    """Rows as plain values; `only_changed` keeps the hyperparameters that are not alike in all of them."""
    keys = (
        "name",
        "experiment",
        "role",
        "attempt",
        "params",
        "metrics",
        "n",
        "spread",
        "difference",
        "interval",
        "verdict",
        "champion",
        "key",
        "lineage",
    )
    told = [_without_nan({key: getattr(row, key) for key in keys}) for row in rows]
    if only_changed:
        params = changing_params(rows)
        told = [one | {"params": {key: one["params"][key] for key in params if key in one["params"]}} for one in told]
    return told


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null is what is not known."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def groups_as_json(groups: Sequence[records.Group]) -> list[dict[str, Any]]:
    """Groups as plain values; None for what is not known."""
    return [
        {key: _finite(value) for key, value in asdict(one).items()} | {"interval": [*map(_finite, one.interval)]}
        for one in groups
    ]


def sheet_as_csv(sheet: Sheet) -> str:
    """A sheet as CSV, the numbers as they are."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(sheet.heads)
    writer.writerows([["" if value is None else value for value in line] for line in sheet.lines])
    return out.getvalue()


def sheet_as_markdown(sheet: Sheet) -> str:
    """A sheet as a Markdown table, the numbers as a person reads them, without what is as long as a file's name."""
    shown = [i for i, head in enumerate(sheet.heads) if head not in ("name", "key")]
    lines = ([_written(line[i]) for i in shown] for line in sheet.lines)
    return markdown_table([sheet.heads[i] for i in shown], lines, left=_before(shown, sheet.texts))


def experiments_table(shelves: Sequence[Shelf]) -> Table:
    """One line an experiment: how far it came, and when it was last worked on."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("experiment", "attempts", "metric", "baseline", "champion", "its metric", "last"):
        is_number = heading in ("attempts", "baseline", "its metric")
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    for shelf in shelves:
        baseline, champion = shelf.baseline, shelf.champion
        attempts = {row.attempt for row in shelf.rows if row.role == "attempt"}
        told = [str(len(attempts)), escape(baseline.metric) if baseline else "–"]
        told += [number(baseline.value) if baseline else "–", escape(printable(champion.attempt)) if champion else "–"]
        told += [number(champion.value) if champion else "–", _last(shelf)]
        table.add_row(escape(printable(shelf.experiment)), *told)
    return table


def groups_table(groups: Sequence[records.Group]) -> Table:
    """Groups for a terminal, numbers as a person reads them."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    keys = list(groups[0].values) if groups else []
    for key in keys:
        table.add_column(escape(key))
    for heading in ("metric", "mean", "± spread", "n", "rows", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "metric" else "right", no_wrap=True)
    for one in groups:
        low, high = one.interval
        told = [number(one.mean), change(one.spread), str(one.n), str(one.rows), f"{number(low)} … {number(high)}"]
        table.add_row(*(escape(printable(setting(one.values[key]))) for key in keys), escape(one.metric), *told)
    return table


def _attempt(row: Row) -> Text:
    name = Text(printable(row.attempt), style="bold" if row.role == "baseline" else "")
    return name.append(" ★", style="yellow") if row.champion else name


def _results(row: Row, *, named: bool) -> list[Text]:
    verdict = Text(row.verdict or row.role, style=VERDICT_STYLES.get(row.verdict or "", "dim"))
    value = f"{row.metric} {row.value:.4f}" if named else f"{row.value:.4f}"
    spread = "–" if math.isnan(row.spread) else f"{row.spread:.4f}"
    measured = [Text(value), Text(spread), Text(str(row.n))]
    if row.difference is None or row.interval is None:
        return [*measured, Text("–"), Text("–"), verdict]
    gain = row.difference if METRICS.get(row.metric, "maximize") == "maximize" else -row.difference
    color = "green" if gain > 0 else "red" if gain < 0 else ""
    arrow = "▲" if row.difference > 0 else "▼" if row.difference < 0 else " "
    low, high = row.interval
    return [*measured, Text(f"{arrow} {row.difference:+.4f}", style=color), Text(f"{low:+.4f} … {high:+.4f}"), verdict]


def _cell(row: Row, key: str) -> str:
    """A hyperparameter's value; – where the model has none, … where the name was cut and only the JSON tells."""
    if key not in row.params:
        return "…" if row.cut else "–"
    value = row.params[key]
    return escape(f"{value:g}" if isinstance(value, float) else printable(str(value)))


def _last(shelf: Shelf) -> str:
    """The day of the latest record; empty where ids are of another origin."""
    try:
        return f"{id_time(shelf.every[-1].id):%Y-%m-%d}" if shelf.every else ""
    except (InputError, ValueError):
        return ""


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _written(value: Value | None) -> str:
    return number(value) if isinstance(value, float) else setting(value)


def _before(kept: Iterable[int], end: int) -> int:
    return sum(i < end for i in kept)
