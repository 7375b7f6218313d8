"""The report of an experiment: the climb so far, every verdict, and what the settings did to the deciding metric."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from basekamp.hyperparameters import Option
from basekamp.language import gettext
from basekamp.naming import Value
from basekamp.records.leaderboard import rank
from basekamp.records.shelf import Row, Shelf
from basekamp.records.side_by_side import provenance
from basekamp.records.story import Story
from basekamp.report import charts
from basekamp.report.attempt import MANY_CLASSES, shaded_confusion
from basekamp.report.ladder import ladder_steps
from basekamp.report.leaderboard import changing_params
from basekamp.report.numbers import metric_name, number
from basekamp.report.page import render
from basekamp.report.parallel import Axis, Line, Route, Scale, parallel
from basekamp.sweeps.space import Result, explained_variance

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MOST_LINES, MOST_AXES, MOST_CATEGORIES = 400, 8, 12
BEST_SHARE = 0.1
CLIMB_SIZE = (980, 300)
LOG_FROM_RATIO = 30


def experiment_html(story: Story) -> str:
    """Write the page: one file, light and dark, loading nothing. The same input gives the same bytes."""
    shelf, champion = story.shelf, story.champion
    rows = story.rows
    keys = changing_params(rows)
    axes, lines = _parallel(rows, keys, shelf)
    numbered = list(enumerate(shelf.rows, 1))
    roc = champion.evaluation.roc
    other = story.baseline if champion.id != story.baseline.id else None
    is_first = other is None
    return render(
        "experiment.html",
        shelf=shelf,
        baseline=story.baseline,
        champion=champion,
        gain=champion.mean - story.baseline.mean,
        rows=rows,
        keys=keys,
        hypotheses=story.hypotheses,
        verdicts={name: sum(row.verdict == name for row in shelf.rows) for name in ("supported", "refuted")},
        climb=charts.experiment_chart(_climb(numbered), "", None, size=CLIMB_SIZE),
        axes=axes,
        lines=lines,
        importance=sorted(_importance(rows, keys).items(), key=lambda item: -item[1]),
        curves=[
            (title, svg)
            for title, kind in (
                (gettext("Training loss"), "train_loss"),
                (gettext("Validation loss"), "validation_loss"),
                (gettext("Validation {metric}", metric=metric_name(champion.metric)), "validation_metric"),
            )
            if (svg := charts.curves_chart(kind, [record.training for record in story.curves]))  # type: ignore[arg-type]
        ],
        legend=[(record.attempt, charts.curve_color(i)) for i, record in enumerate(story.curves)],
        ladder=ladder_steps(champion, other, shelf.rows),
        confusion=shaded_confusion(champion),
        many_classes=len(champion.evaluation.classes) > MANY_CLASSES,
        roc=charts.roc_chart(roc, other.evaluation.roc if other else None, is_baseline=is_first) if roc else "",
        provenance=provenance(champion),
    )


def _climb(numbered: Sequence[tuple[int, Row]]) -> list[tuple[int, Row]]:
    """At most as many records as a chart can show: the first, the champion and the newest."""
    kept = [pair for pair in numbered[:-MOST_LINES] if pair[1].role == "baseline" or pair[1].champion]
    return [*kept, *numbered[-MOST_LINES:]]


def _parallel(rows: Sequence[Row], keys: Sequence[str], shelf: Shelf) -> tuple[list[Axis], list[Line]]:
    """A line for each record through the settings that differ, to the deciding metric; none for fewer than three."""
    drawn = [row for row in rows if math.isfinite(row.value)][:MOST_LINES]
    scales = {key: scale for key in keys if (scale := _scale([row.params.get(key) for row in drawn]))}
    if len(drawn) < 3 or not scales:
        return [], []
    scales = dict(list(scales.items())[:MOST_AXES])
    values = [row.value for row in drawn]
    metric = shelf.rows[0].metric
    num_best = max(1, round(BEST_SHARE * len(drawn)))
    best = {row.id for row in sorted(drawn, key=lambda row: rank(row.value, metric))[:num_best]}
    routes = [
        Route(
            row.id,
            [*(row.params.get(key) for key in scales), row.value],
            "winner" if row.champion else "best" if row.id in best else "other",
            f"{row.attempt}: {metric} {number(row.value)}",
        )
        for row in drawn
    ]
    return parallel({**scales, metric: Scale(min(values), max(values), is_log=False)}, routes)


def _scale(values: Sequence[Value | None]) -> Scale | list[Option] | None:
    """From the least to the most of numbers; each of few other values; None where there is nothing to tell apart."""
    told = list(dict.fromkeys(value for value in values if value is not None))
    numbers = [float(value) for value in told if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(told) < 2:
        return None
    if len(numbers) == len(told) and all(map(math.isfinite, numbers)):
        low, high = min(numbers), max(numbers)
        return Scale(low, high, is_log=low > 0 and high / low >= LOG_FROM_RATIO)
    return [*told] if len(told) <= MOST_CATEGORIES and not numbers else None


def _importance(rows: Sequence[Row], keys: Sequence[str]) -> dict[str, float]:
    """Each setting's share of the variance, over the records that have all settings most records have."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    finite = [row for row in rows if math.isfinite(row.value) and not row.cut]
    shared = [key for key in keys if sum(key in row.params for row in finite) > len(finite) / 2]
    told = [row for row in finite if all(key in row.params for key in shared)]
    spaces: dict[str, BaseDistribution] = {}
    for key in shared:
        scale = _scale([row.params[key] for row in told])
        if isinstance(scale, Scale):
            spaces[key] = FloatDistribution(scale.low, scale.high, log=scale.is_log)
        elif scale:
            spaces[key] = CategoricalDistribution(scale)
    results = [Result({key: _plain(row.params[key]) for key in spaces}, -rank(row.value, row.metric)) for row in told]
    return explained_variance(spaces, results) if spaces and len(results) > len(spaces) + 2 else {}


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
