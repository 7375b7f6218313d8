"""One record as its key tells it."""

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from basekamp.errors import InputError
from basekamp.naming import Value, parse_name
from basekamp.records.record import Role

IMPORTED: Literal["imported"] = "imported"
FROM = "from"
"""The role of old results, and the field between their settings and metrics."""

MODEL, RECORD = ".pth", ".json"


@dataclass(frozen=True)
class Row:
    """One record as its key tells it: numbers as rounded in the name, `cut` hyperparameters left to the JSON.

    Of an imported result `n` is 1, the spread NaN, for nobody knows it, and the name that of its JSON.
    """

    name: str
    key: str
    experiment: str
    role: Role
    attempt: str
    id: str
    params: dict[str, Value]
    metric: str
    metrics: dict[str, float]
    n: int
    spread: float
    difference: float | None
    interval: tuple[float, float] | None
    verdict: str | None
    champion: bool = False
    cut: int = 0
    lineage: int = 1

    @property
    def value(self) -> float:
        """The deciding metric, mean over replicates."""
        return self.metrics[self.metric]

    def beside(self, extension: str) -> str:
        """The key of the file of the same stem with another extension."""
        return stem(self.key) + extension


@contextmanager
def collector_paused() -> Iterator[None]:
    """Read a listing without Python's collector: nothing of it is garbage, and each pass looks at all of it again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def stem(key: str) -> str:
    """The key without its last extension."""
    return key.rpartition(".")[0]


def imported_row(key: str, file_name: str) -> Row:
    """Read a key: fields up to `from` are settings, those after it metrics, the last the deciding one."""
    name = parse_name(file_name)
    keys = list(name.fields)
    at = keys.index(FROM)
    if name.id is None or keys[-1] == FROM:
        raise InputError(f"{key} is no imported result's name: it needs from, a metric and an id.")
    metrics = {one: float(name.fields[one]) for one in keys[at + 1 :]}
    told = {
        "key": key,
        "experiment": key[: key.index("/")],
        "attempt": str(name.fields[FROM]),
        "id": name.id,
        "params": {"model": name.model, **{one: name.fields[one] for one in keys[:at]}},
    }
    return unjudged_row(name=file_name, metrics=metrics, cut=name.cut, **told)


def unjudged_row(*, metrics: dict[str, float], **told: Any) -> Row:
    """A result of one training whose noise nobody knows; the last metric decides."""
    return Row(
        **told,
        role=IMPORTED,
        metric=list(metrics)[-1],
        metrics=metrics,
        n=1,
        spread=math.nan,
        difference=None,
        interval=None,
        verdict=None,
    )
