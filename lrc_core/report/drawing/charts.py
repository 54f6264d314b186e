"""Two charts: quality over size, and a dot for every accuracy. Pure geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lrc_core.charts.shapes import Dot, Drawing, Label, Path, Shape
from lrc_core.charts.ticks import log_ticks, nice_ticks

WIDTH, HEIGHT = 460.0, 320.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 14.0, 14.0, 46.0
_ROW, _STEP = 22.0, 11.0
_SMALL, _LETTER, _LINE = 10.5, 5.6, 10.0
"""Of names beside points: size, width of a letter, distance of lines."""


@dataclass(frozen=True)
class ChartPoint:
    """A measured value with its standard error."""

    x: float
    y: float
    error: float
    target: str
    tip: str


@dataclass(frozen=True)
class PointSeries:
    """The points of one method.

    Attributes:
        joined: by a line, in the order of their size.
        marked: with a symbol at each.
        label: written beside its smallest point, where there is room.
        above: whether its name stands above rather than before it.
    """

    key: str
    color: str
    symbol: str
    points: tuple[ChartPoint, ...]
    joined: bool = True
    marked: bool = True
    label: str = ""
    above: bool = False


@dataclass(frozen=True)
class _Axis:
    """Values to places."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, place = self.low, self.high, max(value, 1e-12)
        if self.log:
            low, high, place = math.log(low), math.log(high), math.log(max(place, self.low))
        else:
            place = value
        return self.start + (place - low) / (high - low) * (self.end - self.start)


def curves(series: Sequence[PointSeries], x_label: str, y_label: str, reference: tuple[float, str] | None) -> Drawing:
    """Values over a size, on a logarithmic axis, with whiskers of one standard error.

    Args:
        series: at least one point in all.
        x_label: with its unit.
        y_label: likewise.
        reference: a value that is drawn as a dashed line, with its name.
    """
    points = [point for one in series for point in one.points]
    heights = [point.y + point.error for point in points] + [
        max(point.y - point.error, point.y / 2) for point in points
    ]
    heights += [reference[0]] if reference else []
    y_ticks = log_ticks(min(heights), max(heights))
    low, high = min(point.x for point in points), max(point.x for point in points)
    spare = max(0.0, 0.05 * high - (high - low)) / 2  # sizes that hardly differ are not blown up
    x_ticks = nice_ticks(low - spare, high + spare, 4)
    x_axis = _Axis(x_ticks[0], x_ticks[-1], _LEFT + 8, WIDTH - _RIGHT)
    y_axis = _Axis(y_ticks[0], y_ticks[-1], HEIGHT - _BOTTOM, _TOP, log=True)
    shapes: list[Shape] = []
    for tick in y_ticks:
        y = y_axis.at(tick)
        shapes.append(Path(((_LEFT, y), (WIDTH - _RIGHT, y)), "grid"))
        shapes.append(Label(_LEFT - 7, y + 4, f"{tick:,g}", anchor="end"))
    for tick in x_ticks:
        shapes.append(Label(x_axis.at(tick), HEIGHT - _BOTTOM + 18, f"{tick:,g}", anchor="middle"))
    shapes.append(Path(((_LEFT, HEIGHT - _BOTTOM), (WIDTH - _RIGHT, HEIGHT - _BOTTOM)), "muted"))
    shapes.append(Label((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, x_label, anchor="middle"))
    shapes.append(Label(13, (_TOP + HEIGHT - _BOTTOM) / 2, f"{y_label}, logarithmic", anchor="middle", turned=True))
    if reference:
        y = y_axis.at(reference[0])
        shapes.append(Path(((_LEFT, y), (WIDTH - _RIGHT, y)), "ink", 1.4, dash=(5, 4)))
        shapes.append(Label(_LEFT + 6, y - 6, reference[1], fill="ink"))
    for one in series:
        shapes += _curve(one, x_axis, y_axis)
    return Drawing(WIDTH, HEIGHT, (*shapes, *_labels(series, x_axis, y_axis)))


def _labels(series: Sequence[PointSeries], x_axis: _Axis, y_axis: _Axis) -> list[Label]:
    """Names beside the smallest points, left of them, else right; none that would lie on another or on a mark."""
    marks = [(x_axis.at(point.x), y_axis.at(point.y)) for one in series if one.marked for point in one.points]
    taken = [(x - 5, x + 5, y) for x, y in marks]
    labels: list[Label] = []
    for one in series:
        if not one.label or not one.points:
            continue
        first = min(one.points, key=lambda point: point.x)
        x, y, wide = x_axis.at(first.x), y_axis.at(first.y), _LETTER * len(one.label)
        over = (x + 3, x + 3 + wide, y - 11)
        places = [(x - 9 - wide, x - 9, y), (x + 9, x + 9 + wide, y), over]
        places = [over, *places] if one.above else places
        for left, right, at in places:
            free = all(right < low or left > high or abs(at - other) > _LINE for low, high, other in taken)
            if free and left > _LEFT + 2 and right < WIDTH and at < HEIGHT - _BOTTOM + 4:
                labels.append(Label((left + right) / 2, at + 4, one.label, _SMALL, "middle", "ink", key=one.key))
                taken.append((left, right, at))
                break
    return labels


def _curve(one: PointSeries, x_axis: _Axis, y_axis: _Axis) -> list[Shape]:
    ordered = sorted(one.points, key=lambda point: point.x)
    line = tuple((x_axis.at(point.x), y_axis.at(point.y)) for point in ordered)
    shapes: list[Shape] = [Path(line, one.color, 2.2, key=one.key)] if one.joined and len(line) > 1 else []
    for point, (x, y) in zip(ordered, line, strict=True):
        if point.error:
            ends = y_axis.at(max(point.y - point.error, point.y / 20)), y_axis.at(point.y + point.error)
            whisker = [((x, ends[0]), (x, ends[1])), *(((x - 3.5, end), (x + 3.5, end)) for end in ends)]
            shapes += [Path(part, one.color, 1.3, key=one.key, target=point.target) for part in whisker]
        if one.marked:
            shapes.append(Dot(x, y, 9, one.symbol, one.color, one.key, point.target, point.tip))
    return shapes


def dots(rows: Sequence[str], series: Sequence[PointSeries], x_label: str) -> Drawing:
    """A row for every name, a dot with its whisker for every series. The x of a point is its value, its y the row.

    Args:
        series: methods; a point's ``error`` is along the value.
        x_label: with its unit.
    """
    left = 30 + 6.4 * max(len(row) for row in rows)
    height = max(_ROW, 8 + _STEP * len(series))
    bottom = _TOP + height * len(rows)
    points = [point for one in series for point in one.points]
    ticks = nice_ticks(min(point.x - point.error for point in points), max(point.x + point.error for point in points))
    axis = _Axis(ticks[0], ticks[-1], left, WIDTH - _RIGHT - 6)
    shapes: list[Shape] = []
    for tick in ticks:
        shapes.append(Path(((axis.at(tick), _TOP), (axis.at(tick), bottom)), "grid"))
        shapes.append(Label(axis.at(tick), bottom + 17, f"{tick:g}", anchor="middle"))
    for number, row in enumerate(rows):
        top = _TOP + number * height
        shapes.append(Path(((12, top), (WIDTH - _RIGHT, top)), "grid"))
        shapes.append(Label(left - 12, top + height / 2 + 4, row, anchor="end", fill="ink"))
    shapes.append(Path(((12, bottom), (WIDTH - _RIGHT, bottom)), "muted"))
    shapes.append(Label((left + WIDTH) / 2, bottom + 36, x_label, anchor="middle"))
    for number, one in enumerate(series):
        for point in one.points:
            y = _TOP + point.y * height + (height - _STEP * len(series)) / 2 + _STEP * (number + 0.5)
            if point.error:
                ends = (axis.at(point.x - point.error), y), (axis.at(point.x + point.error), y)
                shapes.append(Path(ends, one.color, 1.6, key=one.key, target=point.target))
            shapes.append(Dot(axis.at(point.x), y, 8, one.symbol, one.color, one.key, point.target, point.tip))
    return Drawing(WIDTH, bottom + 46, tuple(shapes))
