"""A delimited text file as a table, read block by block: what cannot be read exactly is refused or put aside.

Rows are separated by line feeds (with a carriage return before them or not), values by one of , ; tab |. The text is
UTF-8. A value that is empty, or one of the texts that mean missing, is missing. Spaces around a value are not part of
it unless it is in quotes.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from basekamp.data.csv_rows import BLOCK_BYTES, Block, read_blocks, scan
from basekamp.data.csv_types import TEXT, ColumnType, DType, Misfit, parse
from basekamp.data.quarantine import BadRow, put_aside, write_quarantine
from basekamp.data.table import Table, check_column_name, named, store_frames, stored_table
from basekamp.errors import InputError
from basekamp.threads import ahead

if TYPE_CHECKING:
    from basekamp.experiment import Reading

DELIMITERS = ",;\t|"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SAMPLE_ROWS = 100


class Header(NamedTuple):
    """The first row: its names and bytes, what separates its values, and where the rows after it begin."""

    names: list[str]
    raw: bytes
    delimiter: str
    end: int
    line: int


@dataclass
class _Work:
    """Files that are being read, all with the header of the first, and what came of them so far."""

    paths: list[Path]
    headers: list[Header]
    reading: "Reading"
    scratch: Path
    bad: list[tuple[str, BadRow]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def read_csv(paths: list[Path], reading: "Reading", scratch: Path, quarantine: Path | None = None) -> Table:
    """Read files with one header into Parquet files in `scratch`; broken rows are refused, or put into `quarantine`.

    A column's type is the narrowest of whole number, number, true or false, and ISO date or time that all its values
    fit without a change; else it is text.

    Raises: InputError naming file, line, column and remedy.
    """
    work = _Work(paths, [read_header(path, reading.delimiter) for path in paths], reading, scratch)
    names = _common_names(work)
    if unknown := [name for name in reading.types if name not in names]:
        raise InputError(
            f"data.reading.types names {unknown[0]!r}, and {paths[0].name} has no such column: take it out."
        )
    columns = [ColumnType(name, reading.types.get(name, "")) for name in names]
    _write(work, _first_pass(work, columns))
    kinds = [_decided(work, column) for column in columns]
    stored = [column.dtype(kind) for column, kind in zip(columns, kinds, strict=True)]
    if any(column.written != [dtype] for column, dtype in zip(columns, stored, strict=True)):
        _write(work, _second_pass(work, kinds, stored))
    if not work.files:
        raise InputError(f"{paths[0].name} holds no rows: give a file with rows.")
    if quarantine:
        for path in paths if work.bad else []:
            write_quarantine(quarantine, path.name, [row for name, row in work.bad if name == path.name])
    return stored_table(work.files, named(paths), quarantined=len(work.bad))


def _common_names(work: _Work) -> list[str]:
    names = work.headers[0].names
    for path, header in zip(work.paths, work.headers, strict=True):
        if header.names != names:
            raise InputError(
                f"the header of {path.name} is not that of {work.paths[0].name}: give files of the same columns in "
                "the same order."
            )
    return names


def read_header(path: Path, delimiter: str = "") -> Header:
    """Read the first row that is not blank, and find what separates its values where that is not given.

    Raises: InputError for a header that names no columns, or the same one twice, or a file of another kind.
    """
    with path.open("rb") as file:
        data = file.read(BLOCK_BYTES)
    check_kind(path, data)
    offset = len(BYTE_ORDER_MARK) if data.startswith(BYTE_ORDER_MARK) else 0
    blank = len(data[offset:]) - len(data[offset:].lstrip(b" \r\n"))
    data, line = data[offset + blank :], 1 + data.count(b"\n", 0, offset + blank)
    if not data:
        raise InputError(f"{path.name} is empty: give a file with a header and rows.")
    delimiter = delimiter or ("\t" if path.suffix.lower() in (".tsv", ".tab") else _sniff(data, path))
    rows = scan(data, delimiter)
    end = int(rows.ends[0]) if len(rows.ends) else len(data)
    raw = data[:end].rstrip(b"\r\n")
    names = _names(raw, delimiter, path, line)
    return Header(names, raw, delimiter, offset + blank + end, line + data.count(b"\n", 0, end))


def check_kind(path: Path, head: bytes) -> None:
    """Refuse bytes that begin as another kind of file, or that are not UTF-8 text at all.

    Raises: InputError.
    """
    for begin, kind, remedy in KINDS_BY_BEGIN:
        if head.startswith(begin):
            raise InputError(f"{path.name} is {kind}, not what its name says: {remedy}.")


KINDS_BY_BEGIN = [
    (b"\x1f\x8b", "gzip", "add .gz to its name"),
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)", "name it .zip, or export the sheet as CSV"),
    (b"BZh", "bzip2", "add .bz2 to its name"),
    (b"\xfd7zXZ\x00", "xz", "add .xz to its name"),
    (b"\x28\xb5\x2f\xfd", "Zstandard", "add .zst to its name"),
    (b"PAR1", "Parquet", "name it .parquet"),
    (b"\x93NUMPY", "a NumPy array", "write it with numpy.savez and name it .npz"),
    (b"\x89PNG", "a PNG image", "put images into a folder per class"),
    (b"\xff\xd8\xff", "a JPEG image", "put images into a folder per class"),
    (b"%PDF", "a PDF", "export the table as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Office file", "export the sheet as CSV"),
    (b"SQLite format 3\x00", "a SQLite database", "export the table as CSV"),
    (b"<", "HTML or XML", "fetch the data itself, not a page about it"),
    (b"\xff\xfe", "UTF-16 or UTF-32 text", "convert it to UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "convert it to UTF-8"),
]
"""What files begin with, what they are then, and what to do."""


def _sniff(data: bytes, path: Path) -> str:
    """Find the one delimiter that the header has and that the first rows have as often."""
    first = data[: data.find(b"\n") + 1] or data
    found = [d for d in DELIMITERS if d.encode() in first]
    if len(found) > 1:
        widths = {d: scan(data[: 1 << 20], d).widths[:SAMPLE_ROWS] for d in found}
        even = [d for d in found if len(widths[d]) and widths[d][0] > 1 and (widths[d] == widths[d][0]).all()]
        found = even or [d for d in found if d == ","]
    if len(found) > 1:
        shown = " or ".join(repr(d) for d in found)
        raise InputError(f"the values of {path.name} could be separated by {shown}: set data.reading.delimiter.")
    return found[0] if found else ","


def _names(raw: bytes, delimiter: str, path: Path, line: int) -> list[str]:
    where = f"the header of {path.name} (line {line})"
    if b"\0" in raw:
        raise InputError(f"{where} holds a NUL byte: write the file as UTF-8 text.")
    try:
        text = raw.decode()
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8: convert the file to UTF-8.") from error
    except csv.Error as error:
        raise InputError(f"{where} is broken ({error}): close its quotes, and double those within a name.") from error
    if len(rows) != 1 or "\r" in text:
        raise InputError(f"{where} holds a lone carriage return: end each line with a line feed.")
    names = [name.strip() for name in rows[0]]
    for column, name in enumerate(names, 1):
        if not name:
            raise InputError(
                f"{where} has no name for column {column}: name it, or write the file without it "
                "(pandas: to_csv(index=False))."
            )
        if name in names[: column - 1]:
            raise InputError(f"{where} has the column {name!r} twice, the second time as column {column}: rename it.")
        check_column_name(name, where)
    if all(parse(pl.Series([name]), "number").null_count() == 0 for name in names):
        raise InputError(f"{where} holds numbers only: put a line with the columns' names before it.")
    return names


def _blocks(work: _Work) -> Iterator[tuple[str, pl.DataFrame, Block]]:
    """Yield each block's rows as text with their file's name; broken rows are refused or kept in `bad`."""
    for path, header in zip(work.paths, work.headers, strict=True):
        with path.open("rb") as stream:
            stream.seek(header.end)
            delimiter, width, line = header.delimiter, len(header.names), header.line
            for block in read_blocks(stream, delimiter=delimiter, header=header.raw, width=width, line=line):
                _put_aside(work, path.name, block.bad)
                if len(block.lines):
                    yield path.name, _parsed(work, path, header, block), block


def _parsed(work: _Work, path: Path, header: Header, block: Block) -> pl.DataFrame:
    try:
        frame = pl.read_csv(
            block.text,
            has_header=False,
            new_columns=header.names,
            separator=header.delimiter,
            infer_schema=False,
            null_values=list(work.reading.missing) or None,
        )
    except pl.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path.name} is not readable from line {block.lines[0]} on ({reason}): mend it.") from error
    if frame.shape != (len(block.lines), len(header.names)):
        raise InputError(
            f"{path.name} has {len(block.lines)} rows from line {block.lines[0]} on, and {frame.height} were read: "
            "put values that hold a quote in quotes and double it."
        )
    return frame


def _put_aside(work: _Work, name: str, bad: list[BadRow]) -> None:
    put_aside(name, work.reading, bad)
    work.bad += [(name, row) for row in bad]


def _first_pass(work: _Work, columns: list[ColumnType]) -> Iterator[pl.DataFrame]:
    """Find the columns' types; yields each block in the types that its own values have."""
    for name, frame, block in ahead(_blocks(work)):
        yield pl.DataFrame([column.look(text, name, block.lines) for column, text in zip(columns, frame, strict=True)])


def _second_pass(work: _Work, kinds: list[str], dtypes: list[DType]) -> Iterator[pl.DataFrame]:
    """Yield each block in the types that were found; a row with a value that does not fit is bad."""
    work.bad = []
    for name, frame, block in ahead(_blocks(work)):
        reasons: dict[int, str] = {}
        columns = []
        for text, kind, dtype in zip(frame, kinds, dtypes, strict=True):
            values = text if kind == TEXT else parse(text, kind, [dtype])
            columns.append(values)
            for place in (values.is_null() & text.is_not_null()).arg_true():
                reasons.setdefault(place, f"has {text[place]!r} in the column {text.name!r}, which is no {NAMES[kind]}")
        typed = pl.DataFrame(columns)
        if reasons:
            _put_aside(work, name, [block.bad_row(place, reasons[place]) for place in sorted(reasons)])
            is_bad = pl.Series(np.isin(np.arange(typed.height), list(reasons)))
            typed = typed.filter(~is_bad)
        if typed.height:
            yield typed


NAMES = {"number": "number", "bool": "true or false", "date": "ISO date", "text": "text"}


def _decided(work: _Work, column: ColumnType) -> str:
    """Settle a column's kind; exceptions to it are refused unless rows may be put aside."""
    kind, fit = column.decide()
    if fit.misfits and fit.first and work.reading.on_bad_row == "refuse":
        raise InputError(_refusal(column, kind, fit.misfits, fit.first))
    return kind


def _refusal(column: ColumnType, kind: str, misfits: int, first: Misfit) -> str:
    others = f"{misfits} of {column.values:,} values are none" if misfits > 1 else "the others are"
    return (
        f"line {first.line} of {first.file}, column {column.name!r}: {first.value[:80]!r} is no {NAMES[kind]}"
        f" that can be kept exactly ({others}): mend it, add it to data.reading.missing if it means missing, or set "
        f"data.reading.types: {{{column.name}: text}}."
    )


def _write(work: _Work, frames: Iterator[pl.DataFrame]) -> None:
    """Write blocks as Parquet, in place of those of an earlier pass."""
    for earlier in work.files:
        earlier.unlink()
    work.files = store_frames(frames, work.scratch / "rows")
