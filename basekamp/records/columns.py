"""One key of many rows at once: what conditions and orders look at."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.naming import NUMBER, Value, read_value

NUMBER_TEXT = f"^(?:{NUMBER.pattern})$"

NUMERAL, TRUTH, TEXT, NOTHING = range(4)
"""What a value can be."""


@dataclass(frozen=True)
class Column:
    """Values of one key: `kinds` [n] as above, `numbers` [n] as float64 (truth values 0 and 1), `texts` [n]."""

    kinds: NDArray[np.uint8]
    numbers: NDArray[np.float64]
    texts: pl.Series

    @classmethod
    def of(cls, values: Iterable[Value | None]) -> "Column":
        """Of values as they are."""
        told = [_told(value) for value in values]
        return cls._of_told(pl.DataFrame(told, schema=_TOLD, orient="row"))

    @classmethod
    def read(cls, written: pl.Series) -> "Column":
        """Of values as names write them; null is nothing. Plain numbers are read at once, each other text once."""
        numbers = pl.when(written.str.contains(NUMBER_TEXT)).then(written).cast(pl.Float64, strict=False)
        frame = pl.DataFrame({"written": written}).select("written", number=numbers)
        others = frame.filter(pl.col("number").is_null() & pl.col("written").is_not_null())["written"].unique()
        if not len(others) and not frame["number"].null_count():
            return cls.of_numbers(frame["number"].to_numpy(), NUMERAL)
        read = pl.DataFrame([(one, *_told(read_value(one))) for one in others], schema=_READ, orient="row")
        plain = pl.when(pl.col("number").is_not_null()).then(NUMERAL).otherwise(NOTHING)
        joined = frame.join(read, on="written", how="left", maintain_order="left")
        return cls._of_told(
            joined.select(
                pl.coalesce("kind", plain).cast(pl.UInt8).alias("kind"), pl.coalesce("number", "other"), pl.col("text")
            )
        )

    @classmethod
    def of_numbers(cls, numbers: NDArray[Any], kind: int) -> "Column":
        """Of numbers, or of truth values."""
        size = len(numbers)
        texts = pl.Series([None], dtype=pl.String).new_from_index(0, size)
        return cls(np.full(size, kind, dtype=np.uint8), numbers.astype(np.float64), texts)

    @classmethod
    def of_texts(cls, texts: pl.Series) -> "Column":
        """Of texts, whatever they look like; null is nothing."""
        kinds = texts.is_null().to_numpy() * np.uint8(NOTHING - TEXT) + np.uint8(TEXT)
        return cls(kinds.astype(np.uint8), np.full(len(texts), np.nan), texts)

    def take(self, index: NDArray[np.intp]) -> "Column":
        """The values at these places."""
        return Column(self.kinds[index], self.numbers[index], self.texts.gather(index))

    def filled(self, other: "Column") -> "Column":
        """The values, and the other column's where there is nothing."""
        has = self.kinds != NOTHING
        texts = pl.select(pl.when(pl.Series(has)).then(self.texts).otherwise(other.texts)).to_series()
        return Column(np.where(has, self.kinds, other.kinds), np.where(has, self.numbers, other.numbers), texts)

    def ranks(self) -> tuple[NDArray[np.uint8], NDArray[np.float64], pl.Series]:
        """Sorted by these, numbers come first, then texts, then NaN and nothing; -0.0 is 0.0."""
        is_last = (self.kinds == NOTHING) | ((self.kinds == NUMERAL) & np.isnan(self.numbers))
        places = np.where(is_last, np.uint8(2), (self.kinds == TEXT).astype(np.uint8))
        return places, np.nan_to_num(self.numbers, nan=0.0, posinf=np.inf, neginf=-np.inf) + 0.0, self.texts

    @classmethod
    def _of_told(cls, told: pl.DataFrame) -> "Column":
        return cls(told.to_series(0).to_numpy(), told.to_series(1).to_numpy(), told.to_series(2))


_TOLD = {"kind": pl.UInt8, "number": pl.Float64, "text": pl.String}
_READ = {"written": pl.String, "kind": pl.UInt8, "other": pl.Float64, "text": pl.String}


def _told(value: Value | None) -> tuple[int, float, str | None]:
    """Kind, number and text of a value."""
    if value is None:
        return NOTHING, np.nan, None
    if isinstance(value, str):
        return TEXT, np.nan, value
    return (TRUTH if isinstance(value, bool) else NUMERAL), float(value), None
