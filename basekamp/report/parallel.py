"""Parallel coordinates: an upright axis for each setting, and a line through them for each result."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from basekamp.hyperparameters import Option
from basekamp.report.numbers import setting

WIDTH, TOP, BOTTOM = 1000, 34, 300
TICKS = 5
KINDS = ("other", "best", "winner")
"""Classes of strokes, the one that is drawn last, and so on top, at the end."""


@dataclass(frozen=True)
class Route:
    """One result: a value for each axis, None where it has none, and how to draw it."""

    id: str
    values: Sequence[Option | None]
    kind: str
    title: str


@dataclass(frozen=True)
class Axis:
    """One upright axis of the parallel coordinates; ticks are pairs of y and text."""

    name: str
    x: float
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """One route: its id, points as SVG has them, the class of its stroke, and what a pointer shows."""

    id: str
    points: str
    kind: str
    title: str


@dataclass(frozen=True)
class Scale:
    """From a value to the height of its point."""

    low: float
    high: float
    is_log: bool

    def y(self, value: float) -> float:
        """Where a value lies, in SVG's units from above."""
        low, high, at = (math.log(end) if self.is_log else end for end in (self.low, self.high, value))
        return round(BOTTOM - (BOTTOM - TOP) * (at - low) / ((high - low) or 1.0), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Heights and texts of the marks beside the axis."""
        values = [self._at(i / (TICKS - 1)) for i in range(TICKS)]
        return [(self.y(value), f"{value:.3g}") for value in values]

    def _at(self, share: float) -> float:
        if self.is_log:
            return math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        return self.low + share * (self.high - self.low)


def parallel(scales: Mapping[str, Scale | list[Option]], routes: Sequence[Route]) -> tuple[list[Axis], list[Line]]:
    """Place the axes, and a line for each route, best first in and drawn last; one ends where it has no value."""
    step = (WIDTH - 120) / max(len(scales) - 1, 1)
    xs = [round(50 + i * step, 1) for i in range(len(scales))]
    axes = [Axis(name, x, _ticks(scale)) for (name, scale), x in zip(scales.items(), xs, strict=True)]
    lines = []
    for route in reversed(routes):
        placed = zip(xs, scales.values(), route.values, strict=True)
        points = " ".join(f"{x},{_height(scale, value)}" for x, scale, value in placed if value is not None)
        lines.append(Line(route.id, points, route.kind, route.title))
    return axes, sorted(lines, key=lambda line: KINDS.index(line.kind))


def _height(scale: Scale | list[Option], value: Option) -> float:
    if isinstance(scale, Scale):
        return scale.y(float(value))
    return _place(scale.index(value), len(scale))


def _ticks(scale: Scale | list[Option]) -> list[tuple[float, str]]:
    if isinstance(scale, Scale):
        return scale.ticks()
    return [(_place(i, len(scale)), setting(value)) for i, value in enumerate(scale)]


def _place(i: int, number_of: int) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * (i / (number_of - 1) if number_of > 1 else 0.5), 1)
