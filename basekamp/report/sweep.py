"""The report of a sweep: what it found and spent, every trial as a line through its settings, and what mattered."""

from collections.abc import Sequence
from dataclasses import dataclass

from basekamp.evaluation.goals import METRICS
from basekamp.hyperparameters import Option
from basekamp.language import gettext
from basekamp.report.numbers import number, setting
from basekamp.report.page import render
from basekamp.report.parallel import BOTTOM, TOP, WIDTH, Axis, Line, Route, Scale, parallel
from basekamp.sweeps.outcome import Outcome
from basekamp.sweeps.settings import is_range
from basekamp.sweeps.shelf import Told

MOST_ROWS, MOST_LINES = 100, 400
BEST_SHARE = 0.1
METHODS = {
    "grid": "every combination",
    "random": "at random",
    "tpe": "by TPE: each round learns from those before",
    "halving": "by successive halving: in each round the best third goes on with three times the epochs",
}


def sweep_html(outcome: Outcome) -> str:
    """Write the page of a sweep: one file, light and dark, loading nothing. The same input gives the same bytes."""
    trials = outcome.trials
    told = [one for one in trials if one.score is not None]
    axes, lines = _parallel(outcome, told[:MOST_LINES])
    return render(
        "sweep.html",
        outcome=outcome,
        sweep=outcome.first.sweep,
        winner=outcome.winner,
        chosen=outcome.choices[outcome.winner.number],
        gain=outcome.winner.value - outcome.baseline.mean,
        trials=trials[:MOST_ROWS],
        choices=outcome.choices,
        num_trials=len(trials),
        num_planned=len(outcome.choices),
        num_diverged=len(trials) - len(told),
        minutes=sum(one.seconds for one in trials) / 60,
        how=gettext(METHODS[outcome.first.sweep.method]),
        keys=list(outcome.first.sweep.over),
        axes=axes,
        lines=lines,
        bottom=BOTTOM,
        top=TOP,
        width=WIDTH,
        climb=_climb(outcome),
        importance=sorted(outcome.importance.items(), key=lambda item: -item[1]),
    )


def _parallel(outcome: Outcome, trials: Sequence[Told]) -> tuple[list[Axis], list[Line]]:
    """Axes for what was searched and for the metric, and a line for each trial, the best drawn last."""
    keys = list(outcome.first.sweep.over)
    values = [one.value for one in trials]
    scales: dict[str, Scale | list[Option]] = {key: _scale(outcome, key) for key in keys}
    scales[outcome.metric] = Scale(min(values), max(values), is_log=False)
    num_best = max(1, round(BEST_SHARE * len(trials)))
    lines = []
    for place, one in enumerate(trials):
        choice = outcome.choices[one.number]
        kind = "winner" if one.number == outcome.winner.number else "best" if place < num_best else "other"
        told = ", ".join(f"{key} {setting(value)}" for key, value in choice.items())
        title = f"{gettext('trial')} {one.number}: {told}: {outcome.metric} {number(one.value)}"
        lines.append(Route(str(one.number), [*(choice[key] for key in keys), one.value], kind, title))
    return parallel(scales, lines)


def _scale(outcome: Outcome, key: str) -> Scale | list[Option]:
    """A range as it was given, or the list of single values."""
    values = outcome.first.sweep.over[key]
    return Scale(float(values[0]), float(values[1]), is_log=values[2] == "log") if is_range(values) else values


@dataclass(frozen=True)
class Climb:
    """The best value so far over the epochs spent: SVG points, where the baseline's mean and its budget lie."""

    points: str
    baseline_y: float
    budget_x: float | None
    ticks: list[tuple[float, str]]
    marks: list[tuple[float, str]]


def _climb(outcome: Outcome) -> Climb | None:
    """None with fewer than two results."""
    sign = 1.0 if METRICS[outcome.metric] == "maximize" else -1.0
    done: dict[int, int] = {}
    best: list[tuple[int, float]] = []
    for one in outcome.told:
        done[one.number] = one.n_epochs
        if one.score is not None and (not best or one.score > sign * best[-1][1]):
            best.append((sum(done.values()), one.value))
    spent = sum(done.values())
    if len(outcome.told) < 2 or not best or not spent:
        return None
    values = [value for _, value in best] + [outcome.baseline.mean]
    margin = 0.08 * (max(values) - min(values)) or 0.01
    scale = Scale(min(values) - margin, max(values) + margin, is_log=False)

    def x(epochs: int) -> float:
        return round(60 + (WIDTH - 90) * epochs / spent, 1)

    steps: list[str] = []
    for i, (epochs, value) in enumerate(best):
        if i:
            steps.append(f"{x(epochs)},{scale.y(best[i - 1][1])}")
        steps.append(f"{x(epochs)},{scale.y(value)}")
    steps.append(f"{x(spent)},{scale.y(best[-1][1])}")
    budget = outcome.spent.baseline
    return Climb(
        points=" ".join(steps),
        baseline_y=scale.y(outcome.baseline.mean),
        budget_x=x(budget) if budget <= spent else None,
        ticks=scale.ticks(),
        marks=[(x(epochs), number(epochs)) for epochs in (0, spent // 2, spent)],
    )
