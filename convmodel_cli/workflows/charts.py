"""Numbers -> places on a drawing of fixed size, y downwards as in SVG. What it looks like is the template's part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Place = tuple[float, float]
Row = TypeVar("Row")

WIDTH = 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 16, 14, 30
MOST_POINTS = 500


@dataclass(frozen=True, slots=True)
class Line:
    """A line through some points, with a dot at each if `dots`; each dot's last part says what it stands for."""

    name: str
    points: str
    dots: tuple[tuple[float, float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """`x_ticks` and `y_ticks` hold (place, label); `mark` is the x of the best step."""

    label: str
    height: int
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]
    mark: float | None = None
    width: int = WIDTH
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP

    @property
    def bottom(self) -> int:
        return self.height - _BOTTOM


@dataclass(frozen=True, slots=True)
class Axis:
    """From the values `low`..`high` to the places `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def draw(
    label: str,
    height: int,
    thin: dict[str, list[Place]],
    dotted: dict[str, list[Place]],
    mark: float | None = None,
    from_zero: bool = False,
) -> Chart | None:
    """Lines of (step, value), thin ones and dotted ones, in one drawing; None if there are no two steps to join."""
    thin = {name: averaged(points) for name, points in thin.items() if points}
    dotted = {name: spread(points, MOST_POINTS) for name, points in dotted.items() if points}
    places = [place for points in (*thin.values(), *dotted.values()) for place in points]
    if len({step for step, _ in places}) < 2:
        return None
    steps, values = [step for step, _ in places], [value for _, value in places]
    low, high = widened(0.0 if from_zero else min(values), max(values))
    x = Axis(min(0.0, *steps), max(steps), _LEFT, WIDTH - _RIGHT)
    y = Axis(low, high, height - _BOTTOM, _TOP)
    lines = [Line(name, _joined(points, x, y)) for name, points in thin.items()]
    lines += [Line(name, _joined(points, x, y), _dots(name, points, x, y)) for name, points in dotted.items()]
    return Chart(
        label,
        height,
        tuple((x.place(step), f"{step:,.0f}") for step in ticks(x.low, x.high, 6) if step == round(step)),
        tuple((y.place(value), f"{value:.6g}") for value in ticks(low, high, max(3, height // 50))),
        tuple(lines),
        None if mark is None else x.place(mark),
    )


def averaged(points: Sequence[Place]) -> list[Place]:
    """At most 500 points, each the mean of as many neighbours."""
    size = math.ceil(len(points) / MOST_POINTS)
    if size <= 1:
        return list(points)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], math.fsum(value for _, value in group) / len(group)) for group in groups]


def spread(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many rows, evenly spread, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers within the limits, at most about so many: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(place * step, digits) for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def widened(low: float, high: float) -> tuple[float, float]:
    """The limits with a little air, and never equal; a floor of zero stays."""
    air = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return (low - air if low else low), high + air


def _joined(points: list[Place], x: Axis, y: Axis) -> str:
    return " ".join(f"{x.place(step)},{y.place(value)}" for step, value in points)


def _dots(name: str, points: list[Place], x: Axis, y: Axis) -> tuple[tuple[float, float, str], ...]:
    return tuple((x.place(step), y.place(value), f"step {step:,.0f}: {name} {value:.4f}") for step, value in points)
