"""How data differ from those of the baseline: in their schema, or in how their values are distributed.

n rows.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from basekamp.data.contract import Column, Contract, column_numbers, kind_of
from basekamp.data.two_samples import LARGE_INDEX, chance_index, is_apart, separability, stability_index
from basekamp.language import Phrase

FALSE_ALARMS = 1e-4
"""How probable a false alarm is for a data set of the same distribution, for each kind of comparison."""

MISSING_CHANGE, OUTSIDE = 0.05, 0.01
"""Shares of rows from which a change in missing values, or values outside of what was known, matter."""


def schema_changes(baseline: Contract, now: Contract) -> list[Phrase]:
    """What is not of the same form, one clause each: columns, types, classes, the shape of images."""
    known, ours = ({column.name: column for column in contract.columns} for contract in (baseline, now))
    changes = [Phrase("{name} is missing", {"name": name}) for name in known if name not in ours]
    changes += [Phrase("{name} is new", {"name": name}) for name in ours if name not in known]
    for old, new in [*((known[name], ours[name]) for name in known if name in ours), (baseline.target, now.target)]:
        if old.kind != new.kind and "empty" not in (old.kind, new.kind):
            values = {"name": new.name, "new": new.kind, "old": old.kind}
            changes.append(Phrase("{name} holds values of type {new} instead of {old}", values))
    if baseline.n_columns != now.n_columns and not changes:
        values = {"new": str(now.n_columns), "old": str(baseline.n_columns)}
        changes.append(Phrase("there are {new} columns instead of {old}", values))
    if baseline.shape != now.shape:
        values = {"new": str(list(now.shape)), "old": str(list(baseline.shape))}
        changes.append(Phrase("images are {new} instead of {old}", values))
    if baseline.task != now.task:
        changes.append(Phrase("the task is {new} instead of {old}", {"new": now.task, "old": baseline.task}))
    if baseline.task == now.task == "classification" and baseline.target.is_listed and now.target.is_listed:
        old_classes, new_classes = set(baseline.target.categories), set(now.target.categories)
        lost, fresh = sorted(old_classes - new_classes), sorted(new_classes - old_classes)
        changes += [Phrase("class {name} is missing", {"name": repr(name)}) for name in lost]
        changes += [Phrase("class {name} is new", {"name": repr(name)}) for name in fresh]
    return changes


def drifts(baseline: Contract, sample: pl.DataFrame) -> list[Phrase]:
    """What of a sample of rows is distributed otherwise than the baseline's training rows, one clause each.

    All the thresholds are beyond chance as well as beyond what hardly matters.
    """
    probability = FALSE_ALARMS / (len(baseline.columns) + 1)
    found: list[Phrase] = []
    for column in (*baseline.columns, baseline.target):
        if column.name in sample.columns and kind_of(sample[column.name].dtype) in (column.kind, "empty"):
            found += _column_drifts(column, sample[column.name], probability)
    kept = baseline.kept_codes()
    told = separability(kept, baseline.codes_of(sample))
    if told is not None and is_apart(*told):
        auc = {"auc": f"{told[0]:.2f}"}
        found.append(Phrase("a classifier tells the rows from the baseline's (AUC {auc}, 0.5 is alike)", auc))
    return found


def _column_drifts(column: Column, values: pl.Series, probability: float) -> Iterator[Phrase]:
    counts = np.bincount(column.codes(values), minlength=len(column.counts))
    before = np.array(column.counts)
    if change := _missing_change(before, counts, probability):
        facts = {"name": column.name, "new": f"{change[1]:.1%}", "old": f"{change[0]:.1%}"}
        yield Phrase("{name} is missing in {new} of the rows instead of {old}", facts)
    yield from _outside(column, values, counts, probability)
    before, counts = before[1:], counts[1:]
    if column.categories and not before[-1] and not counts[-1]:
        before, counts = before[:-1], counts[:-1]
    n_known = before.sum(), counts.sum()
    if len(before) < 2 or not all(n_known):
        return
    index = stability_index(before, counts)
    if index >= max(LARGE_INDEX, chance_index(len(before), *n_known, probability=probability)):
        facts = {"name": column.name, "index": f"{index:.2f}"}
        yield Phrase("{name} is distributed otherwise (stability index {index}, below 0.1 is alike)", facts)


def _missing_change(
    before: NDArray[np.int64], counts: NDArray[np.int64], probability: float
) -> tuple[float, float] | None:
    """The shares of missing values before and now, when they differ: by the exact test of Fisher."""
    from scipy.stats import fisher_exact

    table = [[int(part[0]), int(part[1:].sum())] for part in (before, counts)]
    old, new = (missing / max(missing + known, 1) for missing, known in table)
    if abs(new - old) < MISSING_CHANGE or fisher_exact(np.array(table)).pvalue >= probability:
        return None
    return old, new


def _outside(column: Column, values: pl.Series, counts: NDArray[np.int64], probability: float) -> Iterator[Phrase]:
    """Values beyond the baseline's range, and categories that it did not have.

    That j of m new values are beyond the largest of n has a probability of at most (m / (n + m))^j, whatever their
    distribution is, for every order of all of them is as probable.
    """
    n, m = sum(column.counts[1:]), int(counts[1:].sum())
    if not n or not m:
        return
    name = {"name": column.name}
    beyond = []
    if column.is_listed:
        beyond = [(Phrase("{name} has new categories, in {share} of the rows", name), int(counts[-1]))]
    if column.low is not None and column.high is not None:
        numbers = column_numbers(values)
        below, above = ({**name, "bound": _shown(column, bound)} for bound in (column.low, column.high))
        beyond = [
            (
                Phrase("{name} has values below {bound}, in {share} of the rows", below),
                int((numbers < column.low).sum()),
            ),
            (
                Phrase("{name} has values above {bound}, in {share} of the rows", above),
                int((numbers > column.high).sum()),
            ),
        ]
    for phrase, j in beyond:
        if j / m >= OUTSIDE and j * np.log(m / (n + m)) < np.log(probability / 2):
            yield Phrase(phrase.text, {**phrase.values, "share": f"{j / m:.1%}"})


def _shown(column: Column, value: float) -> str:
    return str(np.datetime64(int(value), "us"))[:16] if column.kind == "date" else f"{value:g}"
