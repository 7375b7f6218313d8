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

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import ValidationError

from basekamp.errors import InputError
from basekamp.naming import Value, id_time, parse_name
from basekamp.records.record import BASELINE, Record, Role
from basekamp.storage import Store

SECOND = 7
"""How many characters of an id tell when it was made."""

IMPORTED: Literal["imported"] = "imported"
COMPLETE, FROM = "complete.json", "from"
"""The folder of old results, what makes a batch of them count, and the field between their settings and metrics."""

MODEL, PREDICTIONS, REPORT, RECORD, TRACE = ".pth", ".npz", ".html", ".json", ".gz"


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
    elsewhere, apart from the rows, so that none is ever judged, compared with or champion.
    """

    experiment: str
    rows: tuple[Row, ...]
    promotions: tuple[Promotion, ...]
    openings: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    earlier: tuple[Row, ...] = ()
    imported: tuple[Row, ...] = ()

    @property
    def every(self) -> tuple[Row, ...]:
        """The rows of all lineages."""
        return *self.earlier, *self.rows

    @property
    def baseline(self) -> Row | None:
        """The oldest baseline: the pinned one."""
        return next((row for row in self.rows if row.role == "baseline"), None)

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
        by_id = {row.id: row for row in self.rows}
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
    found: dict[str, list[str]] = {}
    for key in store.keys(f"{experiment}/" if experiment else "", RECORD):
        if key.count("/") > 1 and key[0] != ".":
            found.setdefault(key[: key.index("/")], []).append(key)
    return [_shelf(name, keys) for name, keys in sorted(found.items())]


def read_shelf(store: Store, experiment: str) -> Shelf:
    """One experiment's part of a store; empty when it has none."""
    return next(iter(read_shelves(store, experiment)), Shelf(experiment, (), ()))


def find_row(store: Store, name: str) -> Row:
    """The record or imported result with this name, id or key; raises InputError when there is none."""
    return find_in([row for shelf in read_shelves(store) for row in (*shelf.every, *shelf.imported)], name, store.url)


def find_in(rows: Iterable[Row], name: str, place: str) -> Row:
    """The row with this name, id or key; raises InputError when there is none."""
    wanted = name.removesuffix(RECORD).removesuffix(MODEL)
    for row in rows:
        if wanted in (row.id, stem(row.name), stem(row.key)):
            return row
    raise InputError(f"{name} is no record of {place}: `basekamp runs` lists the names.")


def read_record(store: Store, row: Row) -> Record:
    """The whole record behind a row; raises InputError for one that another release wrote."""
    key = row.beside(RECORD)
    try:
        return Record.model_validate_json(store.get(key))
    except ValidationError as error:
        raise InputError(
            f"{key} in {store.url} is no record that this basekamp reads ({error.error_count()} problems): "
            "use the release that wrote it, or move the file away."
        ) from error


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


def stem(key: str) -> str:
    """The key without its last extension."""
    return key.rpartition(".")[0]


def rows_as_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows as plain values, for `--json`."""
    keys = (
        "name",
        "experiment",
        "role",
        "attempt",
        "params",
        "metrics",
        "n",
        "spread",
        "difference",
        "interval",
        "verdict",
        "champion",
        "key",
        "lineage",
    )
    told = [{key: getattr(row, key) for key in keys} for row in rows]
    return [row | {"spread": None} if row["role"] == IMPORTED else row for row in told]


def _shelf(experiment: str, keys: list[str]) -> Shelf:
    rows: list[Row] = []
    promotions: list[Promotion] = []
    rebases: list[Rebase] = []
    openings: list[str] = []
    strangers: list[str] = []
    imported: dict[str, list[Row]] = {}
    complete: set[str] = set()
    for key in keys:
        _, *folders, name = key.split("/")
        try:
            match folders:
                case ["attempts", attempt]:
                    rows.append(_row(key, name, attempt=attempt))
                case ["baseline"]:
                    rows.append(_row(key, name, attempt=BASELINE))
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
                    imported.setdefault(batch, []).append(_imported_row(key, name))
                case _:
                    strangers.append(key)
        except (InputError, KeyError, ValueError):
            strangers.append(key)
    rows = _in_lineages(sorted(rows, key=lambda row: row.id), sorted(rebases, key=lambda rebase: rebase.id))
    promotions.sort(key=lambda promotion: promotion.id)
    old = {row.id: row for batch in sorted(complete) for row in imported.get(batch, [])}  # two imports may have raced
    shelf = Shelf(experiment, tuple(rows), tuple(promotions), tuple(openings), tuple(strangers))
    shelf = replace(shelf, imported=tuple(old.values()))
    shelf = shelf.at(max((row.lineage for row in rows), default=1))
    champion = shelf.champion
    is_champion = (row is champion for row in shelf.rows)
    marked = (replace(row, champion=True) if here else row for row, here in zip(shelf.rows, is_champion, strict=True))
    return replace(shelf, rows=tuple(marked))


def _in_lineages(rows: list[Row], rebases: list[Rebase]) -> list[Row]:
    """Number each row's lineage: a rebase begins one with the baseline it names and what is recorded from then on.

    A rebase whose baseline is gone counts for nothing.
    """
    ids = {row.id for row in rows}
    begun = [rebase for rebase in rebases if rebase.of in ids]
    if not begun:
        return rows
    lineages = [[i for i, rebase in enumerate(begun, 2) if _is_after(row.id, rebase)] for row in rows]
    return [replace(row, lineage=max(found, default=1)) for row, found in zip(rows, lineages, strict=True)]


def _is_after(row_id: str, rebase: Rebase) -> bool:
    """Ids tell the second, and what follows a rebase may be recorded within its own."""
    return row_id == rebase.of or row_id[:SECOND] >= rebase.id[:SECOND]


def _row(key: str, file_name: str, *, attempt: str) -> Row:
    """Read a key: fields up to `n` are hyperparameters, those up to `spread` metrics, the last the deciding one."""
    name = parse_name(file_name)
    fields = name.fields
    keys = list(fields)
    at_n, at_loss, at_spread = keys.index("n"), keys.index("loss"), keys.index("spread")
    if name.id is None or not at_n < at_loss < at_spread:
        raise InputError(f"{key} is no record's name: it needs n, loss and spread in this order, and an id.")
    difference, low, verdict = fields.get("difference"), fields.get("low"), fields.get("verdict")
    return Row(
        name=f"{stem(file_name)}{MODEL}",
        key=f"{stem(key)}{MODEL}",
        experiment=key[: key.index("/")],
        role="baseline" if attempt == BASELINE else "attempt",
        attempt=attempt,
        id=name.id,
        params={"model": name.model, **{one: fields[one] for one in keys[:at_n]}},
        metric=keys[at_spread - 1],
        metrics={one: float(fields[one]) for one in keys[at_n + 1 : at_spread]},
        n=int(str(fields["n"])),
        spread=float(fields["spread"]),
        difference=None if difference is None else float(difference),
        interval=None if low is None else (float(low), float(fields["high"])),
        verdict=None if verdict is None else str(verdict),
        cut=name.cut,
    )


def _imported_row(key: str, file_name: str) -> Row:
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
