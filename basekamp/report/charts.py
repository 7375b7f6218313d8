"""Charts as inline SVG that takes its colours from the page, so that light and dark both work.

They are drawn in the stand-in colours below; `_chart` swaps each for a CSS variable of base.html. No text in a
chart comes from a user. The same numbers give the same bytes.
"""

import html
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from basekamp.evaluation.evaluate import Roc
from basekamp.evaluation.goals import METRICS
from basekamp.language import gettext
from basekamp.records.record import Record
from basekamp.records.shelf import Row
from basekamp.records.verdict import Comparison
from basekamp.report.numbers import confidence, metric_name
from basekamp.training.results import Replicate, Training

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Literal["train_loss", "validation_loss", "validation_metric"]
Points = tuple[list[int], list[float]]

INK, MUTED, LINE, CARD = "#010203", "#111213", "#212223", "#313233"
ATTEMPT, BASELINE, GOOD, BAD, UNSURE = "#414243", "#515253", "#616263", "#717273", "#818283"
VARIABLES = {
    INK: "--text",
    MUTED: "--muted",
    LINE: "--line",
    CARD: "--card",
    ATTEMPT: "--accent",
    BASELINE: "--accent-3",
    GOOD: "--good",
    BAD: "--bad",
    UNSURE: "--unsure",
}
SIDES = (BASELINE, ATTEMPT, GOOD, BAD, UNSURE, MUTED)
VERDICT_COLORS = {"supported": GOOD, "refuted": BAD, "inconclusive": UNSURE}

WIDE, TALL = 390, 220
MOST_SEED_LINES, MOST_POINTS = 20, 800
LOG_FROM_RATIO = 30

STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 11,
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.spines.bottom": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.formatter.useoffset": False,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}


def interval_chart(comparison: Comparison) -> str:
    """The difference with its 95 % interval and the stricter one that decides, against zero and `expect`."""
    difference, maximize = comparison.difference, METRICS[comparison.difference.metric] == "maximize"
    hoped = comparison.expect if maximize else -comparison.expect
    color = VERDICT_COLORS[comparison.verdict]
    rows = [(1, comparison.interval, 5), (0, comparison.judged_interval, 2)]

    def draw(axes: "Axes") -> None:
        ends = [0.0, hoped, *comparison.interval, *comparison.judged_interval]
        margin = 0.2 * (max(ends) - min(ends) or 1.0)
        left, right = min(ends) - margin, max(ends) + margin
        axes.set(xlim=(left, right), ylim=(-0.6, 1.6))
        axes.axvspan(hoped, right if maximize else left, color=GOOD, alpha=0.1, linewidth=0)
        axes.axvline(0, color=INK, linewidth=1)
        axes.axvline(hoped, color=GOOD, linewidth=1.2, dashes=(4, 3))
        above = 1.66
        sides: tuple[Literal["left", "right"], Literal["left", "right"]] = (
            ("right", "left") if maximize else ("left", "right")
        )
        axes.text(0, above, f" {gettext('no difference')} ", ha=sides[0], va="bottom", color=MUTED)
        axes.text(hoped, above, f" {gettext('hoped for')} ", ha=sides[1], va="bottom", color=GOOD)
        for y, (low, high), width in rows:
            axes.plot([low, high], [y, y], color=color, linewidth=width, solid_capstyle="round")
            axes.plot(
                [difference.value], [y], "o", color=color, markersize=9, markeredgecolor=CARD, markeredgewidth=1.5
            )
        axes.set_yticks([1, 0], ["95 %", confidence(comparison.level)])
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(gettext("difference in {metric}", metric=metric_name(difference.metric)))
        _note(
            axes,
            f"{gettext('better')} →" if maximize else f"← {gettext('better')}",
            (1.0 if maximize else 0.0, 0),
            (0, -27),
            GOOD,
        )
        _few_ticks(axes, x=6)

    low, high = comparison.interval
    label = gettext(
        "Difference in {metric} {value}, 95 % interval {low} to {high}; hoped for {hoped}; {verdict}.",
        metric=metric_name(difference.metric),
        value=f"{difference.value:.3g}",
        low=f"{low:.3g}",
        high=f"{high:.3g}",
        hoped=f"{hoped:.3g}",
        verdict=gettext(comparison.verdict),
    )
    return _chart("interval", label, (WIDE, TALL), draw)


def experiment_chart(
    rows: Sequence[tuple[int, Row]], this: str, expect: float | None, *, size: tuple[int, int] = (WIDE, TALL)
) -> str:
    """The deciding metric of every record in order, on the baseline's noise band.

    rows: pairs of order number and record; `this`: the id of the record of this page. Empty with one record only.
    """
    rows = [(number, row) for number, row in rows if math.isfinite(row.value) and math.isfinite(row.spread)]
    if len(rows) < 2:
        return ""
    metric = rows[0][1].metric
    baseline = next((row for _, row in rows if row.role == "baseline"), None)

    def draw(axes: "Axes") -> None:
        if baseline:
            low, high = baseline.value - baseline.spread, baseline.value + baseline.spread
            axes.axhspan(low, high, color=BASELINE, alpha=0.16, linewidth=0)
            axes.axhline(baseline.value, color=BASELINE, linewidth=1)
            if expect:
                hoped = baseline.value + (expect if METRICS.get(metric) != "minimize" else -expect)
                axes.axhline(hoped, color=GOOD, linewidth=1.2, dashes=(4, 3))
                _note(axes, gettext("hoped for"), (1, hoped), (0, 3), GOOD, on_data=True)
        for number, row in rows:
            _draw_record(axes, number, row, this=row.id == this, pinned=row is baseline)
        numbers = [number for number, _ in rows]
        axes.set_xlim(min(numbers) - 0.6, max(numbers) + 0.6)
        axes.margins(y=0.2)
        axes.grid(axis="x", visible=False)
        axes.set_xlabel(gettext("record number, oldest first"))
        axes.set_ylabel(metric_name(metric))
        _whole_ticks(axes, 12)
        _few_ticks(axes, y=6)

    return _chart(
        "experiment",
        gettext("{metric} of the {n} records of this experiment in order.", metric=metric_name(metric), n=len(rows)),
        size,
        draw,
    )


def seeds_chart(record: Record) -> str:
    """The deciding metric of each seed, their mean, and a band of one standard deviation."""
    values = [one[record.metric] for one in record.evaluation.replicates]
    mean, spread = record.mean, record.evaluation.spread[record.metric]

    def draw(axes: "Axes") -> None:
        axes.axvspan(mean - spread, mean + spread, color=BASELINE, alpha=0.16, linewidth=0)
        axes.axvline(mean, color=BASELINE, linewidth=1.2)
        axes.text(mean, 1.06, gettext("mean"), ha="center", va="bottom", color=BASELINE)
        axes.plot(values, [0] * len(values), "o", color=BASELINE, markersize=9, markeredgecolor=CARD, alpha=0.9)
        axes.set(ylim=(-1, 1), yticks=[])
        if min(values) == max(values):
            axes.set_xlim(mean - 0.05 * (abs(mean) or 1), mean + 0.05 * (abs(mean) or 1))
        axes.margins(x=0.2)
        axes.set_xlabel(gettext("{metric} on validation, one dot for each seed", metric=metric_name(record.metric)))
        _few_ticks(axes, x=6)

    label = gettext(
        "{metric} of {n} seeds, mean {mean}, standard deviation {spread}.",
        metric=metric_name(record.metric),
        n=len(values),
        mean=f"{mean:.4g}",
        spread=f"{spread:.3g}",
    )
    return _chart("seeds", label, (WIDE, 130), draw)


def curve_chart(kind: Curve, training: Training, baseline: Training | None, *, is_baseline: bool) -> str:
    """One curve per epoch: each seed a thin line, their mean a strong one. Empty when nothing was trained."""
    sides = [(training, BASELINE if is_baseline else ATTEMPT)]
    if baseline:
        sides.insert(0, (baseline, BASELINE))
    whose = gettext(", this attempt and the baseline") if baseline else ""
    return _curves(kind, sides, whose)


def curves_chart(kind: Curve, trainings: Sequence[Training]) -> str:
    """The same of up to six trainings, each in the colour that `curve_color` gives it by its place."""
    return _curves(
        kind, [(one, SIDES[i]) for i, one in enumerate(trainings)], gettext(", {n} records", n=len(trainings))
    )


def curve_color(place: int) -> str:
    """The CSS variable of the colour of the n-th training in `curves_chart`."""
    return VARIABLES[SIDES[place]]


def _curves(kind: Curve, sides: Sequence[tuple[Training, str]], whose: str) -> str:
    drawn = [([_points(one, kind) for one in side.replicates], color) for side, color in sides]
    if max((len(points[0]) for lines, _ in drawn for points in lines), default=0) < 2:
        return ""

    def draw(axes: "Axes") -> None:
        for lines, color in drawn:
            for points in lines[:MOST_SEED_LINES]:
                axes.plot(*_thin(points, len(lines)), color=color, alpha=0.35, linewidth=0.9)
            mean = _mean(lines)
            if len(mean[0]) == 1:
                axes.axhline(mean[1][0], color=color, linewidth=2.2)
            axes.plot(*_thin(mean, 1), color=color, linewidth=2.2)
        _set_view(axes, [value for lines, _ in drawn for points in lines for value in _after_start(points)])
        axes.set_xlabel(gettext("epoch"))
        _whole_ticks(axes, 6)

    name = _curve_name(kind, sides[0][0].metric)
    label = gettext("{name} per epoch, one line for each seed{whose}.", name=name, whose=whose)
    return _chart(kind, label, (330, 220), draw)


def _curve_name(kind: Curve, metric: str) -> str:
    if kind == "validation_metric":
        return gettext("Validation {metric}", metric=metric_name(metric))
    return gettext("Training loss") if kind == "train_loss" else gettext("Validation loss")


def roc_chart(roc: Roc, baseline: Roc | None, *, is_baseline: bool) -> str:
    """True against false positive rate; the diagonal is guessing."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, dashes=(3, 3))
        if baseline:
            axes.plot(baseline.fpr, baseline.tpr, color=BASELINE, linewidth=2)
        axes.plot(roc.fpr, roc.tpr, color=BASELINE if is_baseline else ATTEMPT, linewidth=2)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.set(xlabel=gettext("false positive rate"), ylabel=gettext("true positive rate"))
        axes.set_box_aspect(1)
        _few_ticks(axes, x=6, y=6)

    return _chart("roc", gettext("ROC curve: true against false positive rate."), (330, 320), draw)


def _chart(key: str, label: str, size: tuple[int, int], draw: Callable[["Axes"], None]) -> str:
    """Draw and clean one SVG; `key` keeps its ids apart from the other charts'."""
    from matplotlib import style
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with style.context(["default", STYLE | {"svg.hashsalt": f"basekamp-{key}"}]), warnings.catch_warnings():
        # The page's font draws the text: matplotlib's own need not have its letters.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(size[0] / 72, size[1] / 72))
        figure.patch.set_visible(False)
        draw(figure.subplots())
        figure.savefig(buffer, format="svg", metadata=metadata)
    return _inline(buffer.getvalue(), label, size)


def _inline(svg: str, label: str, size: tuple[int, int]) -> str:
    """Reduce matplotlib's document to what a page needs, and name it for screen readers."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r"#([\w.-]+)[\")]", body))
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r" font-family: [^;\"]*;?", "", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag[0]), body)
    body = re.sub(r"\s*\n\s*", "\n", body).replace("<defs>\n</defs>\n", "")
    for color, variable in VARIABLES.items():
        body = body.replace(color, f"var({variable})")
    return f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{html.escape(label)}">{body}'.strip()


def _draw_record(axes: "Axes", number: int, row: Row, *, this: bool, pinned: bool) -> None:
    color = ATTEMPT if this and row.role == "attempt" else BASELINE if pinned else MUTED
    axes.plot([number, number], [row.value - row.spread, row.value + row.spread], color=color, linewidth=1.6)
    if row.champion:
        axes.plot([number], [row.value], "*", color=color, markersize=16, markeredgecolor=CARD, markeredgewidth=0.8)
    else:
        axes.plot([number], [row.value], "o", color=color, markersize=10 if this else 7, markeredgecolor=CARD)
    names = [("baseline", pinned), ("this attempt", this and not pinned), ("champion", row.champion and not pinned)]
    text = ", ".join(gettext(name) for name, holds in names if holds)
    if text:
        axes.annotate(
            text,
            (number, row.value + row.spread),
            (0, 10 if row.champion else 6),
            textcoords="offset points",
            ha="center",
            color=color,
        )


def _note(
    axes: "Axes", text: str, at: tuple[float, float], offset: tuple[int, int], color: str, *, on_data: bool = False
) -> None:
    """Put a text at a share of the width, and at a share of the height or, `on_data`, at a value."""
    place = axes.get_yaxis_transform() if on_data else axes.transAxes
    side = "right" if at[0] > 0.5 else "left"
    axes.annotate(text, at, offset, xycoords=place, textcoords="offset points", ha=side, color=color)


def _points(replicate: Replicate, kind: Curve) -> Points:
    """Epochs and values; a value that is not finite leaves a gap. Training has no epoch 0."""
    values = getattr(replicate.curves, kind)
    first = 1 if kind == "train_loss" else 0
    return list(range(first, first + len(values))), [v if math.isfinite(v) else math.nan for v in values]


def _mean(lines: Sequence[Points]) -> Points:
    """The mean over seeds, as far as all of them went."""
    lines = [points for points in lines if points[0]]
    if not lines:
        return [], []
    epochs = min((points[0] for points in lines), key=len)
    return epochs, [sum(values) / len(lines) for values in zip(*(values for _, values in lines), strict=False)]


def _thin(points: Points, num_lines: int) -> Points:
    """At most so many points that all lines together stay small; the last one stays."""
    step = math.ceil(len(points[0]) * min(num_lines, MOST_SEED_LINES) / MOST_POINTS) or 1
    kept = sorted({*range(0, len(points[0]), step), len(points[0]) - 1} - {-1})
    return [points[0][i] for i in kept], [points[1][i] for i in kept]


def _after_start(points: Points) -> list[float]:
    """The finite values without the untrained model's, which would flatten all others."""
    several = len(points[0]) > 2
    return [value for epoch, value in zip(*points, strict=True) if math.isfinite(value) and (epoch > 0 or not several)]


def _set_view(axes: "Axes", values: Sequence[float]) -> None:
    if not values:
        return
    low, high = min(values), max(values)
    if low > 0 and high / low > LOG_FROM_RATIO:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(low / 1.2, high * 1.2)
        return
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    axes.set_ylim(low - margin, high + margin)
    _few_ticks(axes, y=6)


def _few_ticks(axes: "Axes", *, x: int | None = None, y: int | None = None) -> None:
    if x:
        axes.locator_params(axis="x", nbins=x)
    if y:
        axes.locator_params(axis="y", nbins=y)


def _whole_ticks(axes: "Axes", most: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))
