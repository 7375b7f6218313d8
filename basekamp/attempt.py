"""What is tried against a baseline: attempts, each with its hypothesis."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from basekamp.hyperparameters import Hyperparameters, Number, override, override_problems
from basekamp.validation import Problem, not_allowed, problems_of, raise_together, said

Task = Literal["classification", "regression"]

LONGEST_HYPOTHESIS = 2000

_TASK_OF_MODEL: Mapping[str, Task] = MappingProxyType({"majority": "classification", "mean": "regression"})

_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"

Name = Annotated[
    str,
    Field(
        pattern=_NAME,
        description="a name of 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit",
    ),
]


def is_name(text: str) -> bool:
    """Tell whether `text` can name an experiment or an attempt."""
    return re.fullmatch(_NAME, text) is not None


class Section(BaseModel):
    """A part of the experiment file: frozen, and refuses keys that nothing reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Attempt(Section):
    """The baseline's settings with some overrides, and the hypothesis behind them, written before the run."""

    name: Name
    hypothesis: str = Field(
        min_length=1,
        max_length=LONGEST_HYPOTHESIS,
        description=f"a sentence of at most {LONGEST_HYPOTHESIS} characters that says what should help, and why",
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
