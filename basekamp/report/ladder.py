"""The ladder as a report shows it: majority or mean, linear, boosting and the best so far, by how far each climbed."""

from collections.abc import Sequence
from dataclasses import dataclass

from basekamp.evaluation.evaluate import is_better
from basekamp.language import gettext
from basekamp.records.record import Record
from basekamp.records.shelf import Row


@dataclass(frozen=True)
class Step:
    """One rung: what stands on it, the deciding metric, and the share of the way from the lowest to the best."""

    name: str
    value: float
    share: float
    note: str
    is_this: bool = False


def ladder_steps(record: Record, baseline: Record | None, rows: Sequence[Row]) -> list[Step]:
    """The rungs from the lowest; empty for a record of a release that measured none.

    The experiment's own baseline stands for the linear rung when it is linear. rows: the experiment, `record` included.
    """
    if record.ladder is None:
        return []
    pinned, metric = baseline or record, record.metric
    rungs = [(rung.model, rung.metrics[metric], rung.note) for rung in record.ladder.rungs]
    if pinned.params["model"] == "linear":
        told = ("linear", pinned.mean, gettext("the baseline, {n} seeds", n=len(pinned.evaluation.replicates)))
        rungs = [told if name == "linear" else (name, value, note) for name, value, note in rungs]
    best = rows[0]
    for row in rows[1:]:
        best = row if is_better(metric, row.value, best.value) else best
    entries = [(name, value, note, False) for name, value, note in rungs]
    if best.id != record.id:
        entries.append((gettext("this attempt"), record.mean, record.attempt, True))
    entries.append((gettext("best so far"), best.value, best.attempt, best.id == record.id))
    sign = 1.0 if is_better(metric, 1.0, 0.0) else -1.0
    climbs = [max(sign * (value - entries[0][1]), 0.0) for _, value, _, _ in entries]
    highest = max(climbs) or 1.0
    return [
        Step(name, value, climb / highest, note, is_this)
        for (name, value, note, is_this), climb in zip(entries, climbs, strict=True)
    ]
