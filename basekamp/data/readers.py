"""One reader per file format but CSV; each turns whatever is broken into one sentence.

n rows, c channels, h x w pixels.
"""

import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.lib import format as npy
from numpy.typing import NDArray

from basekamp.data.archives import check_expansion
from basekamp.data.decoding import check_decode
from basekamp.data.images import ImageTable
from basekamp.data.quarantine import BadRow, put_aside, write_quarantine
from basekamp.data.table import Table, stored_table
from basekamp.errors import InputError

if TYPE_CHECKING:
    from basekamp.experiment import Reading

NPZ_PAIRS = [("x", "y"), ("images", "labels"), ("X", "y")]
CHANNELS = (1, 3, 4)
PARQUET = b"PAR1"
_DAMAGES = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, AttributeError, RuntimeError)


def read_parquet(files: list[Path]) -> Table:
    """Open Parquet files of the same columns, types as stored; nothing but what they declare is read yet.

    Raises: InputError.
    """
    for path in files:
        _check_parquet(path)
    check_decode(files)
    try:
        _check_alike(files)
        table = stored_table(files, _named(files))
        cells = table.height * len(table.columns)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InputError(
            f"{_named(files)} cannot be read as Parquet ({_first_line(error)}): write it again."
        ) from error
    check_expansion(_named(files), sum(path.stat().st_size for path in files), cells)
    return _with_rows(table)


def read_jsonl(path: Path, reading: "Reading", scratch: Path, quarantine: Path | None = None) -> Table:
    """Read one JSON object per line into memory; keys that a line lacks are missing there.

    Raises: InputError for a broken line (or it is put into `quarantine`), a key that is given twice, and a key
    whose values are of different kinds.
    """
    kept, bad = scratch / f"{path.name}.kept", []
    kinds: dict[str, dict[str, int]] = {}
    with path.open("rb") as file, kept.open("wb") as out:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if reason := _json_problem(line, number, kinds):
                row = BadRow(number, reason, line)
                put_aside(path.name, reading, [row])
                bad.append(row)
            else:
                out.write(line if line.endswith(b"\n") else line + b"\n")
    for key, lines in kinds.items():
        if len(lines) > 1:
            (one, first), (other, second) = sorted(lines.items(), key=lambda item: item[1])[:2]
            raise InputError(
                f"{path.name}, key {key!r}: line {first} holds {one} and line {second} {other}: give each key one type."
            )
    if bad and quarantine:
        write_quarantine(quarantine, path.name, bad)
    try:
        frame = pl.read_ndjson(kept, infer_schema_length=None) if kept.stat().st_size else pl.DataFrame()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InputError(
            f"{path.name} is not readable JSON lines ({_first_line(error)}): give each key one type."
        ) from error
    return _with_rows(Table([frame.lazy()], path.name, quarantined=len(bad)))


def read_npz(path: Path) -> Table | ImageTable:
    """Read arrays x and y, or images and labels: [n, d] is a table x0, x1, ...; 3 or 4 axes are images."""
    try:
        _check_npz(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            pair = next((p for p in NPZ_PAIRS if set(p) <= set(arrays.files)), None)
            if pair is None:
                found = ", ".join(arrays.files) or "none"
                raise InputError(f"{path.name} holds the arrays {found}: name them x and y, or images and labels.")
            x, y = arrays[pair[0]], arrays[pair[1]]
    except _DAMAGES as error:
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
    return Table([pl.LazyFrame({f"x{i}": x[:, i] for i in range(x.shape[1])} | {pair[1]: y})], path.name)


def read_digits(path: Path) -> ImageTable:
    """Read the 1,797 handwritten digits of scikit-learn: [n, 1, 8, 8], values 0 to 16, target `digit`."""
    table = pl.read_csv(path, has_header=False).to_numpy()
    return ImageTable(table[:, :64].reshape(-1, 1, 8, 8).astype(np.uint8), table[:, 64].astype(np.int64), "digit")


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


def _check_parquet(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(-min(8, path.stat().st_size), 2)
        tail = file.read()
    if head == b"PARE" or tail.endswith(b"PARE"):
        raise InputError(f"{path.name} is encrypted: write it in the open.")
    if head != PARQUET:
        raise InputError(f"{path.name} is not a Parquet file: check how it was written.")
    length = int.from_bytes(tail[:4], "little")
    if not tail.endswith(PARQUET) or length + 12 > path.stat().st_size:
        raise InputError(f"{path.name} is a Parquet file that is cut off: fetch or write it again.")


def _check_alike(files: list[Path]) -> None:
    first = pl.read_parquet_schema(files[0])
    for path in files[1:]:
        if list((schema := pl.read_parquet_schema(path)).items()) != list(first.items()):
            other = next((name for name in schema if schema[name] != first.get(name)), "")
            where = f"the column {other!r}" if other else "its columns"
            raise InputError(f"{path.name} is not like {files[0].name} ({where}): give files of the same columns.")


def _check_npz(path: Path) -> None:
    """Compare what an archive and its arrays declare with what they hold, before numpy reads them."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        check_expansion(path.name, path.stat().st_size, sum(each.file_size for each in entries))
        for each in entries:
            with archive.open(each) as member:
                version = npy.read_magic(member)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read(member)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize != each.file_size - member.tell():
                    raise ValueError(f"{each.filename} declares another size than it has")


def _json_problem(line: bytes, number: int, kinds: dict[str, dict[str, int]]) -> str:
    """Say why a line is no object that can be kept exactly; remember the line of each kind of value per key."""
    try:
        value = json.loads(line, object_pairs_hook=_once, parse_constant=_not_json, parse_float=_finite)
    except UnicodeDecodeError:
        return "is not UTF-8"
    except RecursionError:
        return "is nested too deeply"
    except ValueError as error:
        return str(error) if type(error) is ValueError else "is broken, write one whole JSON object per line"
    if not isinstance(value, dict):
        return "is not an object, write {...}"
    for key, item in value.items():
        if isinstance(item, int) and not isinstance(item, bool) and not -(2**63) <= item < 2**63:
            return f"has a whole number beyond 64 bits in {key!r}, write it as text"
    for key, item in value.items():
        for kind in _kinds(item):
            kinds.setdefault(key, {}).setdefault(kind, number)
    return ""


def _kinds(item: Any) -> Iterator[str]:
    if item is not None:
        names = {
            bool: "true or false",
            int: "a number",
            float: "a number",
            str: "text",
            dict: "an object",
            list: "a list",
        }
        yield names[type(item)]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("gives a key twice")
    return dict(pairs)


def _finite(text: str) -> float:
    if math.isinf(float(text)):
        raise ValueError(f"has {text[:20]}, which is beyond what a number can be")
    return float(text)


def _not_json(text: str) -> None:
    raise ValueError(f"has {text}, which is not JSON, write null for a missing value")


def _with_rows(table: Table) -> Table:
    if not table.height or not table.columns:
        raise InputError(f"{table.name} holds no rows: give a file with rows.")
    return table


def _named(files: list[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].strip()
