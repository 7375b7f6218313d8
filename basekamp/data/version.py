"""Which data these are: by the bytes of the file, or by the content of the table.

The version by content depends neither on the order of rows and columns nor on how the file lays them out. Two hashes
of 64 bits of each row, under keys of their own, are added up over the rows modulo 2^64 each; so a row counts as often
as it occurs. Two tables that differ, and that nobody made to collide, share a version with a probability of 2^-128,
times at most the square of the largest power of two that divides the differences of how often each row occurs.

Values are canonical as in `basekamp.data.split`: 1 and 1.0 are one value, a missing value and NaN as well, and a date
and its midnight; true is not 1, the text "1" is not the number, and an empty text is not a missing value. A CSV knows
no difference between the last two, so that a table with empty texts is one version as CSV and another as Parquet.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from basekamp.data.readers import ImageTable
from basekamp.data.sources import read_source, source_fingerprint
from basekamp.data.split import combine_columns, hash_column, hash_images

if TYPE_CHECKING:
    from basekamp.experiment import DataSettings

KEYS = (b"one", b"other")


def data_version(settings: "DataSettings") -> str:
    """Return what changes when the data do: a fingerprint of the file, or with `version: content` of the table.

    Raises: InputError when the source cannot be found, or read.
    """
    if settings.version == "content":
        return content_version(read_source(settings.source))
    return source_fingerprint(settings.source)


def content_version(table: pl.DataFrame | ImageTable) -> str:
    """Return 32 hex digits over the columns' names and the multiset of rows."""
    digest = hashlib.blake2b(digest_size=16)
    names = sorted(table.columns) if isinstance(table, pl.DataFrame) else ["image", table.target]
    for name in names:
        digest.update(f"{len(name)}:{name}".encode())
    for key in KEYS:
        rows = combine_columns(_hashes(table, key))
        digest.update(int(rows.sum(dtype=np.uint64)).to_bytes(8, "little"))
    digest.update(len(rows).to_bytes(8, "little"))
    return digest.hexdigest()


def _hashes(table: pl.DataFrame | ImageTable, key: bytes) -> dict[str, np.ndarray]:
    if isinstance(table, pl.DataFrame):
        return {column.name: hash_column(column, key=key) for column in table}
    labels = pl.Series(table.target, table.labels)
    return {"image": hash_images(table.images, key=key), table.target: hash_column(labels, key=key)}
