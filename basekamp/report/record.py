"""One record whole, for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from basekamp.records.record import Record
from basekamp.records.shelf import Row
from basekamp.records.side_by_side import cost, provenance
from basekamp.report.numbers import change, number, printable, setting
from basekamp.report.performance import performance_rows


def record_table(record: Record, *, price: str = "") -> Table:
    """Everything worth reading of one record: what came out, its settings, how it ran, where it came from.

    price: for an hour of a device, such as "2.5 EUR"; with it the cost is told.
    """
    ran = dict(performance_rows(record.training.performance))
    paid = cost(record, price)
    return _in_parts(
        {
            "result": _result(record),
            "settings": record.params,
            "how it ran": {name: value for name, value in ran.items() if name != "device"}
            | ({"cost": f"{paid} at {price} an hour"} if paid else {}),
            "where it came from": {"created": record.created.isoformat(), **provenance(record), "key": record.key},
        }
    )


def imported_table(row: Row) -> Table:
    """What is known of a result from elsewhere."""
    results = {name: number(value) for name, value in row.metrics.items()}
    return _in_parts({"result, imported": {"attempt": row.attempt, **results}, "settings": row.params})


def _in_parts(parts: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for title, told in parts.items():
        if told:
            table.add_row(Text(title, style="dim"))
        for key, value in told.items():
            table.add_row(escape(f"  {key}"), escape(printable(setting(value))))
    return table


def _result(record: Record) -> dict[str, str]:
    evaluation, comparison, opening = record.evaluation, record.comparison, record.opening
    told = {"experiment": record.experiment, "attempt": record.attempt}
    if record.hypothesis:
        told["hypothesis"] = record.hypothesis
    if comparison:
        told["verdict"] = f"{comparison.verdict}: {comparison.sentence}"
    seeds = len(evaluation.replicates)
    for name, value in evaluation.metrics.items():
        told[name] = f"{number(value)} ± {change(evaluation.spread[name])} over {seeds} seeds"
    if opening:
        passed = "passed" if opening.passed else "not passed"
        mean = number(opening.metrics[record.metric])
        told["test split"] = f"{record.metric} {mean}, gate {passed}, opening {opening.number}"
    return told
