"""Where records lie in a store, and what their listing alone tells.

<experiment>/baseline/<stem>.{pth,npz,html,json}            the JSON is written last: with it the record exists
<experiment>/attempts/<attempt>/<stem>.{pth,npz,html,json}
                                        and <stem>.gz, a trace of a few training steps, where it was asked for
<experiment>/openings/<name>.json       each opening of the test split
<experiment>/sweeps/<sweep>/            the trials of a sweep, see basekamp.sweeps.shelf
<experiment>/promotions/<name>.json     each change of the champion, by the gate or by `fallback`
<experiment>/rebases/<name>.json        each new beginning: the baseline from then on
<experiment>/imported/<batch>/          results from elsewhere, see basekamp.imports.shelf

Rebases part an experiment into lineages. Each has its own baseline and champion; looks at the validation split and
openings of the test split are counted through all of them, for the data is the same.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.document import fetch_document
from basekamp.errors import InputError
from basekamp.naming import Value, has_time, id_time, parse_name
from basekamp.records.listing import read_listing
from basekamp.records.record import BASELINE, Record
from basekamp.records.row import (
    FROM,
    IMPORTED,
    MODEL,
    RECORD,
    Row,
    imported_row,
    stem,
)
from basekamp.records.table import Rows, Table
from basekamp.storage import Store

__all__ = [
    "COMPLETE",
    "FROM",
    "IMPORTED",
    "MODEL",
    "PREDICTIONS",
    "Promotion",
    "RECORD",
    "REPORT",
    "Rebase",
    "Row",
    "Shelf",
    "TRACE",
    "find_in",
    "find_row",
    "holds",
    "id_in",
    "read_record",
    "read_shelf",
    "read_shelves",
    "record_key",
    "stem",
]

SECOND = 7
"""How many characters of an id tell when it was made."""

COMPLETE = "complete.json"
"""What makes a batch of old results count."""

PREDICTIONS, REPORT, TRACE = ".npz", ".html", ".gz"


@dataclass(frozen=True)
class Promotion:
    """One change of the champion: to the record `of`, by "gate" or "fallback"."""

    id: str
    of: str
    by: str


@dataclass(frozen=True)
class Rebase:
    """A new beginning: the record `of` is the baseline of what follows."""

    id: str
    of: str


@dataclass(frozen=True)
class Shelf:
    """One experiment's part of a store as one listing shows it. Rows are in the order of their ids: oldest first.

    rows: those of the present lineage. openings: the ids of the records that the test split was opened for.
    strangers: keys that are no names of ours. earlier: the rows of the lineages before. imported: results from
    elsewhere, apart from the rows, so that none is ever judged, compared with or champion. latest: when the newest of
    all that ids put in order was made.
    """

    experiment: str
    rows: Sequence[Row]
    promotions: tuple[Promotion, ...]
    openings: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    earlier: Sequence[Row] = ()
    imported: tuple[Row, ...] = ()
    latest: datetime | None = field(default=None, compare=False)

    @property
    def every(self) -> Sequence[Row]:
        """The rows of all lineages."""
        if isinstance(self.earlier, Rows) and isinstance(self.rows, Rows):
            return self.earlier.and_then(self.rows)
        return *self.earlier, *self.rows

    @property
    def baseline(self) -> Row | None:
        """The oldest baseline: the pinned one."""
        rows = (
            self.rows.where("attempt", lambda attempt: attempt == BASELINE)[:1]
            if isinstance(self.rows, Rows)
            else self.rows
        )
        return next((row for row in rows if row.role == "baseline"), None)

    @property
    def champion(self) -> Row | None:
        """The best that passed the gate and was not fallen back from; until then the baseline."""
        return next(reversed(self._climb()), None)

    @property
    def before_champion(self) -> Row | None:
        """Where a fallback goes: the champion before the present one, or the baseline."""
        return next(reversed(self._climb()[:-1]), self.baseline)

    def judged_before(self, params: dict[str, Value], n: int) -> int:
        """How many other looks there were before the first at these hyperparameters with n seeds.

        Every lineage counts: another baseline makes no new examples.
        """
        looks = list(dict.fromkeys((row.lineage, row.n, _recipe(row.params)) for row in self.every if row.verdict))
        look = (self.rows[0].lineage if self.rows else 1, n, _recipe(params))
        return looks.index(look) if look in looks else len(looks)

    def next_time(self) -> datetime:
        """Now; where this machine's clock is behind what is recorded, a second after that, for ids tell the order."""
        now = datetime.now(UTC)
        return max(now, self.latest + timedelta(seconds=1)) if self.latest else now

    def at(self, lineage: int) -> "Shelf":
        """The shelf as if that lineage were the present one."""
        rows = tuple(row for row in self.every if row.lineage == lineage)
        return replace(self, rows=rows, earlier=tuple(row for row in self.every if row.lineage != lineage))

    def find(self, name: str) -> Row:
        """The record of the present lineage with this name, id or key.

        Raises InputError when there is none, it is of an earlier lineage, or it is an imported result.
        """
        row = find_in([*self.every, *self.imported], name, self.experiment)
        if row.role == IMPORTED:
            raise InputError(
                f"{row.attempt} is imported, and only a record can be champion: `basekamp runs` lists them."
            )
        if row not in self.rows:
            raise InputError(
                f"{name} was judged against an earlier baseline of {self.experiment}: choose a record of the present "
                "one, as `basekamp runs` lists them."
            )
        return row

    def _climb(self) -> list[Row]:
        """The champions that stand, the baseline first: the gate adds one, a fallback cuts back to its target.

        A promotion of a run that was cut off before its record was written counts for nothing.
        """
        by_id = _with_ids(self.rows, {promotion.of for promotion in self.promotions})
        climb = [self.baseline] if self.baseline else []
        for promotion in self.promotions:
            row = by_id.get(promotion.of)
            if row is None:
                continue
            if promotion.by == "fallback":
                climb = climb[: climb.index(row)] if row in climb else climb[:1]
            climb.append(row)
        return climb


def read_shelves(store: Store, experiment: str | None = None) -> list[Shelf]:
    """List the store once (or one experiment of it) and sort what the names tell."""
    return _shelves(read_listing(store, experiment))


def read_shelf(store: Store, experiment: str) -> Shelf:
    """One experiment's part of a store; empty when it has none."""
    return next(iter(read_shelves(store, experiment)), Shelf(experiment, (), ()))


def find_row(store: Store, name: str) -> Row:
    """The record or imported result with this name, id or key; raises InputError when there is none.

    Only the rows with a key that holds the last part of the name are read.
    """
    wanted = PurePosixPath(name).name.removesuffix(RECORD).removesuffix(MODEL)
    shelves = read_shelves(store)
    return find_in((row for shelf in shelves for row in _candidates(shelf, wanted)), name, store.url)


def find_in(rows: Iterable[Row], name: str, place: str) -> Row:
    """The row with this name, id or key; raises InputError when there is none."""
    wanted = name.removesuffix(RECORD).removesuffix(MODEL)
    for row in rows:
        if wanted in (row.id, stem(row.name), stem(row.key)):
            return row
    raise InputError(f"{name} is no record of {place}: `basekamp runs` lists the names.")


def read_record(store: Store, row: Row) -> Record:
    """The whole record behind a row; raises InputError for one that another release wrote."""
    return fetch_document(Record, store, row.beside(RECORD))


def holds(store: Store, key: str) -> bool:
    """Whether something lies under the key."""
    return any(entry.key == key for entry in store.entries(key))


def record_key(experiment: str, attempt: str, name: str) -> str:
    """Where a record of this name lies."""
    folder = BASELINE if attempt == BASELINE else f"attempts/{attempt}"
    return f"{experiment}/{folder}/{name}"


def id_in(key: str) -> str | None:
    """The id that a key's file name ends in; None when it has none, or is no name of ours."""
    try:
        return parse_name(PurePosixPath(key).name).id
    except InputError:
        return None


def _candidates(shelf: Shelf, wanted: str) -> Iterator[Row]:
    """The rows that `find_in` could mean by it: those that have it in their keys."""
    for rows in (shelf.earlier, shelf.rows):
        yield from (
            rows.where("key", lambda key: key.str.contains(wanted, literal=True)) if isinstance(rows, Rows) else rows
        )
    yield from shelf.imported


def _shelves(frame: pl.DataFrame) -> list[Shelf]:
    """Part what `split_keys` gave by experiments."""
    table = Table(frame)
    sizes = frame["experiment"].rle().struct.unnest()
    ends = np.cumsum(sizes["len"].to_numpy())
    begins = ends - sizes["len"].to_numpy()
    return [_shelf(table, *told) for told in zip(sizes["value"], begins.tolist(), ends.tolist(), strict=True)]


def _shelf(table: Table, experiment: str, begin: int, end: int) -> Shelf:
    """One experiment: its records by their ids, then the other keys."""
    promotions: list[Promotion] = []
    rebases: list[Rebase] = []
    openings: list[str] = []
    strangers: list[str] = []
    imported: dict[str, list[Row]] = {}
    complete: set[str] = set()
    n_others = table.frame["id"][begin:end].null_count()
    for key in table.frame["key"][end - n_others : end]:
        _, *folders, name = key.split("/")
        try:
            match folders:
                case ["openings"]:
                    openings.append(str(parse_name(name).fields["of"]))
                case ["promotions"]:
                    promotions.append(_promotion(name))
                case ["rebases"]:
                    rebases.append(_rebase(name))
                case ["sweeps", _, "rounds" | "trials"]:
                    pass  # read by basekamp.sweeps.shelf
                case ["imported", batch] if name == COMPLETE:
                    complete.add(batch)
                case ["imported", batch]:
                    imported.setdefault(batch, []).append(imported_row(key, name))
                case _:
                    strangers.append(key)
        except (InputError, KeyError, ValueError):
            strangers.append(key)
    places = np.arange(begin, end - n_others)
    ids = table.frame["id"].gather(places)
    promotions.sort(key=lambda promotion: promotion.id)
    rebases.sort(key=lambda rebase: rebase.id)
    lineages = table.lineages[places] = _lineages(ids, rebases)
    is_present = lineages == lineages.max(initial=1)
    old = {row.id: row for batch in sorted(complete) for row in imported.get(batch, [])}  # two imports may have raced
    shelf = Shelf(
        experiment,
        Rows(table, places[is_present]),
        tuple(promotions),
        tuple(openings),
        tuple(strangers),
        Rows(table, places[~is_present]),
        imported=tuple(old.values()),
        latest=_latest(ids, [one.id for one in promotions], [one.id for one in rebases]),
    )
    if (champion := shelf.champion) is not None:
        table.champions[places[(ids == champion.id).to_numpy()]] = True
    return shelf


def _latest(*sorted_ids: pl.Series | list[str]) -> datetime | None:
    """When the newest was made; ids of other tools tell no time."""
    newest = (next((one for one in reversed(ids) if has_time(one)), None) for ids in sorted_ids)
    return max((id_time(one) for one in newest if one), default=None)


def _with_ids(rows: Sequence[Row], ids: Collection[str]) -> dict[str, Row]:
    """The rows of these ids; of a listing only they are read."""
    if isinstance(rows, Rows):
        return {row.id: row for row in rows.where("id", lambda id: id.is_in([*ids]))}
    return {row.id: row for row in rows if row.id in ids}


def _lineages(ids: Collection[str], rebases: list[Rebase]) -> NDArray[np.int64]:
    """Number each id's lineage: a rebase begins one with the baseline it names and what is recorded from then on.

    A rebase whose baseline is gone counts for nothing.
    """
    known = set(ids) if rebases else set()
    begun = [rebase for rebase in rebases if rebase.of in known]
    if not begun:
        return np.ones(len(ids), dtype=np.int64)
    told = (max((i for i, rebase in enumerate(begun, 2) if _is_after(one, rebase)), default=1) for one in ids)
    return np.fromiter(told, dtype=np.int64)


def _is_after(row_id: str, rebase: Rebase) -> bool:
    """Ids tell the second, and what follows a rebase may be recorded within its own."""
    return row_id == rebase.of or row_id[:SECOND] >= rebase.id[:SECOND]


def _promotion(file_name: str) -> Promotion:
    name = parse_name(file_name)
    id_time(str(name.id))  # refuses what has no place in the order
    return Promotion(id=str(name.id), of=str(name.fields["of"]), by=str(name.fields["by"]))


def _rebase(file_name: str) -> Rebase:
    name = parse_name(file_name)
    id_time(str(name.id))  # refuses what has no place in the order
    return Rebase(id=str(name.id), of=str(name.fields["of"]))


def _recipe(params: dict[str, Value]) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(params.items()))
