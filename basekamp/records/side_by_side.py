"""Records side by side: what differs between them, and how far each is from the first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from basekamp.errors import BasekampError, InputError
from basekamp.evaluation.evaluate import Predictions
from basekamp.language import gettext
from basekamp.naming import Value
from basekamp.records.record import BASELINE, Record
from basekamp.records.shelf import PREDICTIONS, Row, Shelf, find_in, read_record, stem
from basekamp.records.verdict import measure_difference
from basekamp.storage import Store

MOST = 6
CHAMPION = "champion"


@dataclass(frozen=True)
class Gap:
    """How far a record is from the first in the deciding metric: its value minus the first's.

    interval at 95 % and p_better are None where nothing tells them, and then `why` says so. `partly` says where only
    some of the examples are shared: the difference is of these, the means are not.
    """

    difference: float
    interval: tuple[float, float] | None = None
    p_better: float | None = None
    why: str = ""
    partly: str = ""


@dataclass(frozen=True)
class SideBySide:
    """Two to six records of one deciding metric.

    settings and provenance: what is not alike in all, {what: one value for each record}. gaps: of all but the first.
    """

    records: list[Record]
    metric: str
    settings: dict[str, list[Value | None]]
    provenance: dict[str, list[str | None]]
    gaps: list[Gap]

    def as_json(self) -> dict[str, Any]:
        """Plain values, the records by name."""
        return {
            "metric": self.metric,
            "records": [
                {
                    "name": record.name,
                    "attempt": record.attempt,
                    "id": record.id,
                    "verdict": record.verdict,
                    "metrics": record.evaluation.metrics,
                    "spread": record.evaluation.spread,
                    "n": len(record.evaluation.replicates),
                }
                for record in self.records
            ],
            "settings": self.settings,
            "provenance": self.provenance,
            "differences": [vars(gap) for gap in self.gaps],
        }


def choose_rows(shelves: Sequence[Shelf], names: Sequence[str]) -> list[Row]:
    """The rows that are meant: a name, id or key, an attempt's name (its latest record), `baseline` or `champion`.

    Raises InputError for too few or too many, one that is twice there, or a name that means nothing or several.
    """
    if not 2 <= len(names) <= MOST:
        raise InputError(f"{len(names)} records are not allowed: give 2 to {MOST} to compare.")
    rows = [_choose(shelves, name) for name in names]
    twice = next((name for name, row in zip(names, rows, strict=True) if rows.count(row) > 1), None)
    if twice:
        raise InputError(f"{twice} is a record that is named twice: give different ones.")
    return rows


def put_side_by_side(store: Store, rows: Sequence[Row]) -> SideBySide:
    """Read the records and measure each against the first, on the examples that both were measured on.

    Raises InputError when they are not of one experiment and one deciding metric, or one is imported.
    """
    for row in rows:
        if row.role == "imported":
            raise InputError(f"{row.attempt} is imported, and nobody knows its noise: compare records.")
        if row.experiment != rows[0].experiment:
            raise InputError(
                f"{row.attempt} is of {row.experiment} and {rows[0].attempt} of {rows[0].experiment}: compare records "
                "of one experiment."
            )
        if row.metric != rows[0].metric:
            raise InputError(
                f"{row.attempt} was judged by {row.metric} and {rows[0].attempt} by {rows[0].metric}: compare records "
                "of one deciding metric."
            )
    records = [read_record(store, row) for row in rows]
    return SideBySide(
        records,
        rows[0].metric,
        settings=_differing([record.params for record in records]),
        provenance=_differing([provenance(record) for record in records]),
        gaps=[_gap(store, record, records[0]) for record in records[1:]],
    )


def provenance(record: Record) -> dict[str, str]:
    """Where a result came from: code, image, packages, data, seeds, device and duration."""
    training, data = record.training, record.data
    rows = ", ".join(f"{name} {count:,}" for name, count in data.rows.items())
    return {
        "commit": training.commit or "unknown",
        "image": record.image or "none, ran in process",
        "data": f"{data.source}, {rows}",
        "fingerprint": data.fingerprint,
        "data set": data.dataset,
        "seeds": ", ".join(str(one.seed) for one in training.replicates),
        "device": training.device,
        "seconds": f"{_duration(record):.1f}",
        **training.versions,
    }


def cost(record: Record, price: str) -> str:
    """What a training cost at a price such as "2.5 EUR" for an hour of a device; "" where no price is given.

    Raises InputError for what is no price.
    """
    if not price:
        return ""
    amount, _, currency = price.strip().partition(" ")
    try:
        each_hour = float(amount)
    except ValueError as error:
        raise InputError(
            f"the price {price!r} is not allowed: give an amount and a currency, such as 2.5 EUR."
        ) from error
    performance = record.training.performance
    devices = performance.processes if performance else 1
    return f"{each_hour * devices * _duration(record) / 3600:.4g} {currency}".strip()


def _duration(record: Record) -> float:
    """Seconds of the training; seeds that were trained together share them."""
    performance = record.training.performance
    return performance.seconds.total if performance else sum(one.seconds for one in record.training.replicates)


def _choose(shelves: Sequence[Shelf], name: str) -> Row:
    named = [row for row in (_named(shelf, name) for shelf in shelves) if row is not None]
    if len(named) > 1:
        where = ", ".join(row.experiment for row in named[:5])
        raise InputError(f"{name} is a record in several experiments ({where}): give --experiment, or an id.")
    every = [row for shelf in shelves for row in (*shelf.every, *shelf.imported)]
    return named[0] if named else find_in(every, name, "this store")


def _named(shelf: Shelf, name: str) -> Row | None:
    """The record that a word means in one experiment: of an attempt the latest of the present lineage."""
    if name == BASELINE:
        return shelf.baseline
    if name == CHAMPION:
        return shelf.champion
    return next((row for row in reversed(shelf.rows) if row.attempt == name), None)


def _differing(told: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What is not alike in all; None where one has no such key."""
    keys = dict.fromkeys(key for one in told for key in one)
    found = {key: [one.get(key) for one in told] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def _gap(store: Store, record: Record, first: Record) -> Gap:
    """The difference of the means where the examples are not the same, and else what verdicts rest on."""
    plain = record.mean - first.mean
    try:
        ours, theirs = (Predictions.fetch(store, stem(one.key) + PREDICTIONS) for one in (record, first))
        difference = measure_difference(record.metric, ours, theirs)
    except InputError:
        return Gap(plain, why=gettext("measured on other examples"))
    except BasekampError:
        return Gap(plain, why=gettext("its predictions were removed"))
    p_better = difference.probability_better()
    return Gap(
        difference.value,
        difference.interval(),
        None if math.isnan(p_better) else p_better,
        partly=_partly(difference.n_examples, max(len(ours.rows), len(theirs.rows))),
    )


def _partly(shared: int, whole: int) -> str:
    """What is to be known where not all examples are shared."""
    return "" if shared == whole else gettext("on {n} of {all} examples, which both share", n=shared, all=whole)
