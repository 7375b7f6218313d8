"""From text to types, exactly: which type a column has is found from all its values, and none is bent to fit.

A value that a type would change (007 as a number, a whole number that a float cannot hold, 1e999) does not fit it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

DType = pl.DataType | type[pl.DataType]

TEXT = "text"
DATE = pl.Datetime("us", "UTC")
DTYPES: dict[str, DType] = {TEXT: pl.String, "bool": pl.Boolean, "date": DATE}
KINDS = ("number", "bool", "date")
EXACT = 2.0**53
CLOCKS = [f"{separator}%H:%M{rest}" for separator in "T " for rest in (":%S", "", ":%S%.f")]
TIMES = ["%Y-%m-%d", *(f"%Y-%m-%d{clock}{zone}" for zone in ("", "Z", "%z") for clock in CLOCKS)]
CODE = r"^[+-]?0\d"
INFINITE = ("inf", "infinity")
NUMBERS: tuple[DType, ...] = (pl.Int64, pl.UInt64, pl.Float64)
FEWEST, HOPELESS = 10, 100
"""How many values a column needs for one of them to be an exception; misfits after which a kind may be given up."""


class Misfit(NamedTuple):
    """A value that is not what its column holds, and where it stands."""

    file: str
    line: int
    value: str


@dataclass
class Fit:
    """How a column's values fit a kind: how many do not, and the first of them."""

    misfits: int = 0
    first: Misfit | None = None

    def add(self, misfits: int, first: Misfit) -> None:
        """Count values that do not fit."""
        self.misfits += misfits
        self.first = self.first or first


@dataclass
class ColumnType:
    """What is known of a column's type so far; `wanted` is the kind that the user names, empty to find it."""

    name: str
    wanted: str = ""
    values: int = 0
    fits: dict[str, Fit] = field(default_factory=dict)
    number: DType = pl.Int64
    written: list[DType] = field(default_factory=list)

    def __post_init__(self) -> None:
        kinds = [self.wanted] if self.wanted else list(KINDS)
        self.fits = {kind: Fit() for kind in kinds if kind != TEXT}

    def look(self, text: pl.Series, file: str, lines: NDArray[np.int64]) -> pl.Series:
        """Take a block's values into account; gives them as the kind that they all fit, else as text."""
        found = self._look(text, file, lines)
        if found.dtype not in self.written:
            self.written.append(found.dtype)
        return found

    def decide(self) -> tuple[str, Fit]:
        """Name the kind of the whole column, and what does not fit it.

        A kind that all values but one, or but one in a hundred, fit was meant: the others are mistakes.
        """
        allowed = max(1, self.values // 100) if self.values >= FEWEST else 0
        for kind, fit in sorted(self.fits.items(), key=lambda item: item[1].misfits):
            if self.values and (self.wanted or fit.misfits <= allowed):
                return kind, fit
        return TEXT, Fit()

    def dtype(self, kind: str) -> DType:
        """Return the type in which a kind is stored."""
        return self.number if kind == "number" else DTYPES[kind]

    def _look(self, text: pl.Series, file: str, lines: NDArray[np.int64]) -> pl.Series:
        known = len(text) - text.null_count()
        self.values += known
        if not known or not self.fits:
            return text if not self.written else text.cast(self.written[-1], strict=False)
        likely = sorted(self.fits, key=lambda kind: self.fits[kind].misfits)
        for kind in likely:
            parsed = parse(text, kind, NUMBERS[NUMBERS.index(self.number) :])
            if kind == "number":
                self.number = parsed.dtype
            misfits = parsed.null_count() - text.null_count()
            if not misfits:
                first = _first_misfit(text, text.is_not_null(), file, lines)
                for other in likely[likely.index(kind) + 1 :]:
                    self.fits[other].add(known, first)
                return parsed
            is_misfit = parsed.is_null() & text.is_not_null()
            self.fits[kind].add(misfits, _first_misfit(text, is_misfit, file, lines))
        self._give_up()
        return text

    def _give_up(self) -> None:
        if not self.wanted:
            self.fits = {kind: fit for kind, fit in self.fits.items() if fit.misfits < max(HOPELESS, self.values // 2)}


def _first_misfit(text: pl.Series, is_misfit: pl.Series, file: str, lines: NDArray[np.int64]) -> Misfit:
    place = is_misfit.arg_max() or 0
    return Misfit(file, int(lines[place]), str(text[place]))


def parse(text: pl.Series, kind: str, numbers: Sequence[DType] = NUMBERS) -> pl.Series:
    """Read text as a kind, numbers in the first of some types that fits best; what does not fit is missing."""
    return _numbers(text, numbers) if kind == "number" else _PARSERS[kind](text)


def _numbers(text: pl.Series, dtypes: Sequence[DType]) -> pl.Series:
    best = text.cast(dtypes[0], strict=False)
    for dtype in dtypes[1:]:
        if best.null_count() == text.null_count():
            break
        wider = text.cast(dtype, strict=False)
        best = wider if wider.null_count() < best.null_count() else best
    if best.dtype == pl.Float64:
        best = _exact_floats(text, best)
    # Cheaper than the pattern on all values: only a sign or a zero sorts before 1.
    may_be_code = text.filter(text < "1")
    if may_be_code.str.contains(CODE).any():
        return best.set(text.str.contains(CODE).fill_null(False), None)
    return best


def _exact_floats(text: pl.Series, numbers: pl.Series) -> pl.Series:
    """Take out what a float64 holds only as something else: infinity from digits, rounded whole numbers, lost ones."""
    may_be = ((numbers == 0) | (numbers.abs() >= EXACT)).fill_null(False)
    if not may_be.any():  # cheaper than the patterns on all values
        return numbers
    text, found = text.filter(may_be), numbers.filter(may_be)
    lost = (found == 0) & text.str.contains(r"^[+-]?[0.]*[1-9]")
    endless = found.is_infinite() & ~text.str.to_lowercase().str.strip_chars_start("+-").is_in(INFINITE)
    large = found.is_finite() & (found != 0) & text.str.contains(r"^[+-]?\d+$")
    if large.any():
        pairs = zip(found.filter(large), text.filter(large), strict=True)
        large = large.scatter(large.arg_true(), [int(number) != int(digits) for number, digits in pairs])
    altered = lost | endless | large
    return numbers.set(may_be.scatter(may_be.arg_true(), altered), None) if altered.any() else numbers


def _bools(text: pl.Series) -> pl.Series:
    lowered = text.str.to_lowercase()
    return (lowered == "true").set(~lowered.is_in(["true", "false"]), None)


def _dates(text: pl.Series) -> pl.Series:
    """Read ISO dates and times in UTC; what is finer than a microsecond does not fit."""
    is_iso = text.str.contains(r"^\d{4}-\d{2}-\d{2}($|[ T])") & ~text.str.contains(r"\.\d{6}\d*[1-9]")
    left = text.set(~is_iso, None)
    found = left.clear(len(left)).cast(DATE)
    first = left.drop_nulls().head(1)
    # A form that does not fit costs most, so the one that fits the first value is tried first.
    for form in sorted(TIMES, key=lambda form: _in_form(first, form).null_count()):
        if left.null_count() == len(left):
            break
        times = _in_form(left, form)
        if times.null_count() < len(times):
            found = found.zip_with(times.is_null(), times)
            left = left.set(times.is_not_null(), None)
    return found


def _in_form(text: pl.Series, form: str) -> pl.Series:
    return text.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC")


_PARSERS: dict[str, Callable[[pl.Series], pl.Series]] = {"bool": _bools, "date": _dates}
