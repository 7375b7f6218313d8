"""The experiment file: one question, its data, its metric, a baseline and the attempts to beat it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from basekamp.attempt import (
    Attempt,
    Name,
    Section,
    Task,
    attempt_problems,
    gather_overrides,
    settings_problems,
)
from basekamp.data.rules import ACTIONS, RULES, Action, rule_problems
from basekamp.errors import InputError
from basekamp.evaluation.goals import CLASSIFICATION_METRICS, METRICS, REGRESSION_METRICS, Goal
from basekamp.hyperparameters import Hyperparameters, Number, Whole, override, override_problems
from basekamp.sweeps.settings import SWEEP, Sweep, gather_settings, sweep_problems, sweep_start
from basekamp.validation import (
    Problem,
    did_you_mean,
    not_allowed,
    one_of,
    problems_of,
    raise_together,
    said,
    show,
)
from basekamp.yaml_file import KeyPath, read_yaml

__all__ = [
    "Attempt",
    "DataSettings",
    "Experiment",
    "Metric",
    "Reading",
    "Split",
    "Sweep",
    "load_experiment",
]

_MAX_PROBLEMS = 10
_BELOW_ONE = ("accuracy", "balanced_accuracy", "f1", "auc")
Column = Annotated[str, Field(min_length=1)]
Tracker = Literal["mlflow", "wandb"]


class Split(Section):
    """The shares of the validation and test splits; what is left, at least a fifth, is for training."""

    validation: Number = Field(default=0.15, gt=0, le=0.8, description="a share above 0 and at most 0.8")
    test: Number = Field(default=0.2, gt=0, le=0.8, description="a share above 0 and at most 0.8")
    group: str = Field(default="", description="the name of a column whose equal values stay in one split")
    time: str = Field(default="", description="the name of a column of dates or numbers: the newest rows are for test")

    @model_validator(mode="after")
    def _training_keeps_a_fifth(self) -> Self:
        if self.validation + self.test > 0.8 + 1e-9:
            both = f"{self.validation} and {self.test}"
            raise said(f" takes {both} for validation and test: use at most 0.8 together, the rest is for training.")
        if self.group and self.time:
            raise said(f" is by group: {self.group} and by time: {self.time}: keep one of them.")
        return self


class Reading(Section):
    """How files are read where they do not say so themselves."""

    on_bad_row: Literal["refuse", "quarantine"] = Field(
        default="refuse",
        description="refuse, or quarantine to put rows and images that cannot be read into quarantine.csv",
    )
    missing: tuple[str, ...] = Field(
        default=("", "NA"), description="a list of the texts that mean a missing value, such as ['', NA, '?']"
    )
    types: dict[Column, Literal["text", "number", "bool", "date"]] = Field(
        default={}, description="a mapping from columns to text, number, bool or date; of JSON lines to date"
    )
    delimiter: Literal["", ",", ";", "\t", "|"] = Field(
        default="", description="one of ',', ';', '\\t' and '|', or nothing to find it"
    )
    image_size: Whole = Field(
        default=0,
        ge=0,
        le=4096,
        description="a whole number of pixels up to 4096, to which the square at an image's centre is scaled; 0 for as "
        "they are",
    )
    image_channels: Literal[0, 1, 3, 4] = Field(
        default=0, description="1 to make images grey, 3 for RGB, 4 for RGBA, or 0 for as they are"
    )


class DataSettings(Section):
    """Where the rows come from and what is to be predicted from them."""

    source: str = Field(min_length=1, description="a path, a URL or a bundled data set such as sklearn:digits")
    target: Column = Field(description="the name of the column to predict")
    task: Literal["auto", "classification", "regression"] = Field(
        default="auto", description="auto, classification or regression"
    )
    drop: tuple[Column, ...] = Field(default=(), description="a list of different column names, such as [id, date]")
    rare: Whole = Field(
        default=10,
        ge=0,
        description="a whole number of 0 or more: categories seen less often become one 'other'",
    )
    split: Split = Field(default=Split(), description="a mapping such as {validation: 0.15, test: 0.2}")
    reading: Reading = Field(default=Reading(), description="a mapping such as {missing: ['', NA, '?']}")
    version: Literal["bytes", "content"] = Field(
        default="bytes", description="bytes or content: what makes the data other data, the file or the rows in it"
    )
    checks: dict[str, Action] = Field(
        default=RULES, description=f"a mapping from rules to {one_of(ACTIONS)}, such as {{drift: stop, time: off}}"
    )

    @field_validator("checks", mode="before")
    @classmethod
    def _every_rule_has_an_action(cls, checks: Any) -> Any:
        if not isinstance(checks, dict):
            return checks
        raise_together(rule_problems(checks))
        return {**RULES, **checks}

    @model_validator(mode="after")
    def _columns_have_one_part(self) -> Self:
        found = []
        repeated = [column for i, column in enumerate(self.drop) if column in self.drop[:i]]
        if repeated:
            found.append(Problem(("drop",), f" names {show(repeated[0])} twice: keep one."))
        if self.target in self.drop:
            found.append(Problem(("drop",), f" holds the target {show(self.target)}: take it out."))
        for key, column in (("group", self.split.group), ("time", self.split.time)):
            if self.target == column:
                clause = f"={show(self.target)} is the target: use another column, or leave the key out."
                found.append(Problem(("split", key), clause))
        raise_together(found)
        return self


class Metric(Section):
    """The deciding metric and whether more of it or less of it is better."""

    name: str = Field(description=one_of(list(METRICS)))
    goal: Goal = Field(default="maximize", description="maximize or minimize")

    @model_validator(mode="before")
    @classmethod
    def _goal_follows_name(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        name = values.get("name")
        if not isinstance(name, str):
            return values
        if name not in METRICS:
            near = did_you_mean(name, METRICS).strip()
            clause = not_allowed(name, one_of(list(METRICS)) + (f" ({near})" if near else ""))
            raise_together([Problem(("name",), clause)])
        goal = values.get("goal", METRICS[name])
        if goal != METRICS[name]:
            clause = not_allowed(goal, f"{METRICS[name]} with {name}, or leave the key out")
            raise_together([Problem(("goal",), clause)])
        return {**values, "goal": goal}


class Experiment(Section):
    """One question: one data source, one target, one deciding metric, a baseline and attempts."""

    experiment: Name
    data: DataSettings = Field(description="a mapping with source and target")
    metric: Metric = Field(description="a mapping such as {name: accuracy}")
    seeds: Whole = Field(default=3, ge=2, le=100, description="a whole number from 2 to 100: the noise needs two runs")
    baseline: dict[str, Any] = Field(default={}, description="a mapping of hyperparameters, such as {model: linear}")
    attempts: dict[str, Attempt] = Field(
        default={}, description="a mapping from each attempt's name to its hypothesis, expect and settings"
    )
    sweep: Sweep | None = Field(default=None, description="a mapping with over, trials and method")
    tracking: tuple[Tracker, ...] = Field(default=(), description="mlflow, wandb, or a list of both")

    @field_validator("tracking", mode="before")
    @classmethod
    def _trackers_are_known(cls, tracking: Any) -> Any:
        names = [tracking] if isinstance(tracking, str) else tracking
        for name in names if isinstance(names, list) else ():
            if name not in get_args(Tracker):
                near = did_you_mean(name, get_args(Tracker)).strip()
                raise said(not_allowed(name, "mlflow, wandb, or a list of both" + (f" ({near})" if near else "")))
        return names

    @field_validator("metric")
    @classmethod
    def _metric_fits_task(cls, metric: Metric, info: ValidationInfo) -> Metric:
        task = info.data["data"].task if "data" in info.data else "auto"
        allowed = {"classification": CLASSIFICATION_METRICS, "regression": REGRESSION_METRICS}.get(task, METRICS)
        if metric.name not in allowed:
            clause = not_allowed(metric.name, f"{one_of(list(allowed))} with data.task: {task}")
            raise_together([Problem(("name",), clause)])
        return metric

    @field_validator("baseline")
    @classmethod
    def _baseline_is_whole(cls, baseline: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        problems = override_problems(baseline)
        raise_together(problems or settings_problems(baseline, _known_task(info.data)))
        return baseline

    @field_validator("attempts", mode="before")
    @classmethod
    def _attempts_gather_overrides(cls, attempts: Any) -> Any:
        if not isinstance(attempts, dict):
            return attempts
        return {name: gather_overrides(name, body) for name, body in attempts.items()}

    @field_validator("attempts")
    @classmethod
    def _attempts_fit(cls, attempts: dict[str, Attempt], info: ValidationInfo) -> dict[str, Attempt]:
        baseline, metric = info.data.get("baseline"), info.data.get("metric")
        found = []
        for name, attempt in attempts.items():
            if baseline is not None:
                problems = attempt_problems(attempt, baseline, _known_task(info.data))
                found += [p._replace(path=(name, *p.path)) for p in problems]
            if metric and metric.name in _BELOW_ONE and attempt.expect >= 1:
                use = f"a gain below 1, such as 0.01 for one point, since {metric.name} lies between 0 and 1"
                found.append(Problem((name, "expect"), not_allowed(attempt.expect, use)))
        raise_together(found)
        return attempts

    @field_validator("sweep", mode="before")
    @classmethod
    def _sweep_is_given(cls, sweep: Any) -> Any:
        if sweep is None:
            raise said(" is empty: use a mapping with over, trials and method, or leave the key out.")
        return gather_settings(sweep)

    @field_validator("sweep")
    @classmethod
    def _sweep_fits(cls, sweep: Sweep | None, info: ValidationInfo) -> Sweep | None:
        baseline, attempts = info.data.get("baseline"), info.data.get("attempts")
        if sweep is None or baseline is None or attempts is None:
            return sweep
        if SWEEP in attempts:
            raise said(f" would make the attempt {SWEEP}, and the file has one: give that another name.")
        if sweep.start and sweep.start not in attempts:
            use = f"{one_of(list(attempts))}, or leave it out" if attempts else "nothing, for the file has no attempts"
            raise_together([Problem(("start",), not_allowed(sweep.start, use))])
        start = override(baseline, attempts[sweep.start].overrides) if sweep.start else baseline
        raise_together(sweep_problems(sweep, start, _known_task(info.data)))
        return sweep

    @property
    def task(self) -> Literal["auto", "classification", "regression"]:
        """The task as far as the file says it: by `data.task`, else by the metric, else `auto`."""
        return _known_task({"data": self.data, "metric": self.metric}) or "auto"

    def hyperparameters(self, attempt: str | None = None) -> Hyperparameters:
        """Return every setting of an attempt, or of the baseline when no attempt is named.

        Raises:
            InputError: the experiment has no such attempt.
        """
        if attempt is None:
            return Hyperparameters.from_mapping(self.baseline)
        if attempt not in self.attempts:
            allowed = f"use {one_of(list(self.attempts))}" if self.attempts else "add it to the file first"
            near = did_you_mean(attempt, self.attempts)
            raise InputError(f"{show(attempt)} is not an attempt of {self.experiment}: {near}{allowed}.")
        return Hyperparameters.from_mapping(override(self.baseline, self.attempts[attempt].overrides))

    def sweep_start(self) -> Hyperparameters:
        """Return every trial's settings but for those that are searched, of which it has the first values."""
        assert self.sweep is not None, "only an experiment with a sweep is asked where it starts"
        start = self.hyperparameters(self.sweep.start or None)
        return Hyperparameters.from_mapping(sweep_start(self.sweep, start.model_dump()))


def load_experiment(path: str | Path) -> Experiment:
    """Read and validate one experiment file; a relative `data.source` stays as it is written.

    Raises:
        InputError: the file cannot be read, or is not an experiment; one line for each problem, at most
            ten, each with the file, the line, the key path, what was got and what is allowed.
    """
    file = read_yaml(path)
    if not isinstance(file.value, dict):
        got = "is empty" if file.value is None else f"holds {show(file.value)}"
        raise InputError(f"{path}, line 1: the file {got}: write keys such as experiment, data and metric.")
    problems = [
        (second, Problem(key, f" is given twice, in lines {first} and {second}: keep one.").sentence())
        for key, first, second in file.repeated
    ]
    try:
        experiment = Experiment.model_validate(file.value)
    except ValidationError as error:
        for problem in problems_of(error, Experiment):
            in_file = problem._replace(path=_as_written(problem.path))
            problems.append((file.line(in_file.path), in_file.sentence()))
    if problems:
        raise InputError(_listing(str(path), sorted(problems, key=lambda problem: problem[0])))
    return experiment


def _listing(path: str, problems: list[tuple[int, str]]) -> str:
    lines = list(dict.fromkeys(f"{path}, line {line}: {sentence}" for line, sentence in problems))
    left_out = len(lines) - _MAX_PROBLEMS
    return "\n".join(lines[:_MAX_PROBLEMS] + ([f"and {left_out} more."] if left_out > 0 else []))


def _as_written(path: KeyPath) -> KeyPath:
    """Return where the file holds what a field of `Attempt` or `Sweep` holds: overrides lie beside the others."""
    if path[:2] == ("sweep", "overrides"):
        return path[:1] + path[2:]
    if len(path) < 3 or path[0] != "attempts":
        return path
    return path[:2] + (path[3:] if path[2] in ("overrides", "name") else path[2:])


def _known_task(data: Mapping[str, Any]) -> Task | None:
    """Return the task as far as the validated fields `data` and `metric` say it."""
    if "data" in data and data["data"].task != "auto":
        task: Task = data["data"].task
        return task
    name = data["metric"].name if "metric" in data else "loss"
    if name in CLASSIFICATION_METRICS and name in REGRESSION_METRICS:
        return None
    return "classification" if name in CLASSIFICATION_METRICS else "regression"
