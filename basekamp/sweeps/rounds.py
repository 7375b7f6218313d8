"""A sweep goes round by round: each is planned from what the ones before came to, and written down before it runs.

grid and random plan all trials in the first round, tpe a share in each; halving lets the best third go on with three
times the epochs. Source of the last: Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from basekamp.data.dataset import load_dataset
from basekamp.errors import InputError
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.source import code_version
from basekamp.records.shelf import read_shelf
from basekamp.storage import open_store
from basekamp.sweeps.settings import Budget, Sweep
from basekamp.sweeps.shelf import Round, SweepShelf, Told, latest
from basekamp.sweeps.space import Result, propose
from basekamp.training.grouping import in_groups, shape_of

ROUNDS = 5
MOST_PACKS = 12
"""Kubeflow's UI reads 100 artifacts of a run, and each pack of each round leaves one: its log."""

FACTOR = 3
"""A rung of halving has so many times the epochs of the one before, and so many times fewer trials."""


@dataclass(frozen=True)
class SweepRun:
    """One sweep of one experiment: its block of the file and the settings that it starts from, and where it is kept."""

    experiment: str
    metric: str
    store: str
    sweep: Sweep
    settings: Hyperparameters

    @classmethod
    def of(cls, *, experiment: str, metric: str, store: str, sweep: str, settings: str) -> "SweepRun":
        """The sweep that a component is given, where `sweep` and `settings` are JSON."""
        start = Hyperparameters.from_mapping(json.loads(settings))
        return cls(experiment, metric, store, Sweep.model_validate_json(sweep), start)

    def id(self, dataset_fingerprint: str) -> str:
        """The same sweep of the same data by the same code has the same id: so it goes on where it stood."""
        start = self.settings.model_dump_json()
        parts = [self.metric, self.sweep.model_dump_json(), start, dataset_fingerprint]
        parts += [code_version(model) for model in self.sweep.over.get("model", [self.settings.model])]
        return f"{self.sweep.method}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]}"


class Pack(NamedTuple):
    """A part of a round that trains at once, as it is named among components: `<sweep id>/<round>/<pack>`."""

    sweep_id: str
    round: int
    number: int

    def __str__(self) -> str:
        """Its name."""
        return f"{self.sweep_id}/{self.round}/{self.number}"

    @classmethod
    def named(cls, text: str) -> "Pack":
        """The pack of this name."""
        sweep_id, number, pack = text.split("/")
        return cls(sweep_id, int(number), int(pack))


def plan_round(dataset: Path, run: SweepRun, *, number: int, packs: int) -> list[str]:
    """Plan a round, unless it was planned before; gives the names of its packs, one or more.

    Raises InputError when the experiment has no baseline, or the budget is too small for a single trial.
    """
    store = open_store(run.store)
    if read_shelf(store, run.experiment).baseline is None:
        raise InputError(
            f"{run.experiment} has no baseline in {store.url}, and a sweep is measured against one: make it first with "
            "`basekamp run FILE --attempt baseline` (`basekamp submit FILE --attempt baseline` on a cluster)."
        )
    if not 1 <= packs <= MOST_PACKS:
        raise InputError(f"packs={packs} is not allowed: use 1 to {MOST_PACKS}, the trainings that run at once.")
    shelf = SweepShelf(store, run.experiment, run.id(load_dataset(dataset).schema.dataset_fingerprint))
    planned = shelf.rounds()
    if number >= len(planned):
        planned.append(_plan(run, planned, shelf, packs=packs))
        shelf.put_round(planned[number])
    return [str(Pack(shelf.id, number, i)) for i in range(len(planned[number].packs))]


def _plan(run: SweepRun, planned: Sequence[Round], shelf: SweepShelf, *, packs: int) -> Round:
    told = shelf.told()
    number, rungs = len(planned), rungs_of(run)
    is_first, until = number == 0, rungs[number] if number < len(rungs) else None
    choices: dict[int, dict[str, Any]] = {}
    if run.sweep.method != "halving" or is_first:
        choices = _new_choices(run, planned, told, seed=_seed(shelf.id, number))
    if run.sweep.method == "halving" and not is_first:
        parts = _survivors(planned, told) if until else [[]]
    else:
        parts = _packed(run, choices, packs)
    is_last = run.sweep.method != "halving" or number + 1 >= len(rungs)
    return Round(
        sweep=run.sweep,
        settings=run.settings.model_dump(),
        metric=run.metric,
        number=number,
        choices=choices,
        packs=parts,
        until=until,
        seconds=_allowed(run.sweep.budget, parts, told, rounds_left=max(_rounds(run) - number, 1)),
        is_last=is_last,
    )


def rungs_of(run: SweepRun) -> list[int]:
    """The epochs up to which each round of a halving sweep trains; empty for other methods."""
    if run.sweep.method != "halving":
        return []
    most = run.settings.n_epochs
    number = min(int(math.log(most, FACTOR)) + 1, ROUNDS)
    return [math.ceil(most / FACTOR ** (number - 1 - i)) for i in range(number)]


def _rounds(run: SweepRun) -> int:
    """How many rounds have something to train."""
    return {"tpe": ROUNDS, "halving": len(rungs_of(run))}.get(run.sweep.method, 1)


def _new_choices(
    run: SweepRun, planned: Sequence[Round], told: Sequence[Told], *, seed: int
) -> dict[int, dict[str, Any]]:
    """What this round tries that no round before did, numbered on from theirs."""
    known = {number: choice for one in planned for number, choice in one.choices.items()}
    rounds = 1 if run.sweep.method == "halving" else _rounds(run)
    count = run.sweep.trials * min(len(planned) + 1, rounds) // rounds - len(known)
    if count <= 0 or (run.sweep.budget and _is_spent(run.sweep.budget, told)):
        return {}
    newest = latest(told)
    results = [Result(choice, newest[number].score) for number, choice in known.items() if number in newest]
    proposed = propose(run.sweep, count, results=results, seed=seed)
    if run.sweep.budget and run.sweep.budget.epochs:
        before = sum(_epochs(run, choice) for choice in known.values())
        proposed = _affordable(run, proposed, run.sweep.budget.epochs - before, is_first=not known)
    return dict(enumerate(proposed, len(known)))


def _affordable(run: SweepRun, proposed: list[dict[str, Any]], epochs: int, *, is_first: bool) -> list[dict[str, Any]]:
    """As many of the proposed trials, from the first on, as that many epochs pay for."""
    rungs = rungs_of(run)
    count = 0
    while count < len(proposed) and _cost(run, proposed[: count + 1], rungs) <= epochs:
        count += 1
    if is_first and not count:
        least = _cost(run, proposed[:1], rungs)
        raise InputError(f"sweep.budget.epochs={epochs} is less than one trial's {least}: use {least} or more.")
    return proposed[:count]


def _cost(run: SweepRun, choices: Sequence[dict[str, Any]], rungs: Sequence[int]) -> int:
    """The epochs that trials take at most."""
    if not rungs:
        return sum(_epochs(run, choice) for choice in choices)
    counts = [math.ceil(len(choices) / FACTOR**i) for i in range(len(rungs))]
    added = [rungs[0], *(after - before for before, after in zip(rungs, rungs[1:], strict=False))]
    return sum(count * epochs for count, epochs in zip(counts, added, strict=True))


def _epochs(run: SweepRun, choice: dict[str, Any]) -> int:
    epochs: int = choice.get("n_epochs", run.settings.n_epochs)
    return epochs


def _survivors(planned: Sequence[Round], told: Sequence[Told]) -> list[list[int]]:
    """The best third of the trials of the round before, each in the pack that it began in; what has ended stays there.

    A trial that ended by itself keeps its rank, and trains no more.
    """
    before = planned[-1]
    of_round = [one for one in told if one.round == before.number and one.score is not None]
    kept = sorted(of_round, key=lambda one: one.rank, reverse=True)
    trained = sum(map(len, before.packs))
    going_on = {one.number for one in kept[: math.ceil(trained / FACTOR)] if one.ended == "paused"}
    return [[number for number in pack if number in going_on] for pack in before.packs]


def _packed(run: SweepRun, choices: dict[int, dict[str, Any]], packs: int) -> list[list[int]]:
    """Trials of one shape side by side, in parts of equal number."""
    shapes = {number: shape_of(_laid(run, choice)) for number, choice in choices.items()}
    in_order = sorted(choices, key=lambda number: (shapes[number], number))
    return in_groups(in_order, -(-len(in_order) // packs)) if in_order else [[]]


def _laid(run: SweepRun, choice: dict[str, Any]) -> Hyperparameters:
    return Hyperparameters.from_mapping({**run.settings.model_dump(), **choice})


def _allowed(
    budget: Budget | None, packs: Sequence[Sequence[int]], told: Sequence[Told], *, rounds_left: int
) -> list[float] | None:
    """The seconds that each pack may have spent at the end of its round, what its trials spent before included."""
    if budget is None or budget.minutes is None:
        return None
    newest = latest(told)
    spent = {number: one.seconds for number, one in newest.items()}
    left = max(60 * budget.minutes - sum(spent.values()), 0.0)
    busy = sum(bool(pack) for pack in packs) or 1
    return [left / rounds_left / busy + sum(spent.get(number, 0.0) for number in pack) for pack in packs]


def _is_spent(budget: Budget, told: Sequence[Told]) -> bool:
    return budget.minutes is not None and sum(one.seconds for one in latest(told).values()) >= 60 * budget.minutes


def _seed(sweep_id: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{sweep_id}/{number}".encode()).digest()[:4])
