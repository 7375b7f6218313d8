"""The lab book for a terminal, as Markdown and as JSON."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from basekamp.records.labbook import Hit, Page
from basekamp.report.leaderboard import VERDICT_STYLES
from basekamp.report.markdown import markdown_table
from basekamp.report.numbers import number, printable, signed

WIDE, FEWEST = 110, 20
_HEADS = ("date", "experiment", "attempt", "result", "difference", "verdict", "hypothesis")
_EVENTS = {"champion": "becomes champion", "fallback": "is champion again", "rebase": "begins a new lineage"}


def pages_table(pages: Sequence[Page], *, width: int) -> Table:
    """One line each, cut at `width` characters; the experiment has a column where there are several."""
    several = len({page.row.experiment for page in pages}) > 1
    left_out = {*([] if several else ["experiment"]), *([] if width >= WIDE else ["result"])}
    shown = [i for i, head in enumerate(_HEADS) if head not in left_out]
    lines = [_line(page) for page in pages]
    taken = sum(
        max(map(len, column)) + 2 for i, column in enumerate(zip(_HEADS, *lines, strict=True)) if i in shown[:-1]
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i in shown:
        is_number = _HEADS[i] in ("result", "difference")
        table.add_column(_HEADS[i], no_wrap=True, justify="right" if is_number else "left")
    for page, line in zip(pages, lines, strict=True):
        cells = [Text(printable(line[i])) for i in shown]
        cells[-1].truncate(max(width - taken, FEWEST), overflow="ellipsis")
        cells[-2].stylize(VERDICT_STYLES.get(page.row.verdict or "", "dim") if page.kind == "record" else "yellow")
        table.add_row(*cells)
    return table


def pages_as_markdown(pages: Sequence[Page]) -> str:
    """The lab book as one Markdown table."""
    return markdown_table(_HEADS, map(_line, pages), left=len(_HEADS))


def pages_as_json(pages: Iterable[Page]) -> list[dict[str, Any]]:
    """Pages as plain values."""
    return [
        {
            "when": page.when.isoformat() if page.when else None,
            "kind": page.kind,
            "experiment": page.row.experiment,
            "attempt": page.row.attempt,
            "id": page.row.id,
            "hypothesis": page.hypothesis,
            "metric": page.row.metric,
            "value": page.row.value if page.row.value == page.row.value else None,
            "difference": page.row.difference,
            "verdict": page.row.verdict,
            "lineage": page.row.lineage,
            "problem": page.problem,
        }
        for page in pages
    ]


def hits_as_text(hits: Sequence[Hit]) -> str:
    """Each hit as two lines: what was tried and what came of it, then why."""
    lines = []
    for hit in hits:
        row = hit.page.row
        outcome = f"already tried: {row.verdict}" if row.verdict else row.role
        difference = "" if row.difference is None else f", difference {signed(row.difference)}"
        lines.append(f"{row.experiment}/{row.attempt}  {outcome}{difference}  ({_date(hit.page)}, {row.id})")
        if hit.page.hypothesis:
            lines.append(f"    {hit.page.hypothesis}")
    return "\n".join(map(printable, lines))


def _line(page: Page) -> list[str]:
    row = page.row
    start = [_date(page), row.experiment, row.attempt]
    if page.kind != "record":
        return [*start, "", "", "★", _EVENTS[page.kind]]
    difference = "–" if row.difference is None else signed(row.difference)
    why = page.problem and f"(not readable: {page.problem})"
    return [*start, f"{row.metric} {number(row.value)}", difference, row.verdict or row.role, why or page.hypothesis]


def _date(page: Page) -> str:
    return f"{page.when:%Y-%m-%d}" if page.when else "–"
