"""Which split a row belongs to: a function of the row's own content and of nothing else, but for a split by time.

A row keeps its side when rows are added, removed or reordered, on any machine and with any version of the
libraries: the hash is defined here. Canonical values: a number is the bits of its float64 (-0.0 as 0.0; whole
numbers beyond 2^53 as themselves), a missing value or NaN one constant, a bool 0 or 1, a date or time its
microseconds, a string the blake2b of its UTF-8.

n rows.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.data.dataset import SPLITS
from basekamp.errors import InputError

Hashes = NDArray[np.uint64]

MISSING = np.uint64(0x9E6C63D0876A9A47)
EXACT = 2**53


def splitmix64(values: Hashes) -> Hashes:
    """Mix 64 bits so that every input bit reaches every output bit.

    Source: Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014).
    """
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            values ^= values >> np.uint64(shift)
            values *= np.uint64(factor)
        values ^= values >> np.uint64(31)
    return values


def hash_text(text: bytes) -> int:
    """Hash bytes to 64 bits with blake2b."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def hash_column(column: pl.Series, *, key: bytes = b"") -> Hashes:
    """Hash each value to [n], seeded by the column's name; each key is another hash."""
    seed = np.uint64(hash_text(key + column.name.encode()))
    return splitmix64(_canonical(column, key) ^ seed)


def combine_columns(columns: Mapping[str, Hashes]) -> Hashes:
    """Join the hashes of a row's columns, in the order of their names, into one per row [n]."""
    names = sorted(columns)
    combined = columns[names[0]]
    for name in names[1:]:
        combined = splitmix64(combined)
        combined ^= columns[name]
    return splitmix64(combined)


def hash_images(images: NDArray[np.uint8], *, key: bytes = b"") -> Hashes:
    """Hash each image to [n], over its bytes and shape; each key is another hash."""
    flat = images.reshape(len(images), -1)
    combined = np.full(len(images), hash_text(key + str(images.shape[1:]).encode()), np.uint64)
    for start in range(0, flat.shape[1], 8):
        piece = flat[:, start : start + 8]
        if piece.shape[1] < 8:
            piece = np.pad(piece, ((0, 0), (0, 8 - piece.shape[1])))
        combined = splitmix64(combined ^ np.ascontiguousarray(piece).view("<u8")[:, 0])
    return combined


def first_of_each(hashes: Hashes) -> NDArray[np.bool_]:
    """Mark [n] where a hash occurs for the first time."""
    return pl.Series(hashes).is_first_distinct().to_numpy()


def assign_sides(hashes: Hashes, *, validation: float, test: float) -> NDArray[np.int8]:
    """Return the side [n] of each row as its position in SPLITS; the lowest hashes are for testing."""
    place = (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53
    sides = np.zeros(len(hashes), np.int8)
    sides[place < test + validation] = SPLITS.index("validation")
    sides[place < test] = SPLITS.index("test")
    return sides


def time_places(times: pl.Series) -> Hashes:
    """Return places [n] for `assign_sides` that follow time: the newest row the lowest, equal times one place.

    Raises: InputError when the column holds neither dates nor numbers.
    """
    if not (times.dtype.is_temporal() or times.dtype.is_numeric()):
        raise InputError(
            f"data.split.time: {times.name} is of type {times.dtype}: name a column of dates or numbers, or write its "
            "dates as 2026-01-31."
        )
    newer = times.rank("min", descending=True).fill_null(len(times)).to_numpy().astype(np.float64) - 1
    return np.ceil(newer / len(times) * 2.0**53).astype(np.uint64) << np.uint64(11)


def check_sides(sides: NDArray[np.int8], labels: NDArray[np.int64], classes: tuple[str, ...]) -> None:
    """Refuse sides that cannot be trained and judged on; without classes, only their sizes are looked at.

    Raises: InputError when a split has under two rows, training lacks a class, or validation has only one.
    """
    for index, name in enumerate(SPLITS):
        rows = int((sides == index).sum())
        if rows < 2:
            raise InputError(
                f"the {name} split gets {rows} of {len(sides)} rows, at least 2 are needed: give more rows "
                "(equal rows, and rows of one group, share a side) or change the shares in data.split."
            )
    if not classes:
        return
    seen = np.bincount(labels[sides == 0], minlength=len(classes))
    if len(unseen := np.flatnonzero(seen == 0)):
        raise InputError(
            f"class {classes[unseen[0]]!r} is not in the training split ({len(unseen)} of {len(classes)} are "
            "not): give it more rows or take the class out."
        )
    if len(np.unique(labels[sides == 1])) < 2:
        raise InputError(
            "the validation split holds a single class, at least 2 are needed: give more rows or raise "
            "data.split.validation."
        )


def check_groups(group: str, validation: Hashes) -> None:
    """Refuse a validation split of a single group, by the hashes of its groups: nobody could tell how another differs.

    Raises: InputError.
    """
    if len(np.unique(validation)) < 2:
        raise InputError(
            f"all {len(validation)} validation rows are of one group of {group!r}, at least 2 groups are needed: "
            "raise data.split.validation, or group by a column of more values."
        )


def _canonical(column: pl.Series, key: bytes) -> Hashes:
    if column.dtype.is_temporal():
        return _filled(_microseconds(column), column)
    if column.dtype == pl.Boolean:
        return _filled(column, column)
    if column.dtype.is_numeric():
        return _number_bits(column, key)
    if column.dtype == pl.Null:
        return np.full(len(column), MISSING)
    return _text_bits(column, key)


def _microseconds(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Time:
        return column.cast(pl.Int64) // 1000
    if column.dtype == pl.Duration:
        return column.dt.total_microseconds()
    return column.cast(pl.Datetime("us")).to_physical()


def _filled(values: pl.Series, column: pl.Series) -> Hashes:
    bits = values.cast(pl.Int64).fill_null(0).to_numpy().view(np.uint64).copy()
    bits[column.is_null().to_numpy()] = MISSING
    return bits


def _number_bits(column: pl.Series, key: bytes) -> Hashes:
    numbers = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    bits = (numbers + 0.0).view(np.uint64).copy()
    bits[np.isnan(numbers)] = MISSING
    if column.dtype.is_integer() and (large := np.abs(numbers) > EXACT).any():
        exact = column.filter(pl.Series(large)).cast(pl.String).to_list()
        bits[large] = [hash_text(key + value.encode()) for value in exact]
    return bits


def _text_bits(column: pl.Series, key: bytes) -> Hashes:
    if column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Object):
        return np.array(
            [MISSING if v is None else hash_text(key + repr(v).encode()) for v in column.to_list()], np.uint64
        )
    text = column.cast(pl.String)
    known = text.drop_nulls().unique()
    hashes = pl.Series([hash_text(key + value.encode()) for value in known.to_list()], dtype=pl.UInt64)
    return text.replace_strict(known, hashes, default=int(MISSING), return_dtype=pl.UInt64).to_numpy().copy()
