"""Which data these are: by the bytes of the file, or by the content of the table.

The version by content depends neither on the order of rows and columns nor on how the file lays them out. Two hashes
of 64 bits of each row, under keys of their own, are added up over the rows modulo 2^64 each; so a row counts as often
as it occurs. Two tables that differ, and that nobody made to collide, share a version with a probability of 2^-128,
times at most the square of the largest power of two that divides the differences of how often each row occurs.

Values are canonical as in `basekamp.data.split`: 1 and 1.0 are one value, a missing value and NaN as well, and a date
and its midnight; true is not 1, the text "1" is not the number, and an empty text is not a missing value. A CSV knows
no difference between the last two, so that a table with empty texts is one version as CSV and another as Parquet.
Rows that `data.reading` puts aside are no part of it.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from basekamp.data.images import ImageTable
from basekamp.data.sources import local_files, read_local, source_fingerprint
from basekamp.data.split import Hashes, combine_columns, hash_column, hash_images
from basekamp.data.table import Table

if TYPE_CHECKING:
    from basekamp.experiment import DataSettings

KEYS = (b"one", b"other")


def data_version(settings: "DataSettings") -> str:
    """Return what changes when the data do: a fingerprint of the file, or with `version: content` of the table.

    Raises: InputError when the source cannot be found, or read.
    """
    if settings.version != "content":
        return source_fingerprint(settings.source)
    with tempfile.TemporaryDirectory(prefix="basekamp-") as name:
        files = local_files(settings.source, Path(name))
        return content_version(read_local(settings.source, files, settings.reading, Path(name)))


def content_version(table: Table | ImageTable) -> str:
    """Return 32 hex digits over the columns' names and the multiset of rows, of which a batch is held at a time."""
    digest = hashlib.blake2b(digest_size=16)
    names = sorted(table.columns) if isinstance(table, Table) else ["image", table.target]
    for name in names:
        digest.update(f"{len(name)}:{name}".encode())
    sums, n_rows = np.zeros(len(KEYS), np.uint64), 0
    for hashes in _hashes(table):
        sums += np.array([rows.sum(dtype=np.uint64) for rows in hashes], np.uint64)
        n_rows += len(hashes[0])
    for total in sums.tolist():
        digest.update(total.to_bytes(8, "little"))
    digest.update(n_rows.to_bytes(8, "little"))
    return digest.hexdigest()


def _hashes(table: Table | ImageTable) -> Iterator[list[Hashes]]:
    """Hashes of rows [n] for each key, batch by batch."""
    if isinstance(table, Table):
        yield from table.map_batches(_batch_hashes)
        return
    labels = pl.Series(table.target, table.labels)
    columns = [
        {"image": hash_images(table.images, key=key), table.target: hash_column(labels, key=key)} for key in KEYS
    ]
    yield [combine_columns(one) for one in columns]


def _batch_hashes(batch: pl.DataFrame) -> list[Hashes]:
    return [combine_columns({column.name: hash_column(column, key=key) for column in batch}) for key in KEYS]
