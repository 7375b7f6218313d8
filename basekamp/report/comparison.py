"""Records side by side, in a terminal and as a page."""

import math
from collections.abc import Sequence

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from basekamp.records.record import Record
from basekamp.records.side_by_side import Gap, SideBySide
from basekamp.report import charts
from basekamp.report.leaderboard import VERDICT_STYLES
from basekamp.report.numbers import between, change, direction, number, printable, setting, signed
from basekamp.report.page import render
from basekamp.training.results import Replicate

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 24
CURVES: tuple[charts.Curve, ...] = ("train_loss", "validation_loss", "validation_metric")


def comparison_table(told: SideBySide) -> Group:
    """One column a record: results, the difference from the first, and only what differs."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for record in told.records:
        table.add_column(escape(printable(record.attempt)), overflow="fold")
    for name, cells in _results(told):
        table.add_row(name, *cells)
    for title, differing in (("settings", told.settings), ("provenance", told.provenance)):
        if differing:
            table.add_row(Text(title, style="dim"))
        for key, values in differing.items():
            table.add_row(escape(f"  {key}"), *(escape(printable(setting(value))) for value in values))
    curves = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("learning curve", "attempt", "", "from", "to"):
        curves.add_column(heading, no_wrap=True, justify="right" if heading in ("from", "to") else "left")
    for kind in CURVES:
        for line in _sparks(told.records, kind):
            curves.add_row(*line)
    return Group(table, Text(), curves) if curves.row_count else Group(table)


def comparison_html(told: SideBySide) -> str:
    """Write the page: one file, light and dark, loading nothing. The same input gives the same bytes."""
    trainings = [record.training for record in told.records]
    return render(
        "comparison.html",
        told=told,
        records=told.records,
        metrics=list(dict.fromkeys(name for record in told.records for name in record.evaluation.metrics)),
        charts={kind: charts.curves_chart(kind, trainings) for kind in CURVES},
        colors=[charts.curve_color(i) for i in range(len(told.records))],
        chance=chance,
    )


def chance(gap: Gap) -> str:
    """P(better) in per cent, never 0 or 100; why it is not known where it is not."""
    if gap.p_better is None:
        return "–"
    percent = 100 * gap.p_better
    return "> 99.9 %" if percent > 99.9 else "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %"


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """Values from `low` to `high` as blocks, at most 24 of them; a gap where a value is not finite."""
    step = max(1, math.ceil(len(values) / SPARK_WIDTH))
    shown = [*values[:-1:step], *values[-1:]]
    span = (high - low) or 1.0
    return "".join(BLOCKS[min(7, int(8 * (value - low) / span))] if math.isfinite(value) else " " for value in shown)


def _results(told: SideBySide) -> list[tuple[str, list[Text]]]:
    verdicts = [
        Text(record.verdict or record.role, style=VERDICT_STYLES.get(record.verdict or "", "dim"))
        for record in told.records
    ]
    lines = [("id", [Text(record.id) for record in told.records]), ("verdict", verdicts)]
    for name in dict.fromkeys(name for record in told.records for name in record.evaluation.metrics):
        lines.append((name, [_measured(record, name) for record in told.records]))
    first = Text("–", style="dim")
    styles = {"good-text": "green", "bad-text": "red", "": ""}
    differences = [
        Text(f"{signed(gap.difference)} {gap.partly}".strip(), style=styles[direction(told.metric, gap.difference)])
        for gap in told.gaps
    ]
    intervals = [Text(between(gap.interval) if gap.interval else f"not known: {gap.why}") for gap in told.gaps]
    return [
        *lines,
        (f"difference in {told.metric}", [first, *differences]),
        ("95 % interval", [first, *intervals]),
        ("P(better)", [first, *(Text(chance(gap)) for gap in told.gaps)]),
    ]


def _measured(record: Record, name: str) -> Text:
    mean, spread = record.evaluation.metrics.get(name), record.evaluation.spread.get(name)
    return Text("–" if mean is None else f"{number(mean)} ± {change(spread)}")


def _sparks(records: Sequence[Record], kind: charts.Curve) -> list[list[str]]:
    """The mean over the seeds of each record, all on one scale."""
    means = [_mean_curve(record.training.replicates, kind) for record in records]
    finite = [value for curve in means for value in curve[1:] or curve if math.isfinite(value)]
    if not finite or max(map(len, means)) < 2:
        return []
    low, high = min(finite), max(finite)
    name = records[0].metric if kind == "validation_metric" else kind.replace("_", " ")
    return [
        [name if i == 0 else "", escape(record.attempt), sparkline([min(max(v, low), high) for v in curve], low, high)]
        + [number(curve[0]), number(curve[-1])]
        for i, (record, curve) in enumerate(zip(records, means, strict=True))
        if curve
    ]


def _mean_curve(replicates: Sequence[Replicate], kind: charts.Curve) -> list[float]:
    curves = [getattr(one.curves, kind) for one in replicates if getattr(one.curves, kind)]
    return [sum(values) / len(values) for values in zip(*curves, strict=False)]
