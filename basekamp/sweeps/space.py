"""What a sweep tries next: Optuna proposes, and the same sweep with the same results always gets the same proposal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from basekamp.records.record import significant
from basekamp.sweeps.settings import Sweep, grid_of, is_range

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study

Choice = dict[str, Any]
"""A value for each hyperparameter that is searched."""

FIRST_AT_RANDOM = 10
"""Results that TPE waits for before it proposes by them, at the least."""

DIGITS = 4
"""Significant digits of a number that was drawn from a range: a name stays short."""

MOST_TRIES = 20


@dataclass(frozen=True)
class Result:
    """What a choice came to, higher is better; None for one that diverged."""

    choice: Choice
    score: float | None


def propose(sweep: Sweep, count: int, *, results: Sequence[Result], seed: int) -> list[Choice]:
    """Choose at most `count` settings that are new, by the sweep's method; fewer where there are no more."""
    known = [result.choice for result in results]
    if sweep.method == "grid":
        return [choice for choice in grid_of(sweep) if choice not in known][:count]
    spaces = distributions(sweep)
    study = _study(spaces, results, _sampler(sweep, seed))
    proposed: list[Choice] = []
    for _ in range(count * MOST_TRIES):
        if len(proposed) == count:
            break
        choice = {key: _rounded(value, sweep.over[key]) for key, value in study.ask(spaces).params.items()}
        if choice not in known and choice not in proposed:
            proposed.append(choice)
    return proposed


def importance(sweep: Sweep, results: Sequence[Result]) -> dict[str, float]:
    """Each hyperparameter's share of the variance of the results of a sweep."""
    return explained_variance(distributions(sweep), results)


def explained_variance(spaces: "dict[str, BaseDistribution]", results: Sequence[Result]) -> dict[str, float]:
    """Each hyperparameter's share of the variance of the results, by fANOVA; empty where too little is known.

    Source: Hutter, Hoos and Leyton-Brown, An Efficient Approach for Assessing Hyperparameter Importance, 2014.
    """
    scores = {result.score for result in results if result.score is not None}
    if len(scores) < 4:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    told = get_param_importances(_study(spaces, results), evaluator=FanovaImportanceEvaluator(seed=0))
    return {key: float(share) for key, share in told.items() if math.isfinite(share)}


def distributions(sweep: Sweep) -> "dict[str, BaseDistribution]":
    """Each list as Optuna has it: a range of floats or whole numbers, or single values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    spaces: dict[str, BaseDistribution] = {}
    for key, values in sweep.over.items():
        if not is_range(values):
            spaces[key] = CategoricalDistribution(values)
            continue
        low, high, scale = values
        is_whole = isinstance(low, int) and isinstance(high, int) and key in _whole_settings()
        spaces[key] = (IntDistribution if is_whole else FloatDistribution)(low, high, log=scale == "log")
    return spaces


def _study(
    spaces: "dict[str, BaseDistribution]", results: Sequence[Result], sampler: "BaseSampler | None" = None
) -> "Study":
    """What Optuna would know had it proposed all that was tried; a choice that diverged is the worst there was."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    worst = min((result.score for result in results if result.score is not None), default=0.0)
    for result in results:
        value = worst if result.score is None else result.score
        study.add_trial(optuna.create_trial(params=result.choice, distributions=spaces, value=value))
    return study


def _sampler(sweep: Sweep, seed: int) -> "BaseSampler":
    from optuna.samplers import RandomSampler, TPESampler

    if sweep.method != "tpe":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=FIRST_AT_RANDOM, multivariate=len(sweep.over) > 1, constant_liar=True)


def _rounded(value: Any, values: list[Any]) -> Any:
    if not isinstance(value, float) or not is_range(values):
        return value
    return min(max(significant(value, DIGITS), float(values[0])), float(values[1]))


def _whole_settings() -> set[str]:
    from basekamp.hyperparameters import Hyperparameters

    return {name for name, field in Hyperparameters.model_fields.items() if field.annotation is int}
