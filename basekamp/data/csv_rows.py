"""The rows of a CSV file (RFC 4180) as they stand in its bytes: where each begins, and which of them are broken.

A file is looked at in blocks of whole rows, so that any size fits in memory. n rows of a block.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from basekamp.data.quarantine import BadRow

BLOCK_BYTES = 8 << 20
MOST_ROW_BYTES = 64 << 20
QUOTE, LINE_FEED, RETURN, SPACE, TAB = b'"\n\r \t'
Places = NDArray[np.int64]


class Block(NamedTuple):
    """Whole rows: `text` for a parser, without the broken ones, and each row's bytes and its line in the file."""

    text: bytes
    lines: Places
    bad: list[BadRow]
    raw: bytes
    starts: Places
    ends: Places

    def bad_row(self, index: int, reason: str) -> BadRow:
        """Return a row that a parser cannot make sense of, as it stands in the file."""
        return BadRow(int(self.lines[index]), reason, self.raw[self.starts[index] : self.ends[index]])


class _Rows(NamedTuple):
    """The rows in some bytes: ends and widths [n], which bytes stand in quotes, and where a quote is astray."""

    ends: Places
    widths: Places
    is_quoted: NDArray[np.bool_] | None
    stray: int


def read_blocks(file: BinaryIO, *, delimiter: str, header: bytes, width: int, line: int) -> Iterator[Block]:
    """Yield the rows that follow the header, from where the file stands, which is line `line`.

    Blank lines are left out, and spaces around values that are not in quotes.
    """
    rest = b""
    while True:
        fresh = file.read(max(BLOCK_BYTES, len(rest)))
        data = rest + fresh
        if not fresh and data and not data.endswith(b"\n"):
            data += b"\n"
        while data:
            rows = scan(data, delimiter)
            end, bad = int(rows.ends[-1]) if len(rows.ends) else 0, []
            is_astray = rows.stray >= 0
            if not is_astray and end < len(data) and (not fresh or len(data) - end > MOST_ROW_BYTES):
                is_astray = True
            if is_astray:
                place = rows.stray if rows.stray >= 0 else len(data)
                kept = rows.ends[rows.ends <= place]
                rows = rows._replace(ends=kept, widths=rows.widths[: len(kept)])
                begin = int(kept[-1]) if len(kept) else 0
                end = data.find(b"\n", begin) + 1 or len(data)
                reason = "has a quote that is not closed, or stands within a value and is not doubled"
                bad = [BadRow(line + data.count(b"\n", 0, begin), reason, data[begin:end])]
            block = _checked(data, rows, delimiter=delimiter, header=header, width=width, line=line)
            yield block._replace(bad=block.bad + bad)
            line += data.count(b"\n", 0, end)
            data = data[end:]
            if not is_astray:
                break
        rest = data
        if not fresh:
            return


def scan(data: bytes, delimiter: str) -> _Rows:
    """Find the rows of some bytes that begin with a row; `stray` is the first quote out of place, or -1."""
    buffer = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(buffer == QUOTE)
    separators = np.flatnonzero((buffer == ord(delimiter)) | (buffer == LINE_FEED))
    is_quoted, stray = None, -1
    if len(quotes):
        is_quoted = (np.cumsum(buffer == QUOTE, dtype=np.uint8) & 1).astype(bool)
        separators = separators[~is_quoted[separators]]
        stray = _first_stray(buffer, quotes, ord(delimiter))
    last = np.flatnonzero(buffer[separators] == LINE_FEED)
    return _Rows(separators[last] + 1, np.diff(last, prepend=-1), is_quoted, stray)


def _first_stray(buffer: NDArray[np.uint8], quotes: Places, delimiter: int) -> int:
    """Return the first quote that opens within a value or closes before its end, or -1."""
    opening, closing = quotes[::2], quotes[1::2]
    before = np.where(opening > 0, buffer[opening - 1], LINE_FEED)
    after = np.where(closing + 1 < len(buffer), buffer[np.minimum(closing + 1, len(buffer) - 1)], LINE_FEED)
    astray = np.concatenate(
        [
            opening[~np.isin(before, (delimiter, LINE_FEED, QUOTE))],
            closing[~np.isin(after, (delimiter, LINE_FEED, QUOTE, RETURN))],
        ]
    )
    return int(astray.min()) if len(astray) else -1


def _checked(data: bytes, rows: _Rows, *, delimiter: str, header: bytes, width: int, line: int) -> Block:
    """Take out what is broken or blank from rows whose quotes are in order."""
    if not len(rows.ends):
        none = np.empty(0, np.int64)
        return Block(b"", none, [], b"", none, none)
    data = data[: rows.ends[-1]]
    rows = rows if rows.is_quoted is None else rows._replace(is_quoted=rows.is_quoted[: len(data)])
    buffer = np.frombuffer(data, np.uint8)
    starts = np.concatenate([[0], rows.ends[:-1]])
    lines = _lines(buffer, rows, starts) + line
    reasons = _reasons(data, buffer, rows, starts, header, width)
    blank = _blank(data, rows, starts, width)
    bad = [
        BadRow(int(lines[i]), reason, data[starts[i] : rows.ends[i]])
        for i, reason in sorted(reasons.items())
        if not blank[i]
    ]
    keep = np.ones(len(data), bool)
    left_out = blank.copy()
    left_out[list(reasons)] = True
    for i in np.flatnonzero(left_out):
        keep[starts[i] : rows.ends[i]] = False
    keep[_line_returns(buffer, rows)] = False
    _without_spaces(keep, buffer, rows, ord(delimiter))
    text = data if keep.all() else buffer[keep].tobytes()
    return Block(text, lines[~left_out], bad, data, starts[~left_out], rows.ends[~left_out])


def _lines(buffer: NDArray[np.uint8], rows: _Rows, starts: Places) -> Places:
    """Count the line feeds before each row, those in quotes too."""
    if rows.is_quoted is None:
        return np.arange(len(starts))
    return np.searchsorted(np.flatnonzero(buffer == LINE_FEED), starts).astype(np.int64)


def _reasons(
    data: bytes, buffer: NDArray[np.uint8], rows: _Rows, starts: Places, header: bytes, width: int
) -> dict[int, str]:
    """Say per row that is broken why; of several reasons the one that explains the others."""
    reasons = {int(i): f"has {rows.widths[i]} values, the header {width}" for i in np.flatnonzero(rows.widths != width)}
    length = len(header)
    for i in np.flatnonzero((rows.ends - starts >= length) & (rows.ends - starts <= length + 2)):
        if data[starts[i] : rows.ends[i]].rstrip(b"\r\n") == header:
            reasons[int(i)] = "repeats the header, as files that were joined do"
    returns = np.flatnonzero(buffer == RETURN)
    if len(returns):
        lone = returns[buffer[np.minimum(returns + 1, len(buffer) - 1)] != LINE_FEED]
        lone = lone if rows.is_quoted is None else lone[~rows.is_quoted[lone]]
        reasons |= dict.fromkeys(_row_of(rows, lone), "has a carriage return that ends no line")
    reasons |= dict.fromkeys(_row_of(rows, np.flatnonzero(buffer == 0)), "has a NUL byte")
    return reasons | _not_utf8(data, buffer, rows, starts)


def _row_of(rows: _Rows, places: Places) -> list[int]:
    return np.unique(np.searchsorted(rows.ends, places, side="right")).tolist()  # type: ignore[no-any-return]


def _not_utf8(data: bytes, buffer: NDArray[np.uint8], rows: _Rows, starts: Places) -> dict[int, str]:
    if data.isascii():
        return {}
    try:
        data.decode()
        return {}
    except UnicodeDecodeError:
        reasons = {}
    for i in _row_of(rows, np.flatnonzero(buffer >= 0x80)):
        try:
            data[starts[i] : rows.ends[i]].decode()
        except UnicodeDecodeError as error:
            reasons[i] = f"has the byte 0x{error.object[error.start]:02x}, which is not UTF-8"
    return reasons


def _blank(data: bytes, rows: _Rows, starts: Places, width: int) -> NDArray[np.bool_]:
    lengths = rows.ends - starts
    blank: NDArray[np.bool_] = lengths == 1
    for i in np.flatnonzero((rows.widths == 1) & ~blank & ((lengths == 2) | (width > 1))):
        blank[i] = not data[starts[i] : rows.ends[i]].strip()
    return blank


def _line_returns(buffer: NDArray[np.uint8], rows: _Rows) -> Places:
    """Find the carriage returns that belong to a line's end."""
    before: Places = rows.ends - 2
    before = before[before >= 0]
    returns: Places = before[buffer[before] == RETURN]
    return returns


def _without_spaces(keep: NDArray[np.bool_], buffer: NDArray[np.uint8], rows: _Rows, delimiter: int) -> None:
    """Clear the places of spaces that begin or end a value, unless they are in quotes."""
    is_space = buffer == SPACE
    if delimiter != TAB:
        is_space |= buffer == TAB
    if not is_space.any():
        return
    if rows.is_quoted is not None:
        is_space &= ~rows.is_quoted
    edges = np.flatnonzero(np.diff(is_space.astype(np.int8), prepend=0, append=0))
    begins, ends = edges[::2], edges[1::2]
    before = np.where(begins > 0, buffer[begins - 1], LINE_FEED)
    after = buffer[np.minimum(ends, len(buffer) - 1)]
    is_outer = np.isin(before, (delimiter, LINE_FEED)) | np.isin(after, (delimiter, LINE_FEED, RETURN))
    steps = np.zeros(len(buffer) + 1, np.int8)
    steps[begins[is_outer]], steps[ends[is_outer]] = 1, -1
    keep[np.cumsum(steps[:-1], dtype=np.int8).astype(bool)] = False
