"""Readers of Parquet, .npz and the bundled digits; each turns whatever is broken into one sentence.

n rows, c channels, h x w pixels.
"""

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.lib import format as npy
from numpy.typing import NDArray

from basekamp.data.archives import check_expansion
from basekamp.data.decoding import check_decode
from basekamp.data.images import ImageTable
from basekamp.data.table import Table, named, stored_table
from basekamp.errors import InputError

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
        table = stored_table(files, named(files))
        cells = table.height * len(table.columns)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InputError(f"{named(files)} cannot be read as Parquet ({_first_line(error)}): write it again.") from error
    check_expansion(named(files), sum(path.stat().st_size for path in files), cells)
    return _with_rows(table)


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


def _with_rows(table: Table) -> Table:
    if not table.height or not table.columns:
        raise InputError(f"{table.name} holds no rows: give a file with rows.")
    return table


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].strip()
