"""From what was read to rows that can be used: columns and target checked, duplicates and gaps taken out.

n rows, c channels, h x w pixels.
"""

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.data.dataset import Cleaning
from basekamp.data.readers import ImageTable
from basekamp.data.split import Hashes, combine_columns, first_of_each, hash_column, hash_images, time_places
from basekamp.data.target import EncodedTarget, check_missing, encode_target
from basekamp.errors import InputError

if TYPE_CHECKING:
    from basekamp.experiment import DataSettings


class CleanRows(NamedTuple):
    """Rows fit for use. `rows` hashes each row's content, `places` decides its side of the split.

    numbers: the row of the source, from 1. dates: its columns of dates, those that are dropped as well.
    """

    inputs: pl.DataFrame | NDArray[np.uint8]
    target: EncodedTarget
    rows: Hashes
    places: Hashes
    numbers: NDArray[np.int64]
    cleaning: Cleaning
    dates: pl.DataFrame

    def sorted(self) -> "CleanRows":
        """The same rows in an order of their own content, columns by name: alike however the source lays them out."""
        order = np.argsort(self.rows, kind="stable")
        inputs = self.inputs[order]
        return CleanRows(
            inputs=inputs.select(sorted(inputs.columns)) if isinstance(inputs, pl.DataFrame) else inputs,
            target=self.target._replace(y=self.target.y[order]),
            rows=self.rows[order],
            places=self.places[order],
            cleaning=self.cleaning,
            numbers=self.numbers[order],
            dates=self.dates[order] if self.dates.width else self.dates,
        )


def clean_table(frame: pl.DataFrame, settings: "DataSettings") -> CleanRows:
    """Check and clean a table.

    Rows are exact duplicates when they agree in every column of the source, dropped ones included: two
    things that only look alike are both kept. `rows` covers the columns that are not dropped, the target
    included, so a new column that is dropped moves no row. Rows of one group get one place; a row without
    a group stands for itself. The group column is no input: its values never meet again in another split.
    With `split.time` the newest rows are for testing, and a row without a time is for training.

    Raises: InputError.
    """
    _check_columns(frame, settings)
    frame = frame.with_columns(pl.selectors.float().fill_nan(None))
    read = frame.height
    check_missing(frame[settings.target])
    numbers = np.flatnonzero(frame[settings.target].is_not_null().to_numpy()) + 1
    frame = frame.drop_nulls(settings.target)
    hashes = {column.name: hash_column(column) for column in frame}
    first = first_of_each(combine_columns(hashes))
    missing = read - frame.height
    frame = frame.filter(pl.Series(first))
    group = settings.split.group
    rows = combine_columns({name: h[first] for name, h in hashes.items() if name not in settings.drop})
    places = rows
    if settings.split.time:
        places = time_places(frame[settings.split.time])
    elif group:
        places = np.where(frame[group].is_null().to_numpy(), rows, hashes[group][first])
    inputs = frame.drop(settings.target, group, *settings.drop, strict=False)
    _check_inputs(inputs)
    return CleanRows(
        inputs=inputs,
        target=encode_target(frame[settings.target], task=settings.task),
        rows=rows,
        places=places,
        numbers=numbers[first],
        cleaning=Cleaning(
            rows_read=read,
            duplicates_dropped=int((~first).sum()),
            missing_target_dropped=missing,
            dropped_columns=settings.drop,
            missing_values={c.name: c.null_count() for c in inputs if c.null_count()},
        ),
        dates=frame.select(pl.selectors.date() | pl.selectors.datetime()),
    )


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
        cleaning=Cleaning(rows_read=len(labels), duplicates_dropped=int((~first).sum())),
        dates=pl.DataFrame(),
    )


def _check_columns(frame: pl.DataFrame, settings: "DataSettings") -> None:
    group, time = settings.split.group, settings.split.time
    for name in (settings.target, *settings.drop, *filter(None, [group, time])):
        if name not in frame.columns:
            raise InputError(_no_column(name, frame.columns))
    if settings.target in (*settings.drop, group, time):
        raise InputError(f"{settings.target!r} is the target: take it out of data.drop and data.split.")


def _check_inputs(inputs: pl.DataFrame) -> None:
    if not inputs.width:
        raise InputError("no column is left to learn from: take a column out of data.drop.")
    for name, dtype in inputs.schema.items():
        if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
            raise InputError(f"the column {name!r} is of type {dtype}: put it into data.drop or flatten it.")


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
