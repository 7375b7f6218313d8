"""The `sweep` block of an experiment file: what is searched, how, and within which budget."""

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from basekamp.attempt import LONGEST_HYPOTHESIS, Section, Task, settings_problems
from basekamp.hyperparameters import Hyperparameters, Number, Whole, override, override_problems, settings_read_by
from basekamp.validation import Problem, not_allowed, raise_together, said, show, unknown_key

SWEEP = "sweep"
"""The name of the attempt that a sweep's winner becomes."""

Method = Literal["grid", "random", "tpe", "halving"]
_SETTINGS = tuple(Hyperparameters.model_fields)


class Budget(Section):
    """What all trials may spend together: epochs, or minutes of training, counted on every device that trains."""

    epochs: Whole | None = Field(default=None, ge=1, description="a whole number of 1 or more")
    minutes: Number | None = Field(default=None, gt=0, description="a number above 0")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.epochs is None) == (self.minutes is None):
            raise said(" takes one limit: use {epochs: 500} or {minutes: 30}.")
        return self


class Sweep(Section):
    """The settings to search, each a list of values or a range `[low, high, log|linear]`, around one starting point.

    `start` names the attempt that the trials begin from, empty for the baseline; `overrides` are laid over it.
    """

    start: str = Field(default="", description="the name of an attempt, or nothing for the baseline")
    over: dict[str, list[Any]] = Field(
        min_length=1,
        description="a mapping of hyperparameters, such as {lr: [1e-4, 3e-2, log], width: [64, 128]}",
    )
    trials: Whole = Field(ge=1, le=100_000, description="a whole number from 1 to 100000")
    method: Method = Field(description="grid, random, tpe or halving")
    hypothesis: str = Field(
        default="",
        max_length=LONGEST_HYPOTHESIS,
        description=f"a sentence of at most {LONGEST_HYPOTHESIS} characters that says what should help, and why",
    )
    expect: Number = Field(default=0.0, ge=0, description="a number of 0 or more: the smallest gain that matters")
    budget: Budget | None = Field(default=None, description="a mapping such as {epochs: 500} or {minutes: 30}")
    overrides: dict[str, Any] = {}

    @field_validator("over")
    @classmethod
    def _values_are_settings(cls, over: dict[str, list[Any]]) -> dict[str, list[Any]]:
        raise_together(problem for key, values in over.items() for problem in _problems_of_values(key, values))
        return over

    @field_validator("overrides")
    @classmethod
    def _overrides_are_settings(cls, overrides: dict[str, Any]) -> dict[str, Any]:
        own = tuple(key for key in cls.model_fields if key != "overrides")
        raise_together(override_problems(overrides, other_keys=own))
        return overrides

    @model_validator(mode="after")
    def _method_suits_values(self) -> Self:
        raise_together(self._problems_of_method())
        return self

    def _problems_of_method(self) -> Iterator[Problem]:
        if self.method == "grid":
            for key, values in self.over.items():
                if is_range(values):
                    yield Problem(("over", key), " is a range, and a grid needs single values: list them.", values)
                    return
            number = prod(map(len, self.over.values()))
            if number > self.trials:
                use = f"{number} for all combinations of the grid, or method: random"
                yield Problem(("trials",), not_allowed(self.trials, use))
        if self.method == "halving" and "n_epochs" in self.over:
            yield Problem(("over", "n_epochs"), " cannot be searched with method: halving, which sets the epochs.")
        for key in self.over:
            if key in self.overrides:
                yield Problem((key,), " is set and searched at once: keep one.")

    def told(self) -> str:
        """The hypothesis; where none was written, one that says what is searched."""
        return self.hypothesis.strip() or f"Another choice of {', '.join(self.over)} beats the baseline."


def gather_settings(body: object) -> object:
    """Return the file's form of a sweep, settings beside its own keys, as the fields of `Sweep`."""
    if not isinstance(body, dict):
        return body
    own = {key: body[key] for key in Sweep.model_fields if key in body and key != "overrides"}
    return {**own, "overrides": {key: body[key] for key in body if key not in own}}


def sweep_problems(sweep: Sweep, start: Mapping[str, Any], task: Task | None) -> list[Problem]:
    """Return what is wrong with a sweep once it is laid over the settings that it starts from."""
    base = sweep_start(sweep, start)
    if problems := settings_problems(base, task):
        return problems
    models = sweep.over.get("model", [base.get("model", Hyperparameters.model_fields["model"].default)])
    found = [problem for model in models for problem in _problems_with_model(sweep, base, str(model), task)]
    read = {"options", *(key for model in models for key in settings_read_by(str(model)))}
    idle = [key for key in (*sweep.over, *sweep.overrides) if key not in read]
    named = " or ".join(map(str, models))
    return found or [
        Problem((("over", key) if key in sweep.over else (key,)), f" has no effect with model: {named}: take it out.")
        for key in idle
    ]


def sweep_start(sweep: Sweep, start: Mapping[str, Any]) -> dict[str, Any]:
    """Every trial's settings but for what is searched, of which this holds the first values."""
    return override(start, {**sweep.overrides, **{key: values[0] for key, values in sweep.over.items()}})


def _problems_with_model(sweep: Sweep, base: Mapping[str, Any], model: str, task: Task | None) -> Iterator[Problem]:
    if sweep.method == "halving" and "n_epochs" not in settings_read_by(model):
        use = "use random or tpe"
        yield Problem(("method",), f"=halving stops trainings after some epochs, and model: {model} has none: {use}.")
        return
    over = [(key, value) for key, values in sweep.over.items() if key != "model" for value in _single(values)]
    for key, value in over or [("model", model)]:
        laid = override(base, {"model": model, key: value})
        for problem in settings_problems(laid, task):
            yield problem._replace(path=("over", *problem.path))
            return


def grid_of(sweep: Sweep) -> list[dict[str, Any]]:
    """Every combination of single values, in the order of the file."""
    return [dict(zip(sweep.over, values, strict=True)) for values in product(*sweep.over.values())]


def is_range(values: list[Any]) -> bool:
    """Return whether a sweep's list is a range `[low, high, log|linear]` rather than single values."""
    if len(values) != 3 or values[2] not in ("log", "linear"):
        return False
    return all(isinstance(end, int | float) and not isinstance(end, bool) for end in values[:2])


def _single(values: list[Any]) -> list[Any]:
    """The values, or the ends of a range."""
    return values[:2] if is_range(values) else values


def _problems_of_values(key: str, values: list[Any]) -> Iterator[Problem]:
    swept = [name for name in _SETTINGS if name != "options"]
    if key not in swept:
        yield Problem((key,), unknown_key(key, swept), values)
        return
    if not values or any(value in values[:i] for i, value in enumerate(values)):
        yield Problem((key,), " needs a list of different values, or a range such as [1e-4, 3e-2, log].", values)
        return
    if is_range(values):
        low, high, scale = values
        values = [low, high]
        if low >= high or (scale == "log" and low <= 0):
            use = "[low, high, log] or [low, high, linear] with low below high, and above 0 for log"
            yield Problem((key,), f"=[{show(low)}, {show(high)}, {scale}] is not allowed: use {use}.")
            return
    for index, value in enumerate(values):
        for problem in override_problems({key: value}):
            yield problem._replace(path=(key, index))
