"""From clean columns to the numbers that a network reads; every statistic is fitted on the training split.

n rows, d encoded columns: first numbers (standardised) and indicators of missing values, then category codes.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.data.dataset import Feature
from basekamp.errors import InputError

LIMIT = 10.0
HUGE = 1e100
IDENTIFIER_VALUES = 1000
IDENTIFIER_SHARE = 0.5
DATE_PARTS = ("year", "month", "day", "weekday", "ordinal_day")
TIME_PARTS = ("hour", "minute")


class Counted(NamedTuple):
    """A column's values [n] and, of text and truth values, how often each occurs: `value`, `count`, none missing."""

    values: pl.Series
    counts: pl.DataFrame | None

    @classmethod
    def of(cls, values: pl.Series) -> "Counted":
        """Count a column, for all that look at it."""
        if values.dtype not in (pl.String, pl.Boolean, pl.Categorical, pl.Enum):
            return cls(values, None)
        return cls(values, values.drop_nulls().cast(pl.String).alias("value").value_counts())


class FittedFeatures(NamedTuple):
    """The encoded columns in their order, and which columns of the source did not become one."""

    features: tuple[Feature, ...]
    constant_columns: tuple[str, ...]
    identifier_columns: tuple[str, ...]
    rare_categories: dict[str, int]


def fit_column(column: Counted, *, rare: int) -> FittedFeatures:
    """Decide from a column of the training rows how it is encoded.

    A column is constant when it has one value, missing counted as a value, or only categories seen less
    than `rare` times; an identifier when it is text that differs in most rows.
    """
    values, counts = column
    if counts is not None and values.dtype != pl.Boolean:
        return _fit_text(values, counts, rare)
    parts = [_fit_number(values.name, part, _part(values, part)) for part in _parts(values)]
    return _together(parts)


def join_features(fitted: Iterable[FittedFeatures]) -> FittedFeatures:
    """Put together what was decided of each column: first numbers and indicators, then categories.

    Raises: InputError when no column is left.
    """
    found = _together(fitted)
    if not found.features:
        raise InputError(
            "no column is left to learn from, all are constant or identifiers: add a column that differs "
            "between rows, or lower data.rare."
        )
    return found._replace(features=tuple(sorted(found.features, key=lambda feature: feature.kind == "categorical")))


def _together(parts: Iterable[FittedFeatures]) -> FittedFeatures:
    parts = list(parts)
    features, constant, identifiers = (
        tuple(chain.from_iterable(lists)) for lists in list(zip(*parts, strict=True))[:3]
    )
    rare = {name: count for part in parts for name, count in part.rare_categories.items()}
    return FittedFeatures(features, constant, identifiers, rare)


def _fit_text(values: pl.Series, counts: pl.DataFrame, rare: int) -> FittedFeatures:
    name, distinct = values.name, len(counts) + values.has_nulls()
    if distinct > IDENTIFIER_VALUES and distinct > IDENTIFIER_SHARE * len(values):
        return FittedFeatures((), (), (name,), {})
    frequent = counts.filter(pl.col("count") >= rare)["value"].sort()
    left_out = len(counts) - len(frequent)
    if distinct <= 1 or frequent.is_empty():
        return FittedFeatures((), (name,), (), {name: left_out} if left_out and distinct > 1 else {})
    feature = Feature(name=name, kind="categorical", column=name, categories=tuple(frequent.to_list()))
    return FittedFeatures((feature,), (), (), {name: left_out} if left_out else {})


def _fit_number(column: str, part: str, values: pl.Series) -> FittedFeatures:
    name, gaps = f"{column}_{part}" if part else column, values.null_count()
    if gaps == len(values) or (not gaps and values.min() == values.max()):
        return FittedFeatures((), (name,), (), {})
    numbers = as_numbers(values)
    finite = np.clip(numbers[np.isfinite(numbers)], -HUGE, HUGE)
    mean, std = (float(finite.mean()), float(finite.std())) if len(finite) else (0.0, 1.0)
    number = Feature(name=name, kind="numeric", column=column, part=part, mean=mean, std=std or 1.0)
    indicator = Feature(name=f"{name}_missing", kind="indicator", column=column, part=part)
    return FittedFeatures((number, indicator) if gaps else (number,), (), (), {})


def encode_features(frame: pl.DataFrame, features: Sequence[Feature]) -> NDArray[np.float32]:
    """Encode rows as float32 [n, d]; missing numbers become 0, unknown categories code 0."""
    encoded = np.empty((frame.height, len(features)), np.float32)
    parts: dict[tuple[str, str], pl.Series] = {}
    for index, feature in enumerate(features):
        key = (feature.column, feature.part)
        if key not in parts:
            parts = {key: _part(frame[feature.column], feature.part)}
        encoded[:, index] = _encode(parts[key], feature)
    return encoded


def pixel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation (1 if flat) per channel of uint8 [n, c, h, w], in raw units, exactly."""
    levels = np.arange(256)
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), 1024):
            counts += np.bincount(images[start : start + 1024, channel].ravel(), minlength=256)
        mean = float(counts @ levels) / float(counts.sum())
        variance = float(counts @ (levels - mean) ** 2) / float(counts.sum())
        means.append(mean)
        deviations.append(variance**0.5 or 1.0)
    return tuple(means), tuple(deviations)


def as_numbers(values: pl.Series) -> NDArray[np.float64]:
    """float64 [n] of numbers, bools, times and durations (in seconds); NaN where missing."""
    if values.dtype == pl.Duration:
        values = values.dt.total_microseconds() / 1e6
    elif values.dtype == pl.Time:
        values = values.cast(pl.Int64) / 1e9
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _parts(column: pl.Series) -> tuple[str, ...]:
    if column.dtype == pl.Date:
        return DATE_PARTS
    return DATE_PARTS + TIME_PARTS if column.dtype == pl.Datetime else ("",)


def _part(column: pl.Series, part: str) -> pl.Series:
    if part:
        values: pl.Series = getattr(column.dt, part)()
        return values
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    return column


def _encode(values: pl.Series, feature: Feature) -> NDArray[Any]:
    if feature.kind == "indicator":
        return values.is_null().to_numpy()
    if feature.kind == "categorical":
        known = pl.Series(feature.categories, dtype=pl.String)
        codes = pl.Series(range(1, len(known) + 1), dtype=pl.Int32)
        return values.replace_strict(known, codes, default=0, return_dtype=pl.Int32).to_numpy()
    numbers = np.clip(as_numbers(values), -HUGE, HUGE)
    numbers -= feature.mean
    numbers /= feature.std
    np.clip(numbers, -LIMIT, LIMIT, out=numbers)
    numbers[np.isnan(numbers)] = 0.0
    return numbers
