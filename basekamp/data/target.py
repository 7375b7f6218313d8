"""The target: which task it makes, which values it may not have, and how it is encoded. n rows."""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.errors import InputError

MOST_CLASSES = 10_000
MOST_INTEGER_CLASSES = 20

Task = Literal["classification", "regression"]


class EncodedTarget(NamedTuple):
    """The task; y [n], int64 class index or float32 value; the classes, none for regression."""

    task: Task
    y: NDArray[Any]
    classes: tuple[str, ...]


def check_missing(target: pl.Series) -> None:
    """Refuse a target that is missing in every row, or in more than half of them.

    Raises: InputError.
    """
    missing = target.null_count()
    if missing == len(target):
        raise InputError(f"the target {target.name!r} has no value in any row: choose another target.")
    if missing * 2 > len(target):
        raise InputError(
            f"the target {target.name!r} is missing or NaN in {missing} of {len(target)} rows, at most half "
            "may be: take those rows out or choose another target."
        )


def encode_target(target: pl.Series, *, task: str) -> EncodedTarget:
    """Encode a target without missing values; `task` auto makes strings, bools and few integers classes.

    Raises: InputError when the target does not suit the task, or has too few or too many values.
    """
    if target.dtype == pl.Null or target.dtype.is_nested() or target.dtype.is_temporal() or target.dtype == pl.Binary:
        raise InputError(
            f"the target {target.name!r} is of type {target.dtype}: use a column of numbers, strings or bools."
        )
    if target.n_unique() < 2:
        raise InputError(
            f"the target {target.name!r} has the single value {target[0]!r}, at least 2 are needed: "
            "there is nothing to predict, choose another target."
        )
    if _is_classification(target, task):
        return _encode_classes(target)
    return _encode_numbers(target)


def _is_classification(target: pl.Series, task: str) -> bool:
    if task != "auto":
        return task == "classification"
    if target.dtype.is_integer():
        return target.n_unique() <= MOST_INTEGER_CLASSES
    return not target.dtype.is_numeric()


def _encode_classes(target: pl.Series) -> EncodedTarget:
    if isinstance(target.dtype, (pl.Categorical, pl.Enum)):
        target = target.cast(pl.String)
    counts = target.value_counts().sort(target.name)
    values = counts[target.name]
    names = tuple(class_name(value) for value in values.to_list())
    if len(names) > MOST_CLASSES:
        raise InputError(
            f"the target {target.name!r} has {len(names)} classes, at most {MOST_CLASSES} are allowed: "
            "merge classes or set data.task: regression."
        )
    if lonely := [name for name, count in zip(names, counts["count"].to_list(), strict=True) if count == 1]:
        shown = ", ".join(repr(name) for name in lonely[:5])
        more = f" and {len(lonely) - 5} more" if len(lonely) > 5 else ""
        raise InputError(
            f"the target {target.name!r} has classes with a single row ({shown}{more}), at least 2 are "
            "needed: merge them, take them out, or set data.task: regression for numbers."
        )
    codes = target.replace_strict(values, pl.Series(range(len(names)), dtype=pl.Int64), return_dtype=pl.Int64)
    return EncodedTarget("classification", codes.to_numpy().copy(), names)


def _encode_numbers(target: pl.Series) -> EncodedTarget:
    if not (target.dtype.is_numeric() or target.dtype == pl.Boolean):
        raise InputError(
            f"the target {target.name!r} holds text: regression needs numbers, set data.task: classification."
        )
    numbers = target.cast(pl.Float64).to_numpy()
    with np.errstate(over="ignore"):
        y = numbers.astype(np.float32)
    if outside := int((~np.isfinite(y)).sum()):
        raise InputError(
            f"the target {target.name!r} is infinite or beyond 3.4e38 in {outside} of {len(y)} rows: "
            "mend those values or take the rows out."
        )
    return EncodedTarget("regression", y, ())


def class_name(value: object) -> str:
    """Name a class: a whole float as an integer, a bool in lower case, anything else as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)
