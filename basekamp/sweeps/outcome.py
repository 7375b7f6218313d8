"""What a sweep came to: its winner, what mattered, and what it spent beside the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

from basekamp.errors import InputError
from basekamp.records.record import Record
from basekamp.sweeps.shelf import Round, SweepShelf, Told, latest
from basekamp.sweeps.space import Choice, Result, importance


@dataclass(frozen=True)
class Spent:
    """Epochs trained: by the baseline with all its seeds, by all trials, and how far these were at the same point.

    at_equal: the best trial by the time that the trials, in the order in which they were planned, had trained as many
    epochs as the baseline; None where the first had not ended by then.
    """

    baseline: int
    trials: int
    at_equal: Told | None

    @property
    def ratio(self) -> float:
        """How many times what the baseline was given."""
        return self.trials / max(self.baseline, 1)


@dataclass(frozen=True)
class Outcome:
    """One sweep, seen from its end. `told` is every trial's result of every round, `choices` what each had searched."""

    id: str
    first: Round
    baseline: Record
    choices: dict[int, Choice]
    told: list[Told]
    winner: Told
    spent: Spent
    importance: dict[str, float]

    @property
    def metric(self) -> str:
        """The deciding metric."""
        return self.first.metric

    @property
    def trials(self) -> list[Told]:
        """The newest result of each trial, the best first, those that diverged last."""
        return sorted(latest(self.told).values(), key=lambda one: (one.score is not None, one.rank), reverse=True)


def read_outcome(shelf: SweepShelf, rounds: Sequence[Round], baseline: Record) -> Outcome:
    """What the rounds and the names of the trials tell; raises InputError when every trial diverged."""
    told = shelf.told()
    choices = {number: choice for one in rounds for number, choice in one.choices.items()}
    finite = [one for one in latest(told).values() if one.score is not None]
    if not finite:
        raise InputError(
            f"not one of the {len(choices)} trials of the sweep came to a finite result: search lower learning rates."
        )
    first = min(one.round for one in told)
    comparable = told if rounds[0].sweep.method != "halving" else [one for one in told if one.round == first]
    return Outcome(
        id=shelf.id,
        first=rounds[0],
        baseline=baseline,
        choices=choices,
        told=told,
        winner=max(finite, key=lambda one: one.rank),
        spent=_spent(told, sum(replicate.n_epochs for replicate in baseline.training.replicates)),
        importance=importance(rounds[0].sweep, [Result(choices[one.number], one.score) for one in comparable]),
    )


def _spent(told: Sequence[Told], of_baseline: int) -> Spent:
    best: Told | None = None
    done: dict[int, int] = {}
    for one in told:
        done[one.number] = one.n_epochs
        is_in_time = sum(done.values()) <= of_baseline
        if is_in_time and one.score is not None and (best is None or one.rank > best.rank):
            best = one
    return Spent(of_baseline, sum(done.values()), best)
