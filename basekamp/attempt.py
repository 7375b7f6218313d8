"""What is tried against a baseline: attempts, each with its hypothesis, and sweeps."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from basekamp.hyperparameters import Hyperparameters, Number, Whole, override, override_problems
from basekamp.validation import Problem, not_allowed, problems_of, raise_together, said, show, unknown_key

Task = Literal["classification", "regression"]

_SETTINGS = tuple(Hyperparameters.model_fields)
_TASK_OF_MODEL: Mapping[str, Task] = MappingProxyType({"majority": "classification", "mean": "regression"})

Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="a name of 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit",
    ),
]


class Section(BaseModel):
    """A part of the experiment file: frozen, and refuses keys that nothing reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Attempt(Section):
    """The baseline's settings with some overrides, and the hypothesis behind them, written before the run."""

    name: Name
    hypothesis: str = Field(
        min_length=1,
        max_length=2000,
        description="a sentence of at most 2000 characters that says what should help, and why",
    )
    expect: Number = Field(gt=0, description="a number above 0: the smallest gain that matters, in the metric's unit")
    overrides: dict[str, Any] = {}

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name == "baseline":
            raise said(" is the name of the baseline: give the attempt another name.")
        return name

    @field_validator("hypothesis", mode="before")
    @classmethod
    def _hypothesis_without_margins(cls, hypothesis: Any) -> Any:
        return hypothesis.strip() if isinstance(hypothesis, str) else hypothesis

    @field_validator("overrides")
    @classmethod
    def _overrides_are_settings(cls, overrides: dict[str, Any]) -> dict[str, Any]:
        raise_together(override_problems(overrides, other_keys=("hypothesis", "expect")))
        return overrides


class Sweep(Section):
    """The settings to search, each a list of values or a range `[low, high, log|linear]`."""

    over: dict[str, list[Any]] = Field(
        min_length=1,
        description="a mapping of hyperparameters, such as {lr: [1e-4, 3e-2, log], width: [64, 128]}",
    )
    trials: Whole = Field(ge=1, le=100_000, description="a whole number from 1 to 100000")
    method: Literal["grid", "random", "tpe", "halving"] = Field(description="grid, random, tpe or halving")

    @field_validator("over")
    @classmethod
    def _values_are_settings(cls, over: dict[str, list[Any]]) -> dict[str, list[Any]]:
        raise_together(problem for key, values in over.items() for problem in _sweep_problems(key, values))
        return over


def gather_overrides(name: str, body: object) -> object:
    """Return the file's form of an attempt, settings beside the hypothesis, as the fields of `Attempt`."""
    if not isinstance(body, dict):
        return body
    own = {key: body[key] for key in ("hypothesis", "expect") if key in body}
    return {"name": name, **own, "overrides": {key: body[key] for key in body if key not in own}}


def settings_problems(settings: Mapping[str, Any], task: Task | None) -> list[Problem]:
    """Return what is wrong with a whole set of hyperparameters for a task, None when it is not known yet."""
    try:
        model = Hyperparameters.model_validate(settings).model
    except ValidationError as error:
        return problems_of(error, Hyperparameters)
    needed = _TASK_OF_MODEL.get(model, task)
    if task is None or needed == task:
        return []
    other = next(name for name, fits in _TASK_OF_MODEL.items() if fits == task)
    return [Problem(("model",), not_allowed(model, f"{other} or linear, since this is a {task}"), model)]


def attempt_problems(attempt: Attempt, baseline: Mapping[str, Any], task: Task | None) -> list[Problem]:
    """Return what is wrong with an attempt once it is laid over the baseline."""
    merged = override(baseline, attempt.overrides)
    problems = settings_problems(merged, task)
    if problems:
        return problems
    model = Hyperparameters.model_validate(merged)
    idle = [key for key in attempt.overrides if key != "options" and key not in model.used()]
    clause = f" has no effect with model: {model.model}: take it out, or choose a model that uses it."
    return [Problem((key,), clause) for key in idle]


def _sweep_problems(key: str, values: list[Any]) -> Iterator[Problem]:
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


def is_range(values: list[Any]) -> bool:
    """Return whether a sweep's list is a range `[low, high, log|linear]` rather than single values."""
    if len(values) != 3 or values[2] not in ("log", "linear"):
        return False
    return all(isinstance(end, int | float) and not isinstance(end, bool) for end in values[:2])
