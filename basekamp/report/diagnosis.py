"""What rules found in a result, for a terminal, as Markdown and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import yaml

from basekamp.diagnosis.finding import Case, Finding, next_attempt
from basekamp.diagnosis.rules import RULES, diagnose, unknown
from basekamp.language import gettext
from basekamp.records.record import Record
from basekamp.report.markdown import plain
from basekamp.report.numbers import printable

MOST_ROWS = 20


def findings_of(record: Record) -> list[Finding]:
    """Every condition found in a record, the worst first."""
    return diagnose(Case(record))


def diagnosis_as_text(record: Record) -> str:
    """Each finding with its evidence and the attempt that could follow; and what nobody could tell."""
    case = Case(record)
    found, silent = diagnose(case), unknown(case)
    lines = [line for one in found for line in _told(one)]
    if not found:
        lines = [f"Nothing found among {len(RULES) - len(silent)} conditions."]
    if silent:
        lines.append(f"Not measured of this record: {', '.join(silent)}.")
    if attempts := _attempts(record, found):
        lines += ["", "To try next, in the experiment file:", *attempts.splitlines()]
    return "\n".join(printable(line) for line in lines)


def diagnosis_as_json(record: Record) -> dict[str, Any]:
    """Plain values."""
    case = Case(record)
    found = [asdict(one) | {"attempt": next_attempt(one, record)} for one in diagnose(case)]
    return {"name": record.name, "findings": found, "not_measured": unknown(case)}


def diagnosis_markdown(found: Sequence[Finding]) -> str:
    """The findings as a list."""
    return "\n".join(f"- **{one.condition}** ({one.severity}): {plain(one.sentence)}" for one in found)


def _attempts(record: Record, found: Sequence[Finding]) -> str:
    """The block of an experiment file, "" where no idea is a setting."""
    told = {f"after-{one.condition}": attempt for one in found if (attempt := next_attempt(one, record))}
    return yaml.safe_dump({"attempts": told}, sort_keys=False, width=110) if told else ""


def named_rows(finding: Finding) -> str:
    """Which rows a finding is about, "" where it names none."""
    rows = ", ".join(map(str, finding.rows[:MOST_ROWS]))
    more = ", …" if len(finding.rows) > MOST_ROWS else ""
    if not rows:
        return ""
    return gettext(
        "rows of the source, from 1: {rows}"
        if finding.counted_in == "source"
        else "rows of the validation split, from 0: {rows}",
        rows=rows + more,
    )


def _told(finding: Finding) -> list[str]:
    rows = named_rows(finding)
    lines = [f"{finding.severity}: {finding.condition}: {finding.sentence}", f"    {finding.hypothesis}"]
    return [*lines, f"    {rows}"] if rows else lines
