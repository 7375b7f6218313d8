"""The leaderboard as a workbook to keep: a sheet for each experiment, with a chart of the deciding metric."""

import math
import re
from collections.abc import Sequence
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basekamp.errors import InputError
from basekamp.naming import Value
from basekamp.records.shelf import Row
from basekamp.report.leaderboard import rows_as_sheet
from basekamp.storage.protocol import whole_file

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

_UNSAFE_TITLE = re.compile(r"[\\/*?:\[\]\x00-\x1f']")
_UNSAFE_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # what XML cannot hold
_MOST_TITLE, _MOST_TEXT, _WIDEST = 31, 32_767, 60
_EXACT = 2**53


def write_workbook(rows: Sequence[Row], path: Path, *, only_changed: bool = False) -> None:
    """Write rows, in their order, as an .xlsx file that replaces an earlier one as a whole.

    Raises InputError without openpyxl or for another suffix, StoreError when the file cannot be written.
    """
    try:
        from openpyxl import Workbook
    except ImportError as error:
        raise InputError("xlsx files need a package that is not here: pip install 'basekamp[xlsx]'.") from error
    if path.suffix.lower() != ".xlsx" or path.is_dir():
        raise InputError(f"{path} is not allowed: give the path of a file that ends in .xlsx.")
    book, titles = Workbook(), set[str]()
    book.remove(book.active)
    for experiment, some in groupby(sorted(rows, key=_experiment), key=_experiment):
        title = _title(experiment, titles)
        titles.add(title.casefold())
        _fill(book.create_sheet(title), list(some), only_changed=only_changed)
    if not titles:
        book.create_sheet("no record")
    held = BytesIO()
    book.save(held)
    with whole_file(path) as file:
        file.write(held.getvalue())


def _experiment(row: Row) -> str:
    return row.experiment


def _fill(sheet: "Worksheet", rows: list[Row], *, only_changed: bool) -> None:
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    told = rows_as_sheet(rows, only_changed=only_changed)
    metrics = {key for row in rows for key in row.metrics} | {"spread", "difference", "low", "high"}
    for column, (head, *values) in enumerate(zip(told.heads, *told.lines, strict=True), 1):
        for line, value in enumerate((head, *values), 1):
            cell = sheet.cell(line, column)
            _put(cell, value)
            if line > 1 and head in metrics and isinstance(value, float):
                cell.number_format = "0.0000" if abs(value) < 1000 else "#,##0.00"
        sheet.cell(1, column).font = Font(bold=True)
        widest = max(len(_shown(value)) for value in (head, *values))
        sheet.column_dimensions[get_column_letter(column)].width = min(widest, _WIDEST) + 3
    sheet.freeze_panes = f"{get_column_letter(min(told.heads.index('attempt') + 2, len(told.heads) + 1))}2"
    sheet.auto_filter.ref = sheet.dimensions
    _draw(sheet, rows, column=len(told.heads) + 2)


def _put(cell: Any, value: Value | None) -> None:
    """Write a value in its type; a text is never a formula, and what Excel cannot hold becomes a text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return
    is_number = not isinstance(value, str) and math.isfinite(value) and abs(value) <= _EXACT
    cell.value = value if is_number else _UNSAFE_TEXT.sub("�", str(value))[:_MOST_TEXT]
    if not is_number:
        cell.data_type = "s"
        cell.quotePrefix = isinstance(value, str) and value[:1] in ("=", "+", "-", "@")


def _draw(sheet: "Worksheet", rows: list[Row], *, column: int) -> None:
    """The deciding metric in the order of the records beside the table, and the baseline as a line."""
    from openpyxl.chart import LineChart, Reference

    drawn = sorted((row for row in rows if math.isfinite(row.value)), key=lambda row: row.id)
    if len(drawn) < 2:
        return
    baseline = next((row for row in drawn if row.role == "baseline"), None)
    metric = drawn[0].metric
    drawn = [row for row in drawn if row.metric == metric]
    heads = ["chart", metric, *(["baseline"] if baseline else [])]
    lines: list[list[Value | None]] = [
        [row.attempt, row.value, *([baseline.value] if baseline else [])] for row in drawn
    ]
    told: list[list[Value | None]] = [[*heads], *lines]
    for number, line in enumerate(told, 1):
        for offset, value in enumerate(line):
            _put(sheet.cell(number, column + offset), value)
    chart = LineChart()
    chart.title, chart.height, chart.width = f"{metric}, oldest first", 9, 18
    chart.add_data(
        Reference(sheet, min_col=column + 1, max_col=column + len(heads) - 1, min_row=1, max_row=len(told)),
        titles_from_data=True,
    )
    chart.set_categories(Reference(sheet, min_col=column, min_row=2, max_row=len(told)))
    chart.x_axis.delete = chart.y_axis.delete = False
    chart.series[0].marker.symbol, chart.series[0].smooth = "circle", False
    sheet.add_chart(chart, f"{sheet.cell(3, column + len(heads) + 1).coordinate}")


def _title(experiment: str, taken: set[str]) -> str:
    """A title that Excel allows and no sheet has yet, whatever the case."""
    base = _UNSAFE_TITLE.sub("_", experiment)[:_MOST_TITLE] or "_"
    title, number = base, 2
    while title.casefold() in taken:
        ending = f" {number}"
        title, number = base[: _MOST_TITLE - len(ending)] + ending, number + 1
    return title


def _shown(value: Value | None) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value or "")
