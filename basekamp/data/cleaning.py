"""From what was read to rows that can be used: columns and target checked, duplicates and gaps taken out.

n rows, c channels, h x w pixels.
"""

from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.data.dataset import Cleaning
from basekamp.data.images import ImageTable
from basekamp.data.split import Hashes, combine_columns, first_of_each, hash_column, hash_images, time_places
from basekamp.data.table import Table
from basekamp.data.target import EncodedTarget, check_missing, encode_target
from basekamp.errors import InputError

if TYPE_CHECKING:
    from basekamp.experiment import DataSettings


class CleanRows(NamedTuple):
    """Rows fit for use. `rows` hashes each row's content, `places` decides its side of the split.

    numbers: the row of the source, from 1. dates: a table's columns of dates, those that are dropped as well.
    """

    inputs: Table | NDArray[np.uint8]
    target: EncodedTarget
    rows: Hashes
    places: Hashes
    numbers: NDArray[np.int64]
    cleaning: Cleaning
    dates: Table | None

    def sorted(self) -> "CleanRows":
        """The same rows in an order of their own content, columns by name: alike however the source lays them out.

        A table's rows are read into memory.
        """
        order = np.argsort(self.rows, kind="stable")
        return CleanRows(
            inputs=_in_order(self.inputs, order) if isinstance(self.inputs, Table) else self.inputs[order],
            target=self.target._replace(y=self.target.y[order]),
            rows=self.rows[order],
            places=self.places[order],
            numbers=self.numbers[order],
            cleaning=self.cleaning,
            dates=None if self.dates is None else _in_order(self.dates, order),
        )


class _RowHashes(NamedTuple):
    """Hashes [n] of a row's every column, of the columns that are not dropped, and of what decides its side.

    gaps: the columns that lack a value somewhere.
    """

    whole: Hashes
    rows: Hashes
    places: Hashes
    gaps: set[str]


def clean_table(table: Table, settings: "DataSettings") -> CleanRows:
    """Check and clean a table.

    Rows are exact duplicates when they agree in every column of the source, dropped ones included: two
    things that only look alike are both kept. `rows` covers the columns that are not dropped, the target
    included, so a new column that is dropped moves no row. Rows of one group get one place; a row without
    a group stands for itself. The group column is no input: its values never meet again in another split.
    With `split.time` the newest rows are for testing, and a row without a time is for training.

    Raises: InputError.
    """
    _check_columns(table.columns, settings)
    table = table.with_columns(pl.selectors.float().fill_nan(None))
    target = table.column(settings.target)
    check_missing(target)
    known = target.is_not_null().to_numpy()
    hashes = _hash_rows(table, settings)
    first = first_of_each(hashes.whole[known])
    kept = known.copy()
    kept[known] = first
    left_out = {settings.target, settings.split.group, *settings.drop}
    inputs = table.only(kept, [name for name in table.columns if name not in left_out])
    _check_inputs(inputs.schema)
    numbers = np.flatnonzero(kept)
    numbers += 1
    gaps = [name for name in inputs.columns if name in hashes.gaps]
    counts = inputs.map_columns(pl.Series.null_count, gaps)
    time = settings.split.time
    dates = [name for name, dtype in table.schema.items() if dtype.base_type() in (pl.Date, pl.Datetime)]
    return CleanRows(
        inputs=inputs,
        target=encode_target(target.filter(pl.Series(kept)), task=settings.task),
        rows=hashes.rows[kept],
        places=time_places(table.column(time).filter(pl.Series(kept))) if time else hashes.places[kept],
        numbers=numbers,
        cleaning=Cleaning(
            rows_read=table.height,
            rows_quarantined=table.quarantined,
            duplicates_dropped=int((~first).sum()),
            missing_target_dropped=int((~known).sum()),
            dropped_columns=settings.drop,
            missing_values={name: count for name, count in zip(gaps, counts, strict=True) if count},
        ),
        dates=table.only(kept, dates),
    )


def _in_order(table: Table, order: NDArray[np.int64]) -> Table:
    columns = [table.column(name).gather(order) for name in sorted(table.columns)]
    return Table([pl.DataFrame(columns).lazy()], table.name)


def _hash_rows(table: Table, settings: "DataSettings") -> _RowHashes:
    """Hash rows batch by batch."""
    whole = np.empty(table.height, np.uint64)
    rows = np.empty_like(whole) if settings.drop else whole
    places = np.empty_like(whole) if settings.split.group else rows
    gaps: set[str] = set()
    start = 0
    for found in table.map_batches(partial(_hash_batch, settings=settings)):
        part = slice(start, start + len(found.whole))
        whole[part], rows[part], places[part] = found.whole, found.rows, found.places
        gaps |= found.gaps
        start = part.stop
    return _RowHashes(whole, rows, places, gaps)


def _hash_batch(batch: pl.DataFrame, settings: "DataSettings") -> _RowHashes:
    hashes = {column.name: hash_column(column) for column in batch}
    whole = combine_columns(hashes)
    kept = {name: one for name, one in hashes.items() if name not in settings.drop}
    rows = combine_columns(kept) if settings.drop else whole
    group = settings.split.group
    places = np.where(batch[group].is_null().to_numpy(), rows, hashes[group]) if group else rows
    return _RowHashes(whole, rows, places, {column.name for column in batch if column.has_nulls()})


def clean_images(table: ImageTable, settings: "DataSettings") -> CleanRows:
    """Check and clean images. The same image always gets the same place, whatever its label says.

    Raises: InputError.
    """
    known, split = [table.target], settings.split
    for name in (settings.target, *settings.drop, *filter(None, [split.group, split.time])):
        if name not in known:
            raise InputError(_no_column(name, known))
    if settings.drop or split.group or split.time:
        raise InputError(
            f"images have no column but {table.target!r}: leave out data.drop, split.group and split.time."
        )
    labels = _labels(table)
    rows = hash_images(table.images)
    first = first_of_each(combine_columns({"image": rows, "label": hash_column(labels)}))
    return CleanRows(
        inputs=table.images[first],
        target=encode_target(labels.filter(pl.Series(first)), task=settings.task),
        rows=rows[first],
        places=rows[first],
        numbers=np.flatnonzero(first) + 1,
        cleaning=Cleaning(
            rows_read=len(labels), rows_quarantined=table.quarantined, duplicates_dropped=int((~first).sum())
        ),
        dates=None,
    )


def _check_columns(columns: list[str], settings: "DataSettings") -> None:
    group, time = settings.split.group, settings.split.time
    for name in (settings.target, *settings.drop, *filter(None, [group, time])):
        if name not in columns:
            raise InputError(_no_column(name, columns))
    if settings.target in (*settings.drop, group, time):
        raise InputError(f"{settings.target!r} is the target: take it out of data.drop and data.split.")


def _check_inputs(inputs: pl.Schema) -> None:
    if not inputs:
        raise InputError("no column is left to learn from: take a column out of data.drop.")
    for name, dtype in inputs.items():
        if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
            raise InputError(
                f"the column {name!r} holds lists, objects or bytes ({dtype}): put it into data.drop or flatten it."
            )


def _no_column(name: str, columns: list[str]) -> str:
    near = get_close_matches(name, columns, 1)
    hint = f"did you mean {near[0]!r}?" if near else "use one of them."
    shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    return f"there is no column {name!r} among {shown}: {hint}"


def _labels(table: ImageTable) -> pl.Series:
    values: NDArray[Any] = table.labels
    if values.dtype.kind not in "biufU":
        raise InputError(f"the labels {table.target!r} are of type {values.dtype}: use numbers or strings.")
    return pl.Series(table.target, values.tolist() if values.dtype.kind == "U" else values)
