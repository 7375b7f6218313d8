"""The contract: what the training rows of a data set look like, column by column, in bounded size.

It is written beside the data set as contract.json, with sample.parquet, some of the training rows before encoding. The
baseline's record keeps its contract, and what is prepared later is held against it (see `basekamp.data.drift`).

A code says where a value lies: 0 is missing; then come the tenths of the baseline's values, or its categories, most
frequent first; the last is any other category.
"""

import base64
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from basekamp.data.dataset import Schema
from basekamp.data.encoding import Counted, as_numbers
from basekamp.document import load_document
from basekamp.errors import InputError

CONTRACT_FILE, SAMPLE_FILE = "contract.json", "sample.parquet"
MOST_COLUMNS, MOST_CATEGORIES, LONGEST_CATEGORY = 300, 50, 100
FEWEST_OF_CATEGORY = 10
"""Text that fewer rows share is no category: it may name a person."""

SAMPLE_ROWS = 10_000
KEPT_ROWS, KEPT_CELLS = 2000, 400_000

Kind = Literal["number", "bool", "date", "time", "duration", "text", "empty", "other"]


class Column(BaseModel):
    """One column. low and high: of its finite numbers, dates in microseconds; counts: rows of each code."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Kind
    low: float | None = None
    high: float | None = None
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    counts: tuple[int, ...]

    @property
    def missing(self) -> float:
        """The share of rows without a value."""
        return self.counts[0] / max(sum(self.counts), 1)

    @property
    def is_listed(self) -> bool:
        """Whether its categories are all that there were."""
        return bool(self.categories) and self.counts[-1] == 0

    def codes(self, values: pl.Series) -> NDArray[np.uint8]:
        """The code of each value [n]; a value of another kind is missing."""
        if self.kind == "other" or kind_of(values.dtype) not in (self.kind, "empty"):
            return np.zeros(len(values), np.uint8)
        if self.kind in ("text", "bool"):
            known = pl.Series(self.categories, dtype=pl.String)
            places = pl.Series(range(1, len(known) + 1), dtype=pl.UInt8)
            codes = values.cast(pl.String).replace_strict(known, places, default=len(known) + 1, return_dtype=pl.UInt8)
            return np.where(values.is_null().to_numpy(), 0, codes.fill_null(0).to_numpy()).astype(np.uint8)
        numbers = column_numbers(values)
        return np.where(np.isnan(numbers), 0, np.searchsorted(self.edges, numbers) + 1).astype(np.uint8)


class Contract(BaseModel):
    """What the training rows look like. shape: of an image, () for a table; n_columns: with those left out here.

    rows: the codes of some rows [n, columns and target], packed. They go into a store, where the rows themselves do
    not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    shape: tuple[int, ...] = ()
    n_rows: int
    n_columns: int
    columns: tuple[Column, ...]
    target: Column
    rows: str = ""

    def with_rows(self, sample: pl.DataFrame) -> "Contract":
        """The same with the codes of the first 2,000 rows of a sample, or fewer where there are many columns."""
        known = [*self.columns, self.target]
        frame = sample.head(min(KEPT_ROWS, KEPT_CELLS // len(known)))
        packed = zlib.compress(self.codes_of(frame).tobytes())
        return self.model_copy(update={"rows": base64.b85encode(packed).decode()})

    def codes_of(self, frame: pl.DataFrame) -> NDArray[np.uint8]:
        """The codes [n, columns and target] of rows; a column that is not there is missing in all."""
        coded = [
            column.codes(frame[column.name]) if column.name in frame.columns else np.zeros(frame.height, np.uint8)
            for column in (*self.columns, self.target)
        ]
        return np.stack(coded, axis=1)

    def kept_codes(self) -> NDArray[np.uint8]:
        """The codes [n, columns and target] that `with_rows` kept; none where it kept none, or they are damaged."""
        width = len(self.columns) + 1
        try:
            flat = zlib.decompressobj().decompress(base64.b85decode(self.rows), KEPT_CELLS)
            return np.frombuffer(flat, np.uint8).reshape(-1, width)
        except (ValueError, zlib.error):
            return np.zeros((0, width), np.uint8)


class Seen(NamedTuple):
    """A column described, and some of its values."""

    column: Column
    sample: pl.Series


def sampled_rows(n: int) -> NDArray[np.int64]:
    """Which of n training rows the sample has: 10,000 at most, in random order, always the same."""
    return np.random.default_rng(0).permutation(n)[:SAMPLE_ROWS]


def see_column(column: Counted, chosen: NDArray[np.int64]) -> Seen:
    """Describe a column of the training rows, before it is encoded, and take the sample's rows of it."""
    return Seen(_describe(column, FEWEST_OF_CATEGORY), column.values.gather(chosen))


def see_images(images: NDArray[np.uint8], chosen: NDArray[np.int64]) -> list[Seen]:
    """Describe images by the mean and the deviation of their pixels."""
    brightness = pl.Series("brightness", [float(image.mean()) for image in images])
    contrast = pl.Series("contrast", [float(image.std()) for image in images])
    return [see_column(Counted.of(column), chosen) for column in (brightness, contrast)]


def write_contract(directory: Path, schema: Schema, seen: Sequence[Seen], y: NDArray[Any]) -> None:
    """Write contract.json and sample.parquet of what was seen of the training rows; the target is the last column."""
    target = pl.Series(schema.target, np.array(schema.classes)[y] if schema.classes else y)
    contract = Contract(
        task=schema.task,
        shape=schema.input_shape if schema.kind == "image" else (),
        n_rows=len(y),
        n_columns=len(seen),
        columns=tuple(column for column, _ in seen[:MOST_COLUMNS]),
        target=_describe(Counted.of(target), 1),
    )
    (directory / CONTRACT_FILE).write_text(contract.model_dump_json(indent=1), encoding="utf-8")
    sample = [values for _, values in seen]
    pl.DataFrame([*sample, target.gather(sampled_rows(len(y)))]).write_parquet(directory / SAMPLE_FILE)


def read_contract(directory: Path) -> tuple[Contract, pl.DataFrame]:
    """Read what `prepare_data` wrote beside the data set: the contract and the sample.

    Raises: InputError when they are missing or damaged.
    """
    try:
        return load_document(Contract, directory / CONTRACT_FILE), pl.read_parquet(directory / SAMPLE_FILE)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{directory} has no contract of its data: prepare the data again.") from error


def column_numbers(values: pl.Series) -> NDArray[np.float64]:
    """float64 [n]; dates and times of day in microseconds, NaN where missing."""
    if values.dtype in (pl.Date, pl.Datetime):
        values = values.cast(pl.Datetime("us")).to_physical()
    return as_numbers(values)


def _describe(column: Counted, fewest: int) -> Column:
    values, counts = column
    fields: dict[str, Any] = {"name": values.name, "kind": kind_of(values.dtype)}
    if counts is not None:
        return _describe_categories(len(values), counts, fewest, fields)
    if fields["kind"] in ("empty", "other"):
        return Column(counts=(len(values), 0), **fields)
    return _describe_numbers(np.sort(column_numbers(values)), fields)


def _describe_categories(n: int, counts: pl.DataFrame, fewest: int, fields: dict[str, Any]) -> Column:
    kept = counts.filter((pl.col("count") >= fewest) & (pl.col("value").str.len_chars() <= LONGEST_CATEGORY))
    kept = kept.sort(["count", "value"], descending=[True, False]).head(MOST_CATEGORIES)
    known, listed = int(counts["count"].sum()), kept["count"].to_list()
    return Column(categories=tuple(kept["value"].to_list()), counts=(n - known, *listed, known - sum(listed)), **fields)


def _describe_numbers(numbers: NDArray[np.float64], fields: dict[str, Any]) -> Column:
    """Describe sorted numbers, NaN last; of those in order both the tenths and how many each has are found at once."""
    known = int(np.searchsorted(numbers, np.nan))
    first, end = np.searchsorted(numbers, -np.inf, "right"), np.searchsorted(numbers[:known], np.inf)
    finite = numbers[first:end]
    edges = np.array([])
    if len(finite):
        place = np.linspace(0.1, 0.9, 9) * (len(finite) - 1)
        low = place.astype(np.int64)
        high = np.minimum(low + 1, len(finite) - 1)
        edges = np.unique(finite[low] * (1 - place % 1) + finite[high] * (place % 1))
        fields = fields | {"low": float(finite[0]), "high": float(finite[-1]), "edges": tuple(edges.tolist())}
    below = np.searchsorted(numbers[:known], edges, "right")
    counts = np.diff([0, *below, known])
    return Column(counts=(len(numbers) - known, *counts.tolist()), **fields)


def kind_of(dtype: pl.DataType) -> Kind:
    """The type of a column, coarse: integers and floats are numbers, dates are dates with or without a time."""
    if dtype.is_numeric():
        return "number"
    kinds: dict[Any, Kind] = {
        pl.Boolean: "bool",
        pl.Date: "date",
        pl.Datetime: "date",
        pl.Time: "time",
        pl.Duration: "duration",
        pl.Null: "empty",
        **dict.fromkeys((pl.String, pl.Categorical, pl.Enum), "text"),
    }
    return kinds.get(dtype.base_type(), "other")
