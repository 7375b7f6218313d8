"""From clean columns to the numbers that a network reads; every statistic is fitted on the training split.

n rows, d encoded columns: first numbers (standardised) and indicators of missing values, then category codes.
"""

from collections.abc import Iterable, Iterator, Sequence
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


class FittedFeatures(NamedTuple):
    """The encoded columns in their order, and which columns of the source did not become one."""

    features: tuple[Feature, ...]
    constant_columns: tuple[str, ...]
    identifier_columns: tuple[str, ...]
    rare_categories: dict[str, int]


def fit_features(train: Iterable[pl.Series], *, rare: int) -> FittedFeatures:
    """Decide from the training rows' columns, of which one at a time is held, how each is encoded.

    A column is constant when it has one value, missing counted as a value, or only categories seen less
    than `rare` times; an identifier when it is text that differs in most rows.

    Raises: InputError when no column is left.
    """
    numbers, categories, constant, identifiers, rares = [], [], [], [], {}
    for column, part, values in _all_parts(train):
        name = f"{column}_{part}" if part else column
        distinct = values.n_unique()
        if distinct <= 1:
            constant.append(name)
        elif values.dtype != pl.String:
            numbers += _fit_numeric(name, column, part, values)
        elif distinct > IDENTIFIER_VALUES and distinct > IDENTIFIER_SHARE * len(values):
            identifiers.append(name)
        else:
            kept, left_out = _frequent(values, rare)
            if left_out:
                rares[name] = left_out
            if kept:
                categories.append(Feature(name=name, kind="categorical", column=column, categories=kept))
            else:
                constant.append(name)
    if not numbers and not categories:
        raise InputError(
            "no column is left to learn from, all are constant or identifiers: add a column that differs "
            "between rows, or lower data.rare."
        )
    return FittedFeatures((*numbers, *categories), tuple(constant), tuple(identifiers), rares)


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


def _all_parts(columns: Iterable[pl.Series]) -> Iterator[tuple[str, str, pl.Series]]:
    for column in columns:
        parts: tuple[str, ...] = ("",)
        if column.dtype == pl.Date:
            parts = DATE_PARTS
        elif column.dtype == pl.Datetime:
            parts = DATE_PARTS + TIME_PARTS
        for part in parts:
            yield column.name, part, _part(column, part)


def _part(column: pl.Series, part: str) -> pl.Series:
    if part:
        values: pl.Series = getattr(column.dt, part)()
        return values
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    return column


def _fit_numeric(name: str, column: str, part: str, values: pl.Series) -> list[Feature]:
    numbers = as_numbers(values)
    finite = np.clip(numbers[np.isfinite(numbers)], -HUGE, HUGE)
    mean, std = (float(finite.mean()), float(finite.std())) if len(finite) else (0.0, 1.0)
    fitted = [Feature(name=name, kind="numeric", column=column, part=part, mean=mean, std=std or 1.0)]
    if values.has_nulls():
        fitted.append(Feature(name=f"{name}_missing", kind="indicator", column=column, part=part))
    return fitted


def _frequent(values: pl.Series, rare: int) -> tuple[tuple[str, ...], int]:
    """Return the categories seen at least `rare` times, sorted, and how many are seen less."""
    counts = values.drop_nulls().alias("value").value_counts()
    kept = counts.filter(pl.col("count") >= rare)["value"].sort()
    return tuple(kept.to_list()), len(counts) - len(kept)


def _encode(values: pl.Series, feature: Feature) -> NDArray[Any]:
    if feature.kind == "indicator":
        return values.is_null().to_numpy()
    if feature.kind == "categorical":
        known = pl.Series(feature.categories, dtype=pl.String)
        codes = pl.Series(range(1, len(known) + 1), dtype=pl.Int32)
        return values.replace_strict(known, codes, default=0, return_dtype=pl.Int32).to_numpy()
    numbers = np.clip(as_numbers(values), -HUGE, HUGE)
    return np.nan_to_num(np.clip((numbers - feature.mean) / feature.std, -LIMIT, LIMIT), nan=0.0)
