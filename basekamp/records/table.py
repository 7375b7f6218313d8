"""A listing's records as columns: split, filtered and sorted all at once, and read whole only where looked at."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.naming import CUT, FIELD_START, ID, NUMBER, WORDS, Value, read_value, unescape
from basekamp.records.columns import NOTHING, NUMBER_TEXT, NUMERAL, TRUTH, Column
from basekamp.records.record import BASELINE
from basekamp.records.row import MODEL, RECORD, Row, collector_paused

Places = NDArray[np.intp]

_BORDER = "\x00"  # stands in no key
_RESULT = rf"^(?:{NUMBER.pattern}|nan|-?inf)$"
AFTER = ("difference", "low", "high", "verdict")


@dataclass(frozen=True)
class Shape:
    """A sequence of keys that a record's name can have: settings up to n, metrics up to spread, then the verdict.

    at: which piece of a name holds the value of a key; the first piece is the model.
    """

    params: tuple[str, ...]
    metrics: tuple[str, ...]
    after: tuple[str, ...]
    at: dict[str, int]
    at_n: int
    at_spread: int


@lru_cache(maxsize=1 << 16)
def read_shape(joined: str) -> Shape | None:
    """The shape of keys as they stand in a name; None where it is no record's."""
    keys = tuple(FIELD_START.findall(joined))
    if len(set(keys)) != len(keys) or not {"n", "loss", "spread"} <= set(keys):
        return None
    at_n, at_loss, at_spread = keys.index("n"), keys.index("loss"), keys.index("spread")
    after = tuple(key for key in keys[at_spread + 1 :] if key in AFTER)
    if not at_n < at_loss < at_spread or ("low" in after) != ("high" in after):
        return None
    at = {key: place for place, key in enumerate(keys, 1) if place <= at_spread + 1 or key in after}
    return Shape(keys[:at_n], keys[at_n + 1 : at_spread], after, {"model": 0, **at}, at_n + 1, at_spread + 1)


def split_keys(keys: Sequence[str]) -> pl.DataFrame:
    """Split keys of records: one line each, by experiment and id; those that are none of a record last, without id.

    shape: the keys as they stand in the name. texts: the model and the values as they are written. They are split as
    basekamp.naming.parse_name splits them.
    """
    parts = pl.col("key").str.split("/")
    name = parts.list.last().str.strip_suffix(RECORD)
    attempt = (
        pl.when((parts.list.len() == 4) & (parts.list.get(1, null_on_oob=True) == "attempts"))
        .then(parts.list.get(2, null_on_oob=True))
        .when((parts.list.len() == 3) & (parts.list.get(1, null_on_oob=True) == BASELINE))
        .then(pl.lit(BASELINE))
    )
    frame = pl.DataFrame({"key": keys}, schema={"key": pl.String}).select(
        "key",
        experiment=parts.list.first(),
        attempt=pl.when(~name.str.starts_with(".")).then(attempt),
        keys=name.str.extract_all(FIELD_START.pattern).list.join(""),
        texts=name.str.replace_all(FIELD_START.pattern, _BORDER).str.split(_BORDER),
    )
    fields, texts = pl.col("keys"), pl.col("texts")
    has_id = fields.str.ends_with(".id-") & texts.list.last().str.contains(f"^(?:{ID.pattern})$")
    frame = frame.select(
        *("key", "experiment", "attempt"),
        id=pl.when(has_id & pl.col("attempt").is_not_null()).then(texts.list.last()),
        keys=fields.str.strip_suffix(".id-"),
        texts=texts.list.head(texts.list.len() - 1),
    )
    has_cut = fields.str.ends_with(".cut-") & texts.list.last().str.contains(f"^(?:{CUT.pattern})$")
    frame = frame.select(
        *("key", "experiment", "attempt", "id"),
        cut=pl.when(has_cut).then(texts.list.last().str.strip_suffix("more")).cast(pl.Int64).fill_null(0),
        shape=pl.when(has_cut).then(fields.str.strip_suffix(".cut-")).otherwise(fields).cast(pl.Categorical),
        texts=texts.list.head(texts.list.len() - has_cut.fill_null(False)),
    )
    id = pl.when(_tells_results(frame)).then(pl.col("id"))
    return frame.with_columns(id=id).sort("experiment", "id", nulls_last=True, maintain_order=True)


def _tells_results(frame: pl.DataFrame) -> pl.Series:
    """Where the fields are a record's, and its results numbers, and its verdict a word."""
    shapes = _shapes(frame)
    begin = {text: shape.at_n for text, shape in shapes.items()}
    count = {text: len(shape.metrics) + 2 for text, shape in shapes.items()}
    shape, texts = pl.col("shape"), pl.col("texts")
    first = shape.replace_strict(begin, default=None, return_dtype=pl.Int64)
    results = texts.list.slice(first, shape.replace_strict(count, default=None, return_dtype=pl.Int64))
    are_numbers = results.list.eval(pl.element().str.contains(_RESULT)).list.all()
    n_is_whole = texts.list.get(first, null_on_oob=True).str.contains("^-?[0-9]+$")
    after = {
        key: _texts(frame, {text: told.at[key] for text, told in shapes.items() if key in told.after}) for key in AFTER
    }
    fits = [after[key].is_null() | after[key].str.contains(_RESULT) for key in AFTER[:-1]]
    fits.append(
        after["verdict"].is_null() | ~after["verdict"].str.contains(NUMBER_TEXT) & ~after["verdict"].is_in([*WORDS])
    )
    told = frame.select((shape.is_in([*shapes]) & are_numbers & n_is_whole).fill_null(False)).to_series()
    for one in fits:
        told &= one
    return told


def _shapes(frame: pl.DataFrame) -> dict[str, Shape]:
    """The shapes that are a record's."""
    told = {text: read_shape(text) for text in frame["shape"].unique(maintain_order=True)}
    return {text: shape for text, shape in told.items() if shape}


def _texts(frame: pl.DataFrame, places: dict[str, int]) -> pl.Series:
    """The piece at a place that each shape tells, as it is written; null where the shape has none."""
    if not places:
        return pl.Series([None], dtype=pl.String).new_from_index(0, len(frame))
    place = pl.col("shape").replace_strict(places, default=None, return_dtype=pl.Int64)
    return frame.select(pl.col("texts").list.get(place, null_on_oob=True)).to_series()


class Table:
    """The records of a listing as `split_keys` tells them, with what is known only of all of them together."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame
        self.lineages = np.ones(len(frame), dtype=np.int64)
        self.champions = np.zeros(len(frame), dtype=np.bool_)
        self._columns: dict[str, Column] = {}

    def column(self, key: str) -> Column:
        """What each record has under a key: a setting, a metric, or what a row says besides."""
        if key not in self._columns:
            self._columns[key] = self._column(key)
        return self._columns[key]

    @cached_property
    def deciding(self) -> Column:
        """The deciding metric of each record."""
        places = {text: shape.at_spread - 1 for text, shape in self.shapes.items()}
        return Column.read(_texts(self.frame, places))

    @cached_property
    def metrics(self) -> pl.Series:
        """The name of each record's deciding metric."""
        names = {text: shape.metrics[-1] for text, shape in self.shapes.items()}
        return self.frame["shape"].replace_strict(names, default=None, return_dtype=pl.String)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Every shape of a record here."""
        return _shapes(self.frame)

    def read(self, places: Places) -> list[Row]:
        """The rows at these places, whole."""
        with collector_paused():
            part = self.frame[places]
            texts = part["texts"].to_list()
            values = {text: read_value(text) for text in part["texts"].list.explode().unique()}
            read = ([unescape(model), *map(values.__getitem__, rest)] for model, *rest in texts)
            told = (part[name].to_list() for name in ("key", "experiment", "attempt", "id", "cut", "shape"))
            lineages, champions = self.lineages[places].tolist(), self.champions[places].tolist()
            return list(map(_row, *told, read, lineages, champions))

    def _column(self, key: str) -> Column:
        if key == "model":
            models = self.frame["texts"].list.first()
            names = {text: unescape(text) for text in models.drop_nulls().unique()}
            return Column.of_texts(models.replace_strict(names, default=None, return_dtype=pl.String))
        places = {text: shape.at[key] for text, shape in self.shapes.items() if key in shape.at}
        written = Column.read(_texts(self.frame, places))
        if not (written.kinds == NOTHING).any():
            return written
        return written.filled(self._besides(key))

    def _besides(self, key: str) -> Column:
        """What a row says under a key that is no field of its name."""
        match key:
            case "experiment" | "attempt" | "id":
                return Column.of_texts(self.frame[key])
            case "key" | "name":
                keys = self.frame["key"].str.strip_suffix(RECORD) + MODEL
                return Column.of_texts(keys if key == "key" else keys.str.split("/").list.last())
            case "role":
                is_baseline = self.frame["attempt"] == BASELINE
                return Column.of_texts(
                    is_baseline.replace_strict({True: BASELINE, False: "attempt"}, default=None, return_dtype=pl.String)
                )
            case "metric":
                return Column.of_texts(self.metrics)
            case "champion":
                return Column.of_numbers(self.champions, TRUTH)
            case "lineage":
                return Column.of_numbers(self.lineages, NUMERAL)
        return Column.of_texts(pl.Series([None], dtype=pl.String).new_from_index(0, len(self.frame)))


class Rows(Sequence[Row]):
    """Records of a table at some places; each is read from its name when it is looked at."""

    def __init__(self, table: Table, places: Places) -> None:
        self.table, self.places = table, places

    @cached_property
    def _all(self) -> list[Row]:
        return self.table.read(self.places)

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> "Rows": ...

    def __getitem__(self, index: int | slice) -> "Row | Rows":
        if isinstance(index, slice):
            return Rows(self.table, self.places[index])
        if "_all" in self.__dict__:
            return self._all[index]
        return self.table.read(self.places[index][np.newaxis])[0]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._all)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Rows | list | tuple) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def column(self, key: str) -> Column:
        """What the rows have under a key."""
        return self.table.column(key).take(self.places)

    def deciding(self) -> Column:
        """The deciding metric of the rows."""
        return self.table.deciding.take(self.places)

    def and_then(self, others: "Rows") -> "Rows":
        """These rows and, after them, others of the same table."""
        return Rows(self.table, np.concatenate([self.places, others.places]))

    def take(self, places: Places) -> "Rows":
        """Some of the rows, by their places here."""
        return Rows(self.table, self.places[places])

    def where(self, name: str, condition: Callable[[pl.Series], pl.Series]) -> "Rows":
        """The rows of which a column of `split_keys` meets a condition; no row is read for it."""
        return self.take(np.flatnonzero(condition(self.table.frame[name].gather(self.places)).to_numpy()))

    def known_keys(self) -> list[str]:
        """The settings and metrics of the rows."""
        shapes = self.table.shapes
        told = (shapes[text] for text in self.table.frame["shape"].gather(self.places).unique(maintain_order=True))
        return list(dict.fromkeys(key for shape in told for key in ("model", *shape.params, *shape.metrics)))


def _row(
    key: str,
    experiment: str,
    attempt: str,
    id: str,
    cut: int,
    joined: str,
    values: list[Value],
    lineage: int,
    champion: bool,
) -> Row:
    """Put a row together: fields up to n are settings, those up to spread metrics, the last the deciding one."""
    shape = _shape(joined)
    told = {one: values[shape.at[one]] for one in shape.after}
    difference, low, high, verdict = map(told.get, AFTER)
    beside = f"{key[: -len(RECORD)]}{MODEL}"
    n, *metrics, spread = values[shape.at_n : shape.at_spread + 1]
    return Row(
        name=beside[beside.rindex("/") + 1 :],
        key=beside,
        experiment=experiment,
        role="baseline" if attempt == BASELINE else "attempt",
        attempt=attempt,
        id=id,
        params=dict(zip(("model", *shape.params), values, strict=False)),
        metric=shape.metrics[-1],
        metrics={one: float(value) for one, value in zip(shape.metrics, metrics, strict=True)},
        n=int(n),
        spread=float(spread),
        difference=None if difference is None else float(difference),
        interval=None if low is None or high is None else (float(low), float(high)),
        verdict=None if verdict is None else str(verdict),
        champion=champion,
        cut=cut,
        lineage=lineage,
    )


def _shape(joined: str) -> Shape:
    shape = read_shape(joined)
    assert shape, joined
    return shape
