"""Where a sweep lies in a store, and what the listing alone tells of its trials.

<experiment>/sweeps/<sweep>/rounds/<round>.json     what was planned, before any of it ran
<experiment>/sweeps/<sweep>/trials/<name>.json      what a trial came to in a round; the name says it all but the curves
<experiment>/sweeps/<sweep>/report.html             the whole sweep on one page, written anew each time it ends
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from basekamp.document import fetch_document
from basekamp.errors import InputError
from basekamp.evaluation.goals import METRICS
from basekamp.hyperparameters import Hyperparameters, override
from basekamp.naming import Name, Value, new_id, parse_name
from basekamp.records.record import file_name, significant
from basekamp.storage import Store
from basekamp.sweeps.settings import Sweep
from basekamp.training.results import Curves

End = Literal["finished", "early", "diverged", "stopped", "paused"]
"""`stopped`: the budget was spent. `paused`: it had reached the end of its round, and may go on in the next."""


class Round(BaseModel):
    """What one round of a sweep trains.

    choices: the searched values of each trial that is new in this round, by its number. packs: the numbers of the
    trials that train in this round, in parts that may train at the same time. until: epochs that they train up to,
    counted from the start; None for as many as their settings say. seconds: what each pack may have spent at its end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sweep: Sweep
    settings: dict[str, Any]
    metric: str
    number: int
    choices: dict[int, dict[str, Any]]
    packs: list[list[int]]
    until: int | None = None
    seconds: list[float] | None = None
    is_last: bool = True

    def hyperparameters(self, choice: dict[str, Any]) -> Hyperparameters:
        """Every setting of a trial."""
        return Hyperparameters.from_mapping(override(self.settings, choice))


class Trial(BaseModel):
    """What one trial came to by the end of a round, with one seed. `value` is the deciding metric of its best epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    round: int
    params: dict[str, Value]
    metric: str
    value: float
    loss: float
    n_epochs: int
    best_epoch: int
    seconds: float
    ended: End
    curves: Curves

    def name(self, record_id: str, *, first: Sequence[str]) -> str:
        """The file name that tells all of it but the curves."""
        results: dict[str, Value] = {"n": 1, "loss": significant(self.loss), self.metric: significant(self.value)}
        results |= {"trial": self.number, "round": self.round, "epochs": self.n_epochs}
        results |= {"seconds": significant(self.seconds, 3), "ended": self.ended}
        fields = {key: value for key, value in self.params.items() if key != "model"}
        name = Name(model=str(self.params["model"]), fields=fields | results, extension="json", id=record_id)
        return file_name(name, first=first)


@dataclass(frozen=True)
class Told:
    """What a trial's name tells, numbers as rounded there."""

    number: int
    round: int
    metric: str
    value: float
    loss: float
    n_epochs: int
    seconds: float
    ended: str
    params: dict[str, Value]

    @property
    def rank(self) -> tuple[float, float, int]:
        """The higher, the better; of equals the one of lower loss, then the earlier."""
        sign = 1.0 if METRICS[self.metric] == "maximize" else -1.0
        return sign * self.value, -self.loss, -self.number

    @property
    def score(self) -> float | None:
        """The deciding metric, higher is better; None for a trial that diverged."""
        return None if self.ended == "diverged" else self.rank[0]


class SweepShelf:
    """One sweep's part of a store."""

    def __init__(self, store: Store, experiment: str, sweep_id: str) -> None:
        self.store, self.id = store, sweep_id
        self.prefix = f"{experiment}/sweeps/{sweep_id}/"

    def rounds(self) -> list[Round]:
        """What was planned so far, in order."""
        keys = [entry.key for entry in self.store.entries(f"{self.prefix}rounds/")]
        return [self._round(key) for key in keys]

    def put_round(self, planned: Round) -> None:
        """Write down what a round trains; it is never planned again."""
        self.store.put(f"{self.prefix}rounds/{planned.number}.json", planned.model_dump_json().encode())

    def told(self) -> list[Told]:
        """Every trial's result of every round, by round and number; one for each, whoever wrote twice."""
        found: dict[tuple[int, int], Told] = {}
        for entry in self.store.entries(f"{self.prefix}trials/"):
            one = _told(entry.key)
            found.setdefault((one.round, one.number), one)
        return [found[key] for key in sorted(found)]

    def put_trial(self, trial: Trial, *, first: Sequence[str]) -> None:
        """Write down what a trial came to."""
        record_id = new_id(datetime.now(UTC), f"{self.id}/{trial.round}/{trial.number}")
        key = f"{self.prefix}trials/{trial.name(record_id, first=first)}"
        self.store.put(key, trial.model_dump_json(indent=1).encode())

    def put_report(self, page: bytes) -> None:
        """Write the page of the whole sweep, in place of an earlier one."""
        self.store.delete(f"{self.prefix}report.html")
        self.store.put(f"{self.prefix}report.html", page)

    def _round(self, key: str) -> Round:
        return fetch_document(Round, self.store, key)


def latest(told: Sequence[Told]) -> dict[int, Told]:
    """The newest result of each trial, by its number."""
    return {one.number: one for one in sorted(told, key=lambda one: one.round)}


def _told(key: str) -> Told:
    name = parse_name(PurePosixPath(key).name)
    fields, keys = name.fields, list(name.fields)
    try:
        at_n, at_trial = keys.index("n"), keys.index("trial")
        metric = keys[at_trial - 1]
        return Told(
            number=int(str(fields["trial"])),
            round=int(str(fields["round"])),
            metric=metric,
            value=float(fields[metric]),
            loss=float(fields["loss"]),
            n_epochs=int(str(fields["epochs"])),
            seconds=float(fields["seconds"]),
            ended=str(fields["ended"]),
            params={"model": name.model, **{key: fields[key] for key in keys[:at_n]}},
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{key} is no trial's name: move it out of the sweep's folder.") from error
