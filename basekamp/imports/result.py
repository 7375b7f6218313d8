"""An old result as its source tells it, and how it is read from named values: metrics, settings, and what else."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from basekamp.errors import InputError
from basekamp.evaluation.goals import METRICS
from basekamp.naming import Value
from basekamp.validation import one_of, show

WITHIN_ONE = ("accuracy", "balanced_accuracy", "f1", "auc")
NAMES = ("attempt", "model")
"""Columns that are neither settings nor metrics."""

UNKNOWN_MODEL = "unknown"
PERCENT = 100.0

_WORDS = {"true": True, "false": False}


class UnreadableError(InputError):
    """One result that cannot be read, while the others can."""


@dataclass(frozen=True)
class Found:
    """One result as it lies in its source: `place` names it to the user, `original` to the source.

    results: what the source itself calls results; what of it is no metric of ours is told, and is no setting.
    """

    place: str
    original: str
    values: Mapping[str, object]
    attempt: str = ""
    created: datetime | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    results: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """How a source's values are read: its names for ours, the deciding metric, and whether shares are in per cent.

    Raises InputError for a metric that we do not know.
    """

    metric: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    in_percent: bool = False

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise InputError(
                f"metric={show(self.metric)} is not allowed: use {one_of(list(METRICS))}, and --map theirs=ours."
            )


@dataclass(frozen=True)
class Result:
    """An old result with its values sorted."""

    found: Found
    attempt: str
    params: dict[str, Value]
    metrics: dict[str, float]
    told: dict[str, str]


def read_result(found: Found, reading: Reading) -> Result:
    """Sort the values of one result; raises InputError, without its place, for one that cannot be listed."""
    others = {key: value for key, value in found.results.items() if reading.renamed.get(key, key) not in METRICS}
    results = {key: value for key, value in found.results.items() if key not in others}
    values = _renamed([*found.values.items(), *results.items()], reading)
    metrics = {key: _number(key, values.pop(key), reading) for key in [key for key in values if key in METRICS]}
    if reading.metric not in metrics:
        is_there = reading.metric in {reading.renamed.get(key, key) for key in found.values}
        said = "empty: give its value" if is_there else f"missing: name it by --map theirs={reading.metric}"
        raise InputError(f"{reading.metric} is {said}")
    attempt = str(values.pop("attempt", "")) or found.attempt
    params = {"model": str(values.pop("model", "")) or UNKNOWN_MODEL, **values}
    told = {**found.told, **{key: str(value) for key, value in others.items()}}
    return Result(found, attempt or str(params["model"]), params, metrics, told)


def _renamed(items: Iterable[tuple[str, object]], reading: Reading) -> dict[str, Value]:
    """The values under our names, with their types, without the empty ones."""
    values: dict[str, Value] = {}
    for key, value in items:
        name, kept = reading.renamed.get(key, key), typed(value)
        if kept is None:
            continue
        if name in values:
            raise InputError(f"{name} is given twice, as {key} as well: map only one of them")
        values[name] = kept
    return values


def typed(value: object) -> Value | None:
    """A cell or a text as the value that it stands for; None for nothing."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value).strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text or None


def _number(key: str, value: Value, reading: Reading) -> float:
    if isinstance(value, bool | str) or not math.isfinite(value):
        raise InputError(f"{key}={show(value)} is no finite number")
    number = float(value)
    if key not in WITHIN_ONE:
        return number
    if reading.in_percent:
        number /= PERCENT
    if not 0 <= number <= 1:
        use = (
            "it is no share, even in per cent" if reading.in_percent else "give --percent where shares are in per cent"
        )
        raise InputError(f"{key}={show(value)} is not between 0 and 1: {use}")
    return number
