"""One reader per file format; each turns whatever is broken into one sentence.

n rows, c channels, h x w pixels.
"""

import csv
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.data.decoding import check_decodes
from basekamp.errors import InputError

MISSING_TEXTS = ["", "NA"]
NPZ_PAIRS = [("x", "y"), ("images", "labels"), ("X", "y")]
CHANNELS = (1, 3, 4)


class ImageTable(NamedTuple):
    """Images uint8 [n, c, h, w], their labels [n], and what the label is called."""

    images: NDArray[np.uint8]
    labels: NDArray[Any]
    target: str


def read_csv(path: Path) -> pl.DataFrame:
    """Read a comma-separated UTF-8 file with a header; "" and NA are missing, empty rows are skipped.

    A column's type is the narrowest of integer, float, bool and ISO date or time that all its values fit.
    """
    records = _count_records(path)
    try:
        frame = pl.read_csv(path, infer_schema=False)
        _check_header(path)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} is not a readable CSV ({_first_line(error)}): mend the file.") from error
    if frame.height != records:
        raise InputError(
            f"{path.name} has {records} rows but reads as {frame.height}: put values that hold a quote in "
            "quotes and double it."
        )
    text = pl.all().str.strip_chars()
    frame = frame.with_columns(pl.when(~text.is_in(MISSING_TEXTS)).then(text))
    frame = frame.filter(~pl.all_horizontal(pl.all().is_null())) if frame.width > 1 else frame
    return pl.DataFrame([_typed(column) for column in _with_rows(frame.rename(str.strip), path)])


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file, types as stored."""
    check_decodes(path)
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InputError(f"{path.name} is not a Parquet file: check how it was written.") from error
    return _with_rows(frame, path)


def read_jsonl(path: Path) -> pl.DataFrame:
    """Read one JSON object per line; keys that a line lacks are missing there."""
    try:
        frame = pl.read_ndjson(path, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path.name} is not readable JSON lines: {_broken_line(path)}.") from error
    return _with_rows(frame, path)


def read_npz(path: Path) -> pl.DataFrame | ImageTable:
    """Read arrays x and y, or images and labels: [n, d] is a table x0, x1, ...; 3 or 4 axes are images."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            pair = next((p for p in NPZ_PAIRS if set(p) <= set(arrays.files)), None)
            if pair is None:
                found = ", ".join(arrays.files) or "none"
                raise InputError(f"{path.name} holds the arrays {found}: name them x and y, or images and labels.")
            x, y = arrays[pair[0]], arrays[pair[1]]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, AttributeError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path.name} is not an .npz file of plain arrays: write it with numpy.savez.") from error
    if y.ndim != 1 or x.ndim not in (2, 3, 4) or len(x) != len(y) or not x.size:
        raise InputError(
            f"{path.name} holds {pair[0]} {list(x.shape)} and {pair[1]} {list(y.shape)}: "
            "give x [n, d], [n, h, w] or [n, c, h, w], and y [n]."
        )
    if y.dtype.kind == "f" and (missing := int(np.isnan(y).sum())):
        raise InputError(f"{pair[1]} of {path.name} is NaN for {missing} of {len(y)} rows: take those rows out.")
    if x.ndim > 2:
        return ImageTable(_as_pixels(x, path.name), y, pair[1])
    return pl.DataFrame({f"x{i}": x[:, i] for i in range(x.shape[1])} | {pair[1]: y})


def read_digits(path: Path) -> ImageTable:
    """Read the 1,797 handwritten digits of scikit-learn: [n, 1, 8, 8], values 0 to 16, target `digit`."""
    table = pl.read_csv(path, has_header=False).to_numpy()
    return ImageTable(table[:, :64].reshape(-1, 1, 8, 8).astype(np.uint8), table[:, 64].astype(np.int64), "digit")


def _count_records(path: Path) -> int:
    """Count the rows that follow the header; refuses a row of another length, with its line number."""
    with path.open("rb") as file:
        quoted = any(b'"' in block for block in iter(lambda: file.read(1 << 20), b""))
    rows = _quoted_rows(path) if quoted else _plain_rows(path)
    width, count = 0, -1
    for line, length in rows:
        if width == 0 and length == 0:
            continue
        width = width or length
        count += 1
        if length not in (0, width):
            raise InputError(f"line {line} of {path.name} has {length} values, the header {width}: mend that line.")
    if width == 0:
        raise InputError(f"{path.name} is empty: give a file with a header and rows.")
    return count


def _plain_rows(path: Path) -> Iterator[tuple[int, int]]:
    """Yield line number and number of values of each row of a file without quotes; a blank line has none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield number, line.count(b",") + 1 if line.strip() else 0


def _quoted_rows(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the same for a file with quotes, whose rows may span lines."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        start = 1
        try:
            for row in reader:
                yield start, len(row) if any(row) or len(row) > 1 else 0
                start = reader.line_num + 1
        except csv.Error as error:
            raise InputError(
                f"the row at line {start} of {path.name} is broken ({error}): look for a quote that is not closed."
            ) from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path.name} is not UTF-8 text: convert it to UTF-8.") from error


def _check_header(path: Path) -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        names = next((row for row in csv.reader(file) if row), [])
    names = [name.strip() for name in names]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise InputError(f"{path.name} has the column {twice[0]!r} twice: rename one of them.")


def _typed(text: pl.Series) -> pl.Series:
    known = text.drop_nulls()
    if known.is_empty():
        return text
    for dtype in (pl.Int64, pl.Float64):
        if not known.cast(dtype, strict=False).has_nulls():
            return text.cast(dtype)
    lowered = text.str.to_lowercase()
    if known.len() and lowered.drop_nulls().is_in(["true", "false"]).all():
        return (lowered == "true").alias(text.name)
    if not known.head(100).str.contains(r"^\d{4}-\d{2}-\d{2}").all():
        return text
    times = text.str.to_datetime(strict=False, time_unit="us", time_zone="UTC")
    return times if times.null_count() == text.null_count() else text


def _as_pixels(x: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Return uint8 [n, c, h, w] for [n, h, w], [n, c, h, w] or [n, h, w, c]; floats up to 1 go to 255."""
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[3] in CHANNELS and (x.shape[1] not in CHANNELS or x.shape[3] < x.shape[1]):
        x = x.transpose(0, 3, 1, 2)
    elif x.shape[1] not in CHANNELS:
        raise InputError(f"{name} holds images of shape {list(x.shape)}: use 1, 3 or 4 channels.")
    if x.dtype == np.uint8 or x.dtype == bool:
        return np.ascontiguousarray(x, dtype=np.uint8)
    if x.dtype.kind not in "iuf" or not np.isfinite(x).all() or x.min() < 0 or x.max() > 255:
        raise InputError(f"{name} holds pixels that are not finite numbers from 0 to 255: convert them to uint8.")
    whole = x.dtype.kind in "iu" or bool((x == np.round(x)).all())
    if not whole and x.max() > 1:
        raise InputError(f"{name} holds fractional pixels above 1: use 0 to 1, or whole numbers up to 255.")
    return np.ascontiguousarray(x if whole else np.round(x * 255), dtype=np.uint8)


def _with_rows(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    if frame.is_empty():
        raise InputError(f"{path.name} holds no rows: give a file with rows.")
    pattern = next((name for name in frame.columns if name == "*" or (name[:1], name[-1:]) == ("^", "$")), None)
    if pattern:  # Polars would take it for others
        raise InputError(f"{path.name} has a column {pattern!r}, which stands for several columns: rename it.")
    return frame


def _broken_line(path: Path) -> str:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                if line.strip() and not isinstance(json.loads(line), dict):
                    return f"line {number} is not an object, write {{...}}"
            except ValueError:
                return f"line {number} is broken, write one whole JSON object per line"
    return "its lines do not fit together, give each key one type"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip()
