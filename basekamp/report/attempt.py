"""The report of one run: what was asked, what came out, and how it stands among all before it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from basekamp.language import gettext
from basekamp.records.record import Record
from basekamp.records.shelf import Row, Shelf
from basekamp.records.verdict import Comparison
from basekamp.report import charts
from basekamp.report.diagnosis import diagnosis_markdown, findings_of, named_rows
from basekamp.report.ladder import ladder_steps
from basekamp.report.markdown import markdown_table, plain
from basekamp.report.numbers import between, change, confidence, metric_name, number, setting, signed
from basekamp.report.page import render
from basekamp.report.performance import performance_rows
from basekamp.report.sentence import verdict_sentence

MOST_ROWS = 100
MANY_CLASSES = 20
SHADES = 9
TONES = {"supported": "good", "refuted": "bad", "inconclusive": "unsure"}


@dataclass(frozen=True)
class MetricLine:
    """One metric of the scorecard beside the baseline's; None where there is no baseline to compare with."""

    name: str
    mean: float
    spread: float
    floor: float
    baseline_mean: float | None
    baseline_spread: float | None
    difference: float | None


@dataclass(frozen=True)
class Cell:
    """One count of the confusion matrix and the CSS class of its shade, "" for an empty cell."""

    count: int
    shade: str


def attempt_html(record: Record, baseline: Record | None, shelf: Shelf) -> str:
    """Write the page of one record: one file, light and dark, loading nothing.

    baseline: the pinned baseline's record, None when `record` is the first. shelf: the experiment before or
    after this record was stored. The same input gives the same bytes.
    """
    other = baseline if record.role == "attempt" else None
    rows = history(record, shelf)
    shown = rows[:1] + rows[1:][-MOST_ROWS:]
    return render(
        "attempt.html",
        record=record,
        baseline=other,
        comparison=record.comparison,
        opening=record.opening,
        sentence=_sentence_of(record),
        named_rows=named_rows,
        tone=TONES.get(record.verdict or "", ""),
        lines=metric_lines(record, other),
        rows=shown,
        ladder=ladder_steps(record, other, [row for _, row in rows]),
        num_rows=len(rows),
        is_champion=any(row.champion and row.id == record.id for _, row in rows),
        gate_closed=_why_closed(record, other),
        confusion=shaded_confusion(record),
        many_classes=len(record.evaluation.classes) > MANY_CLASSES,
        charts=_charts(record, other, shown),
        performance=performance_rows(record.training.performance),
        findings=findings_of(record),
        spread_of=_spread,
    )


def attempt_markdown(record: Record, baseline: Record | None) -> str:
    """Write the verdict, what differs, the metrics, the gate and how it ran as Markdown without raw HTML."""
    other = baseline if record.role == "attempt" else None
    comparison = record.comparison
    parts = [f"# {plain(record.experiment)}: {plain(record.attempt)}"]
    if comparison:
        parts.append(f"**{gettext(comparison.verdict).capitalize()}.** {plain(_sentence_of(record))}")
        parts.append(_comparison_line(record.metric, comparison))
    else:
        parts.append(f"**{gettext('Baseline')}.** {plain(_baseline_sentence(record))}")
    if record.hypothesis:
        parts.insert(2, f"> {plain(record.hypothesis)}")
    if comparison:
        parts.append(f"## {gettext('What differs from the baseline')}")
        parts.append(_settings_table(record) or gettext("No hyperparameter differs."))
    else:
        parts.append(f"## {gettext('Hyperparameters')}")
        parts.append(
            markdown_table(
                [gettext("hyperparameter"), gettext("value")],
                ([key, setting(value)] for key, value in record.params.items()),
            )
        )
    parts += [
        f"## {gettext('Metrics on {split}', split=gettext('validation'))}",
        _metrics_table(metric_lines(record, other)),
        f"## {gettext('Test split')}",
        _gate_line(record, other),
    ]
    if record.checks:
        parts += [
            f"## {gettext('Rules that the data break')}",
            "\n".join(f"- **{gettext(one.rule.replace('_', ' '))}**: {plain(one.translated)}" for one in record.checks),
        ]
    if found := findings_of(record):
        parts += [f"## {gettext('Diagnosis')}", diagnosis_markdown(found)]
    if rows := performance_rows(record.training.performance):
        parts += [f"## {gettext('How it ran')}", markdown_table([gettext("measured"), gettext("value")], rows)]
    parts.append(f"{gettext('Record')}: `{record.name}`")
    return "\n\n".join(parts) + "\n"


def history(record: Record, shelf: Shelf) -> list[tuple[int, Row]]:
    """Every record of the experiment with its number, baseline first, then oldest first; this one exactly once."""
    stored = any(row.id == record.id for row in shelf.rows)
    champion = shelf.champion
    if not stored and (champion is None or (record.opening and record.opening.passed)):
        champion_id = record.id
    else:
        champion_id = champion.id if champion else ""
    rows = [row for row in shelf.rows if row.id != record.id]
    rows = sorted([*rows, _as_row(record)], key=lambda row: row.id)
    pinned = next((row for row in rows if row.role == "baseline"), None)
    rows.sort(key=lambda row: row is not pinned)  # ids of one second are in no order, and nothing precedes it
    return [(i, replace(row, champion=row.id == champion_id)) for i, row in enumerate(rows, 1)]


def metric_lines(record: Record, baseline: Record | None) -> list[MetricLine]:
    """All metrics, the deciding one first; its difference is the judged one."""
    told = record.evaluation
    theirs = baseline.evaluation if baseline else None
    lines = []
    for name in sorted(told.metrics, key=lambda name: name != record.metric):
        mean, other = told.metrics[name], theirs.metrics.get(name) if theirs else None
        difference = None if other is None else mean - other
        if record.comparison and name == record.metric:
            difference = record.comparison.difference.value
        spread = theirs.spread.get(name) if theirs else None
        lines.append(MetricLine(name, mean, told.spread[name], told.floor[name], other, spread, difference))
    return lines


def _charts(record: Record, baseline: Record | None, rows: list[tuple[int, Row]]) -> dict[str, str]:
    """The SVG of each chart, "" where there is nothing to draw."""
    comparison, roc, first = record.comparison, record.evaluation.roc, baseline is None
    drawn: dict[str, str] = {
        "interval": charts.interval_chart(comparison) if comparison else "",
        "seeds": "" if comparison else charts.seeds_chart(record),
        "experiment": charts.experiment_chart(rows, record.id, comparison.expect if comparison else None),
        "roc": charts.roc_chart(roc, baseline.evaluation.roc if baseline else None, is_baseline=first) if roc else "",
    }
    kinds: tuple[charts.Curve, ...] = ("train_loss", "validation_loss", "validation_metric")
    for kind in kinds:
        drawn[kind] = charts.curve_chart(
            kind, record.training, baseline.training if baseline else None, is_baseline=first
        )
    return drawn


def _why_closed(record: Record, baseline: Record | None) -> str:
    """One sentence on why the test split stayed closed, "" when it was opened."""
    if record.opening:
        return ""
    if record.role == "baseline" or baseline is None:
        return gettext(
            "The test split stayed closed: it is opened only for an attempt that beats the baseline on validation."
        )
    if record.verdict != "supported":
        return gettext(
            "The test split stayed closed: only a supported attempt may open it, and this one is {verdict}.",
            verdict=gettext(record.verdict or ""),
        )
    if record.data.dataset != baseline.data.dataset:
        return gettext("The test split stayed closed: this attempt learned from another data set than the baseline.")
    return gettext("The test split stayed closed: the attempt is no better on validation than the champion so far.")


def shaded_confusion(record: Record) -> list[list[Cell]]:
    """Counts with a shade: hits by their share of the row, errors by its square root, so that few still show."""
    matrix = []
    for i, counts in enumerate(record.evaluation.confusion):
        total = sum(counts) or 1
        shares = [count / total if i == j else math.sqrt(count / total) for j, count in enumerate(counts)]
        letters = ["h" if i == j else "e" for j in range(len(counts))]
        shades = [f"{letter}{math.ceil(share * SHADES)}" for letter, share in zip(letters, shares, strict=True)]
        matrix.append([Cell(count, shade if count else "") for count, shade in zip(counts, shades, strict=True)])
    return matrix


def _as_row(record: Record) -> Row:
    told, comparison = record.evaluation, record.comparison
    return Row(
        name=record.name,
        key=record.key,
        experiment=record.experiment,
        role=record.role,
        attempt=record.attempt,
        id=record.id,
        params=record.params,
        metric=record.metric,
        metrics=told.metrics,
        n=len(told.replicates),
        spread=told.spread[record.metric],
        difference=comparison.difference.value if comparison else None,
        interval=comparison.interval if comparison else None,
        verdict=record.verdict,
    )


def _sentence_of(record: Record) -> str:
    """The verdict's sentence in the current language, "" for a baseline."""
    told = record.comparison
    if told is None:
        return ""
    return verdict_sentence(
        told.verdict, told.difference, expect=told.expect, level=told.level, needed=told.seeds_needed
    )


def _spread(values: Sequence[float]) -> float:
    """The sample standard deviation, 0 for one value."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def _settings_table(record: Record) -> str:
    rows = [[key, setting(theirs), setting(ours)] for key, (theirs, ours) in record.differs.items()]
    return markdown_table([gettext("hyperparameter"), gettext("baseline"), record.attempt], rows) if rows else ""


def _metrics_table(lines: Sequence[MetricLine]) -> str:
    if all(line.baseline_mean is None for line in lines):
        short = ([line.name, number(line.mean), change(line.spread), number(line.floor)] for line in lines)
        return markdown_table([gettext(head) for head in ("metric", "mean", "± seeds", "floor")], short)
    heads = ["metric", "baseline", "± seeds", "attempt", "± seeds", "difference", "floor"]
    rows = (
        [line.name, number(line.baseline_mean), change(line.baseline_spread), number(line.mean), change(line.spread)]
        + [signed(line.difference), number(line.floor)]
        for line in lines
    )
    return markdown_table([gettext(head) for head in heads], rows)


def _baseline_sentence(record: Record) -> str:
    told = record.evaluation
    return gettext(
        "{metric} is {mean} ± {spread} over {n} seeds; always giving the same answer reaches {floor}.",
        metric=metric_name(record.metric),
        mean=number(record.mean),
        spread=change(told.spread[record.metric]),
        n=len(told.replicates),
        floor=number(told.floor[record.metric]),
    )


def _comparison_line(metric: str, comparison: Comparison) -> str:
    value = comparison.difference.value
    return gettext(
        "{metric}: {baseline} → {mean}, difference {difference}, 95 % interval {interval}; judged at {level} after {n} "
        "earlier, hoped for a gain of {expect}.",
        metric=plain(metric_name(metric)),
        baseline=number(comparison.baseline_mean),
        mean=number(comparison.attempt_mean),
        difference=signed(value),
        interval=between(comparison.interval),
        level=confidence(comparison.level),
        n=comparison.judged_before,
        expect=change(comparison.expect),
    )


def _gate_line(record: Record, baseline: Record | None) -> str:
    opening = record.opening
    if opening is None:
        return _why_closed(record, baseline)
    return gettext(
        "Gate **{passed}**: test {metric} {mean}, baseline {baseline}, difference {difference}, 95 % interval "
        "{interval}; opening {n} of the test split in this experiment.",
        passed=gettext("passed") if opening.passed else gettext("not passed"),
        metric=plain(metric_name(record.metric)),
        mean=number(opening.metrics[record.metric]),
        baseline=number(opening.baseline_mean),
        difference=signed(opening.difference),
        interval=between(opening.interval),
        n=opening.number,
    )
