"""A table that need not fit in memory: read a column at a time, or a batch of rows at a time. n rows."""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.errors import InputError
from basekamp.threads import ahead, computed

BATCH_VALUES = 1 << 21
PARTS_AT_ONCE = 16
"""Files of a table that are mapped at a time: all of them may be larger than the address space allows."""

Item = TypeVar("Item")
Made = TypeVar("Made")


def _slices(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """`size` of the items at a time; the last may be fewer."""
    return (items[start : start + size] for start in range(0, len(items), size))


def check_column_name(column: str, where: str) -> None:
    """Refuse a name that Polars would take for other columns; raises InputError."""
    if column == "*" or (column[:1], column[-1:]) == ("^", "$"):
        raise InputError(f"{where} has a column {column!r}, which stands for several columns: rename it.")


class Table:
    """The rows of a source. Columns are read when they are asked for, from Parquet files or from memory.

    `quarantined` counts rows of the source that were put aside.
    """

    def __init__(self, parts: list[pl.LazyFrame], name: str, *, quarantined: int = 0) -> None:
        self._parts = parts
        self._kept: NDArray[np.bool_] | None = None
        self.name = name
        self.quarantined = quarantined
        self.schema = parts[0].collect_schema()
        for column in self.schema.names():
            check_column_name(column, name)
        self._heights = [int(part.select(pl.len()).collect().item()) for part in parts]
        self.height = sum(self._heights)

    @property
    def columns(self) -> list[str]:
        """The columns' names, in their order."""
        return self.schema.names()

    def column(self, name: str) -> pl.Series:
        """Read one column [n]; raises InputError when its file is damaged."""
        return self._together([name])[0]

    def map_columns(self, act: Callable[[pl.Series], Made], names: Sequence[str] | None = None) -> Iterator[Made]:
        """Give `act(column)` for each column [n], or for some, in turn; a few are held at a time."""
        n = max(1, sum(self._heights))  # a table without columns has no rows
        at_once = max(1, BATCH_VALUES // n)
        groups = _slices(self.columns if names is None else names, at_once)
        return chain.from_iterable(computed(lambda group: list(map(act, self._together(group))), groups))

    def _together(self, names: Sequence[str]) -> list[pl.Series]:
        """Read some columns at once, for opening many files costs more than reading few values of each."""
        where = f", column {names[0]!r}," if len(names) == 1 else ""
        try:
            frame = pl.concat(
                self._read(pl.concat([part.select(names) for part in some]), where)
                for some in _slices(self._parts, PARTS_AT_ONCE)
            )
        except InputError:
            if len(names) == 1:
                raise
            return [self.column(name) for name in names]  # which raises for the one that is damaged
        return (frame if self._kept is None else frame.filter(pl.Series(self._kept))).get_columns()

    def map_batches(self, act: Callable[[pl.DataFrame], Made]) -> Iterator[Made]:
        """Give `act(rows)` for all rows, some of them at a time, in order."""
        return computed(lambda place: act(self._batch(*place)), self._places())

    def _places(self) -> Iterator[tuple[pl.LazyFrame, int, int, int]]:
        """A part, where a batch begins in it, how many rows it has at most, and the row of the table it begins at."""
        rows, seen = max(1, BATCH_VALUES // len(self.columns)), 0
        for part, height in zip(self._parts, self._heights, strict=True):
            for start in range(0, height, rows):
                yield part, start, rows, seen + start
            seen += height

    def _batch(self, part: pl.LazyFrame, start: int, rows: int, seen: int) -> pl.DataFrame:
        batch = self._read(part.slice(start, rows))
        if self._kept is None:
            return batch
        return batch.filter(pl.Series(self._kept[seen : seen + batch.height]))

    def with_columns(self, *columns: pl.Expr) -> "Table":
        """Return the table with columns computed from its own."""
        return self._of([part.with_columns(*columns) for part in self._parts])

    def only(self, kept: NDArray[np.bool_], columns: list[str]) -> "Table":
        """Return the marked rows of some columns."""
        table = self._of([part.select(columns) for part in self._parts])
        if self._kept is None:
            table._kept = kept
        else:
            table._kept = self._kept.copy()
            table._kept[self._kept] = kept
        table.height = int(kept.sum())
        return table

    def collect(self) -> pl.DataFrame:
        """Read the whole table into memory."""
        return self._read(pl.concat(self._parts))

    def _of(self, parts: list[pl.LazyFrame]) -> "Table":
        table = copy(self)
        table._parts, table.schema = parts, parts[0].collect_schema()
        return table

    def _read(self, frame: pl.LazyFrame, where: str = "") -> pl.DataFrame:
        try:
            return frame.collect()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"{self.name}{where} is damaged ({reason}): fetch or write it again.") from error


def store_frames(frames: Iterator[pl.DataFrame], folder: Path) -> list[Path]:
    """Write rows as Parquet files, few and large: what is known of each column of each file stays in memory."""
    folder.mkdir(exist_ok=True)
    files = []
    for index, frame in enumerate(ahead(_joined(frames))):
        files.append(folder / f"{index:08}.parquet")
        frame.write_parquet(files[-1], compression="lz4", statistics=False, row_group_size=frame.height)
    return files


def _joined(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Put frames of the same types together, up to as many values as are read at a time."""
    waiting: list[pl.DataFrame] = []
    for frame in frames:
        values = sum(each.height * each.width for each in waiting)
        if waiting and (values >= BATCH_VALUES or waiting[0].schema != frame.schema):
            yield pl.concat(waiting)
            waiting = []
        waiting.append(frame)
    if waiting:
        yield pl.concat(waiting)


def stored_table(files: list[Path], name: str, *, schema: pl.Schema | None = None, quarantined: int = 0) -> Table:
    """Open Parquet files as one table: of the same columns, or each brought to `schema`."""
    parts = [pl.scan_parquet(path, glob=False) for path in files]
    if schema:
        parts = [_brought_to(schema, part) for part in parts]
    return Table(parts, name, quarantined=quarantined)


def _brought_to(schema: pl.Schema, part: pl.LazyFrame) -> pl.LazyFrame:
    """The part with these columns: its own in their type, of the others nothing."""
    own = part.collect_schema()
    return part.select(
        (pl.col(name) if name in own else pl.lit(None).alias(name)).cast(dtype) for name, dtype in schema.items()
    )


def named(files: Sequence[Path]) -> str:
    """What messages call a table of these files."""
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
