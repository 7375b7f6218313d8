"""One record as its key tells it, and many of them that are read whole only when looked at."""

import gc
import math
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, overload

from basekamp.errors import InputError
from basekamp.naming import Value, parse_name
from basekamp.records.record import BASELINE, Role

IMPORTED: Literal["imported"] = "imported"
FROM = "from"
"""The role of old results, and the field between their settings and metrics."""

MODEL, RECORD = ".pth", ".json"


@dataclass(frozen=True)
class Found:
    """Records that were found, one place each: their ids, keys and attempts, in the order of the ids."""

    ids: Sequence[str]
    keys: Sequence[str]
    attempts: Sequence[str]

    def at(self, places: Sequence[int]) -> "Found":
        """Those at some places, in their order."""
        if len(places) == len(self.ids):
            return self
        return Found(*([column[i] for i in places] for column in (self.ids, self.keys, self.attempts)))


_AT_ONCE = 512
_PLAIN = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)-")
_PLAIN_END = re.compile(r"\.id-([a-z][0-9a-z]{7,15})\.json\Z")


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


class Rows(Sequence[Row]):
    """Records in the order of their ids; each is read from its key when it is looked at, and then kept."""

    def __init__(self, found: Found, lineages: Sequence[int], champion: str = "") -> None:
        self._found, self._lineages, self._champion = found, lineages, champion
        self._read: list[Row | None] = [None] * len(found.ids)

    def __len__(self) -> int:
        return len(self._read)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...

    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        if isinstance(index, slice):
            with collector_paused():
                return tuple(self._row(i) for i in range(*index.indices(len(self))))
        return self._row(index)

    def __iter__(self) -> Iterator[Row]:
        for begin in range(0, len(self), _AT_ONCE):
            yield from self[begin : begin + _AT_ONCE]

    def __contains__(self, row: object) -> bool:
        return isinstance(row, Row) and row in self.with_ids({row.id}).values()

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Rows | tuple) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def with_ids(self, ids: Collection[str]) -> dict[str, Row]:
        """The rows of these ids; no other is read."""
        return {one: self._row(i) for i, one in enumerate(self._found.ids) if one in ids} if ids else {}

    def holding(self, text: str) -> Iterator[Row]:
        """The rows with the text in their key; no other is read."""
        return (self._row(i) for i, key in enumerate(self._found.keys) if text in key)

    def of_attempt(self, attempt: str) -> Iterator[Row]:
        """The rows of one attempt; no other is read."""
        return (self._row(i) for i, one in enumerate(self._found.attempts) if one == attempt)

    def crowned(self, champion: Row | None) -> "Rows":
        """The same with the champion marked."""
        return Rows(self._found, self._lineages, champion.id if champion else "")

    def _row(self, index: int) -> Row:
        row = self._read[index]
        if row is None:
            found = self._found
            is_champion = found.ids[index] == self._champion
            row = _row(found.keys[index], found.attempts[index], lineage=self._lineages[index], champion=is_champion)
            self._read[index] = row
        return row


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


def find_id(file_name: str) -> str:
    """The id of a record's name; raises what `Rows` would raise later for a name that is none.

    The plain names that we write are checked by the places of their numbers, which is the same for all names of one
    sequence of keys; any other is read whole.
    """
    end = _PLAIN_END.search(file_name)
    if end and file_name[0] != "." and file_name.isascii():
        pieces = _PLAIN.split(file_name[: end.start()])
        places = _places(tuple(pieces[1::2]))
        try:
            if places and pieces[places[0]].isdigit():
                for place in places:
                    float(pieces[place])
                return end[1]
        except ValueError:
            pass
    return _row(f"x/{file_name}", BASELINE).id


@lru_cache(maxsize=1024)
def _places(keys: tuple[str, ...]) -> tuple[int, ...]:
    """Where in a name split at its keys numbers stand, that of n first; empty for keys that need a closer look."""
    if len(set(keys)) != len(keys) or not {"n", "loss", "spread"} <= set(keys) or {"id", "cut"} & set(keys):
        return ()
    at_n, at_loss, at_spread = keys.index("n"), keys.index("loss"), keys.index("spread")
    if not at_n < at_loss < at_spread or ("low" in keys) != ("high" in keys):
        return ()
    judged = [keys.index(key) for key in ("difference", "low", "high") if key in keys]
    return tuple(2 * place + 2 for place in (*range(at_n, at_spread + 1), *judged))


def _row(key: str, attempt: str, *, lineage: int = 1, champion: bool = False) -> Row:
    """Read a key: fields up to `n` are hyperparameters, those up to `spread` metrics, the last the deciding one."""
    file_name = key[key.rindex("/") + 1 :]
    name = parse_name(file_name)
    fields = name.fields
    parts = _parts(tuple(fields))
    if name.id is None or parts is None:
        raise InputError(f"{key} is no record's name: it needs n, loss and spread in this order, and an id.")
    params, metrics = parts
    difference, low, verdict = fields.get("difference"), fields.get("low"), fields.get("verdict")
    return Row(
        name=file_name[: -len(name.extension) - 1] + MODEL,
        key=key[: -len(name.extension) - 1] + MODEL,
        experiment=key[: key.index("/")],
        role="baseline" if attempt == BASELINE else "attempt",
        attempt=attempt,
        id=name.id,
        params={"model": name.model, **{one: fields[one] for one in params}},
        metric=metrics[-1],
        metrics={one: float(fields[one]) for one in metrics},
        n=int(str(fields["n"])),
        spread=float(fields["spread"]),
        difference=None if difference is None else float(difference),
        interval=None if low is None else (float(low), float(fields["high"])),
        verdict=None if verdict is None else str(verdict),
        champion=champion,
        cut=name.cut,
        lineage=lineage,
    )


@lru_cache(maxsize=1024)
def _parts(keys: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Which keys of a record's name are hyperparameters, and which metrics; None for those of no record."""
    at = [keys.index(one) if one in keys else -1 for one in ("n", "loss", "spread")]
    return (keys[: at[0]], keys[at[0] + 1 : at[2]]) if -1 < at[0] < at[1] < at[2] else None


def imported_row(key: str, file_name: str) -> Row:
    """Read a key: fields up to `from` are settings, those after it metrics, the last the deciding one."""
    name = parse_name(file_name)
    keys = list(name.fields)
    at = keys.index(FROM)
    if name.id is None or keys[-1] == FROM:
        raise InputError(f"{key} is no imported result's name: it needs from, a metric and an id.")
    metrics = {one: float(name.fields[one]) for one in keys[at + 1 :]}
    return Row(
        name=file_name,
        key=key,
        experiment=key[: key.index("/")],
        role=IMPORTED,
        attempt=str(name.fields[FROM]),
        id=name.id,
        params={"model": name.model, **{one: name.fields[one] for one in keys[:at]}},
        metric=list(metrics)[-1],
        metrics=metrics,
        n=1,
        spread=math.nan,
        difference=None,
        interval=None,
        verdict=None,
        cut=name.cut,
    )
