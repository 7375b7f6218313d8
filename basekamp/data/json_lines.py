"""JSON lines as a table, read block by block: one object per line, and what a column cannot hold exactly is refused.

A key is a column of numbers, text or truth values, or of dates where `data.reading.types` says so; a line without it,
or with null, lacks a value there. Lists and objects are kept as JSON in bytes, which can tell rows apart and be
dropped, but not learned from.
"""

import codecs
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from basekamp.data.csv_rows import BLOCK_BYTES, MOST_ROW_BYTES
from basekamp.data.csv_types import DATE, EXACT, DType, parse
from basekamp.data.quarantine import BadRow, put_aside, write_quarantine
from basekamp.data.table import BATCH_VALUES, Table, check_column_name, named, store_frames, stored_table
from basekamp.errors import InputError

if TYPE_CHECKING:
    from basekamp.experiment import Reading

Json = dict[str, Any]
KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    dict: "an object",
    list: "a list",
}
DTYPES: dict[str, DType] = {"": pl.Null, "true or false": pl.Boolean, "text": pl.String}


class _LineError(ValueError):
    """Why a line is no object that can be kept exactly."""


class _Lines(NamedTuple):
    """Objects of one file, and the line that each stands in."""

    file: str
    numbers: list[int]
    objects: list[Json]

    def place(self, index: int) -> str:
        return f"line {self.numbers[index]} of {self.file}"

    def parts(self, rows: int) -> "Iterator[_Lines]":
        for start in range(0, len(self.objects), rows):
            part = slice(start, start + rows)
            yield _Lines(self.file, self.numbers[part], self.objects[part])


@dataclass
class _Key:
    """What a key's values are, as far as they were read, and where that was first seen."""

    name: str
    is_date: bool
    kind: str = ""
    first: str = ""
    fraction: str = ""
    inexact: str = ""

    @property
    def dtype(self) -> DType:
        if self.is_date:
            return DATE
        if self.kind == "a number":
            return pl.Float64 if self.fraction else pl.Int64
        return DTYPES.get(self.kind, pl.Binary)

    def look(self, lines: _Lines) -> pl.Series:
        """Take a block's values into account, and give them [n].

        Raises: InputError for values of two kinds, numbers that have no type in common, and dates that are none.
        """
        values = [each.get(self.name) for each in lines.objects]
        types = set(map(type, values)) - {type(None)}
        for index, each in sorted((next(i for i, v in enumerate(values) if type(v) is each), each) for each in types):
            self._see(KINDS[each], lines.place(index))
            if each is float:
                self.fraction = self.fraction or lines.place(index)
        if int in types and not self.inexact:
            beyond = (i for i, v in enumerate(values) if type(v) is int and abs(v) > EXACT and int(float(v)) != v)
            self.inexact = next((f"{values[i]} in {lines.place(i)}" for i in beyond), "")
        if self.inexact and self.fraction:
            raise InputError(
                f"the key {self.name!r} has {self.inexact}, which cannot stand exactly beside a fraction, as in "
                f"{self.fraction}: write its values as text, or the fractions as whole numbers."
            )
        if self.is_date:
            return self._dates(values, lines)
        if self.dtype == pl.Binary:
            values = [None if v is None else json.dumps(v, sort_keys=True).encode() for v in values]
        return pl.Series(self.name, values, self.dtype, strict=self.dtype != pl.Float64)

    def _dates(self, values: list[Any], lines: _Lines) -> pl.Series:
        text = pl.Series(self.name, [v if v is None else str(v) for v in values], pl.String)
        found = parse(text, "date")
        misfits = found.is_null() & text.is_not_null()
        if misfits.any():
            place = misfits.arg_max() or 0
            raise InputError(
                f"{lines.place(place)}, key {self.name!r}: {text[place][:80]!r} is no ISO date that is kept exactly: "
                "mend it, or take the key out of data.reading.types."
            )
        return found

    def _see(self, kind: str, place: str) -> None:
        if self.kind not in ("", kind):
            raise InputError(
                f"the key {self.name!r} has {self.kind} in {self.first} and {kind} in {place}: give each key one type."
            )
        if not self.kind:
            self.kind, self.first = kind, place


@dataclass
class _Work:
    """What came of the files so far."""

    reading: "Reading"
    keys: dict[str, _Key] = field(default_factory=dict)
    bad: dict[str, list[BadRow]] = field(default_factory=dict)


def read_jsonl(paths: Sequence[Path], reading: "Reading", scratch: Path, quarantine: Path | None = None) -> Table:
    """Read files of one JSON object per line into Parquet files in `scratch`.

    Raises: InputError for a broken line (or it is put into `quarantine`), a key that is given twice, and a key
    whose values are of different kinds.
    """
    others = [name for name, kind in reading.types.items() if kind != "date"]
    if others:
        raise InputError(
            f"data.reading.types makes {others[0]!r} {reading.types[others[0]]}, and JSON lines tell all types but "
            "dates: take it out."
        )
    work = _Work(reading)
    files = store_frames(_frames(work, paths), scratch / "rows")
    if not files:
        raise InputError(f"{named(paths)} holds no rows: give a file with rows.")
    if unknown := [name for name in reading.types if name not in work.keys]:
        raise InputError(f"data.reading.types names {unknown[0]!r}, and {named(paths)} has no such key: take it out.")
    for file, bad in work.bad.items():
        if quarantine:
            write_quarantine(quarantine, file, bad)
    schema = pl.Schema({key.name: key.dtype for key in work.keys.values()})
    return stored_table(files, named(paths), schema=schema, quarantined=sum(map(len, work.bad.values())))


def _frames(work: _Work, paths: Sequence[Path]) -> Iterator[pl.DataFrame]:
    """Yield each block in the types that were found so far."""
    for path in paths:
        for lines in _blocks(work, path):
            for name in dict.fromkeys(name for each in lines.objects for name in each):
                if name not in work.keys:
                    check_column_name(name, path.name)
                    work.keys[name] = _Key(name, name in work.reading.types)
            for part in lines.parts(max(1, BATCH_VALUES // len(work.keys))):  # lines may have few of very many keys
                yield pl.DataFrame([key.look(part) for key in work.keys.values()])


def _blocks(work: _Work, path: Path) -> Iterator[_Lines]:
    """Yield the objects of a file, and refuse lines that are none, or put them aside."""
    lines, size = _Lines(path.name, [], []), 0
    with path.open("rb") as file:
        file.seek(len(codecs.BOM_UTF8) if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8 else 0)
        number = 0
        while line := file.readline(MOST_ROW_BYTES):
            number += 1
            if len(line) == MOST_ROW_BYTES:
                raise InputError(
                    f"line {number} of {path.name} is over {MOST_ROW_BYTES >> 20} MiB: write one object a line."
                )
            if not line.strip():
                continue
            try:
                lines.objects.append(_parsed(line))
                lines.numbers.append(number)
            except _LineError as error:
                bad = BadRow(number, str(error), line)
                put_aside(path.name, work.reading, [bad])
                work.bad.setdefault(path.name, []).append(bad)
            size += len(line)
            if size >= BLOCK_BYTES and any(lines.objects):
                yield lines
                lines, size = _Lines(path.name, [], []), 0
    if lines.objects and not work.keys and not any(lines.objects):
        raise InputError(f"{path.name} holds empty objects only: give each line its keys.")
    if lines.objects:
        yield lines


def _parsed(line: bytes) -> Json:
    try:
        text = line.decode()
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_not_json, parse_float=_finite)
    except _LineError:
        raise
    except UnicodeDecodeError as error:
        raise _LineError("is not UTF-8") from error
    except RecursionError as error:
        raise _LineError("is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise _LineError("is broken, write one whole JSON object per line") from error
    except ValueError as error:
        raise _LineError("has a number of more digits than anything can hold, write it as text") from error
    if not isinstance(value, dict):
        raise _LineError("is not an object, write {...}")
    for key, item in value.items():
        if type(item) is int and not -(2**63) <= item < 2**63:
            raise _LineError(f"has a whole number beyond 64 bits in {key!r}, write it as text")
    if "\\u" in text:
        _check_text(text, value)
    return value


def _check_text(text: str, value: Json) -> None:
    """Refuse half of a surrogate pair, which is no character, and which no file can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _LineError("has half of a character (a lone surrogate), write it whole") from error


def _once(pairs: list[tuple[str, Any]]) -> Json:
    if len(dict(pairs)) < len(pairs):
        raise _LineError("gives a key twice")
    return dict(pairs)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _LineError(f"has {text[:20]}, which is beyond what a number can be")
    if not value and text.lower().partition("e")[0].strip("-0."):
        raise _LineError(f"has {text[:20]}, which is nearer to zero than a number can be, write 0")
    return value


def _not_json(text: str) -> None:
    raise _LineError(f"has {text}, which is not JSON, write null for a missing value")
