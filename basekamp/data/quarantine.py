"""Rows that cannot be read: refused, or put aside into a file beside the data set."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from basekamp.errors import InputError

if TYPE_CHECKING:
    from basekamp.experiment import Reading

QUARANTINE = "quarantine.csv"


class BadRow(NamedTuple):
    """A row that cannot be read as it stands: its line, why, and its bytes."""

    line: int
    reason: str
    raw: bytes


def put_aside(name: str, reading: "Reading", bad: list[BadRow]) -> None:
    """Refuse rows that cannot be read, unless they may be put aside.

    Raises: InputError naming the first of them.
    """
    if bad and reading.on_bad_row == "refuse":
        raise InputError(
            f"line {bad[0].line} of {name} {bad[0].reason}: mend it, or set data.reading.on_bad_row: quarantine to go "
            "on without such rows."
        )


def write_quarantine(path: Path, name: str, bad: list[BadRow]) -> None:
    """Append rows of the file `name` to those that were put aside: file, line, reason and the row as it stood."""
    is_new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(["file", "line", "reason", "row"])
        for row in bad:
            writer.writerow([name, row.line, row.reason, row.raw.rstrip(b"\r\n").decode(errors="backslashreplace")])
