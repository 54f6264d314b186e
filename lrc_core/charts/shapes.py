"""Charts as plain shapes, in CSS pixels from the upper left. SVG, PDF pages and GIFs are drawn from the same ones.

Colours are ``#rrggbb`` or a role that each medium fills: ``ink``, ``muted``, ``grid``, ``surface``; or ``level:0`` to
``level:20`` of the sequential ramp.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lrc_core.charts.theme import blended

LEVELS = 20
"""Steps of the ramp, less one."""
SYMBOLS = ("circle", "square", "diamond", "triangle", "down")
DENSE_SYMBOL = "cross"
"""Of the dense model, which is the measure and no method."""


@dataclass(frozen=True)
class Path:
    """A line through points; closed and filled where a fill is given.

    Attributes:
        key: the method that it belongs to.
        target: the share to keep, as text, where it belongs to one point alone.
    """

    points: tuple[tuple[float, float], ...]
    stroke: str = ""
    width: float = 1.0
    fill: str = ""
    dash: tuple[float, ...] = ()
    key: str = ""
    target: str = ""


@dataclass(frozen=True)
class Dot:
    """A symbol.

    Attributes:
        symbol: one of ``SYMBOLS``, or of what stands beside methods: the dense model's, ``star`` (ranks and bits),
            ``spark`` (other models), ``bar`` (a colour of a legend that is of no one shape).
        tip: what it stands for, in words.
    """

    x: float
    y: float
    size: float
    symbol: str
    fill: str
    key: str = ""
    target: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Label:
    """A text at its baseline.

    Attributes:
        anchor: ``start``, ``middle`` or ``end``.
        turned: runs upwards.
    """

    x: float
    y: float
    text: str
    size: float = 12.0
    anchor: str = "start"
    fill: str = "muted"
    turned: bool = False
    bold: bool = False
    key: str = ""


@dataclass(frozen=True)
class Cells:
    """Rectangles of one size and one colour, by their upper left corners."""

    corners: tuple[tuple[float, float], ...]
    width: float
    height: float
    fill: str


Shape = Path | Dot | Label | Cells


@dataclass(frozen=True)
class Drawing:
    """Shapes in a frame.

    Attributes:
        grid: of a heatmap: left, top, width and height of a cell, columns, rows; None for a chart.
    """

    width: float
    height: float
    shapes: tuple[Shape, ...]
    grid: tuple[float, float, float, float, int, int] | None = None


def level(share: float) -> str:
    """The ramp's colour at a share 0..1."""
    return f"level:{round(LEVELS * min(max(share, 0.0), 1.0))}"


def painted(fill: str, ramp: tuple[str, ...]) -> tuple[int, int, int]:
    """Red, green and blue of a ``level:`` on a ramp."""
    return blended(ramp, int(fill.removeprefix("level:")) / LEVELS)


def cells(shares: Iterable[tuple[float, float, float]], width: float, height: float) -> list[Cells]:
    """A heatmap: rectangles by left, top and share 0..1, those of one level together."""
    by_level: dict[str, list[tuple[float, float]]] = {}
    for left, top, share in shares:
        by_level.setdefault(level(share), []).append((left, top))
    return [Cells(tuple(corners), width, height, fill) for fill, corners in by_level.items()]


def labelled(blocks: int, few: int = 12) -> range:
    """The blocks of a heatmap that are numbered: all of a ``few``, else every fifth or tenth."""
    return range(0, blocks, 1 if blocks <= few else 5 if blocks <= 60 else 10)


def outline(symbol: str, x: float, y: float, size: float) -> tuple[tuple[float, float], ...]:
    """Corners of a symbol; none for the circle."""
    half = size / 2
    corners = {
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
        "triangle": ((0, -1.2), (1.15, 0.85), (-1.15, 0.85)),
        "down": ((0, 1.2), (1.15, -0.85), (-1.15, -0.85)),
        "star": tuple(
            (reach * math.sin(turn * math.pi / 5), -reach * math.cos(turn * math.pi / 5))
            for turn, reach in enumerate((1.35, 0.6) * 5)
        ),
        "spark": (
            *((0, -1.4), (0.4, -0.4), (1.4, 0), (0.4, 0.4)),
            *((0, 1.4), (-0.4, 0.4), (-1.4, 0), (-0.4, -0.4)),
        ),
        "bar": ((-1.4, -0.5), (1.4, -0.5), (1.4, 0.5), (-1.4, 0.5)),
        "cross": (
            *((-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4)),
            *((0.4, 1.1), (-0.4, 1.1), (-0.4, 0.4), (-1.1, 0.4), (-1.1, -0.4), (-0.4, -0.4)),
        ),
    }.get(symbol, ())
    return tuple((x + half * dx, y + half * dy) for dx, dy in corners)
