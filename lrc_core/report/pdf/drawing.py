"""Drawings on a PDF page: vectors and real text, in the colours of the light theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reportlab.lib.colors import HexColor
from reportlab.platypus import Flowable

from lrc_core.charts.shapes import Cells, Dot, Drawing, Label, Path, outline, painted
from lrc_core.charts.theme import LIGHT, RAMP_LIGHT
from lrc_core.report.content import ESTIMATED, BarPart
from lrc_core.report.pdf.fonts import BOLD, SANS, runs, width_of

INK, MUTED, LINE, PANEL = LIGHT["text-color"], "#55615f", LIGHT["border-color"], LIGHT["secondary-background-color"]
ACCENT, BAD = LIGHT["primary-color"], "#b3372b"
PARTS = {"weights": ACCENT, "cache": "#c8641b", "overhead": "#8b9492"}
_ROLES = {"ink": INK, "muted": MUTED, "grid": LINE, "surface": "#ffffff"}


def color(value: str) -> Any:
    """A colour or role."""
    if value.startswith("level:"):
        red, green, blue = painted(value, RAMP_LIGHT)
        return HexColor(f"#{red:02x}{green:02x}{blue:02x}")
    return HexColor(_ROLES.get(value, value))


_TALLEST = 560.0
"""Points: what is left of a page below a heading and a legend."""


class Figure(Flowable):
    """A drawing, scaled to a width.

    Args:
        drawing: shapes in pixels.
        width: points that there are.
        largest: points a pixel at most.
    """

    def __init__(self, drawing: Drawing, width: float, largest: float = 0.75) -> None:
        super().__init__()
        self._drawing = drawing
        self._scale = min(largest, width / drawing.width, _TALLEST / drawing.height)  # a flowable cannot be broken
        self.width, self.height = drawing.width * self._scale, drawing.height * self._scale

    def wrap(self, *_: float) -> tuple[float, float]:
        """Its size."""
        return self.width, self.height

    def draw(self) -> None:
        """Draw all shapes; the page's y runs upwards."""
        canvas = self.canv
        canvas.saveState()
        canvas.scale(self._scale, self._scale)
        for shape in self._drawing.shapes:
            _DRAWN[type(shape)](canvas, shape, self._drawing.height)
        canvas.restoreState()


def _cells(canvas: Any, shape: Cells, height: float) -> None:
    canvas.setFillColor(color(shape.fill))
    for x, y in shape.corners:
        canvas.rect(x, height - y - shape.height, shape.width, shape.height, stroke=0, fill=1)


def _outline(canvas: Any, points: Sequence[tuple[float, float]], height: float, *, closed: bool) -> Any:
    path = canvas.beginPath()
    path.moveTo(points[0][0], height - points[0][1])
    for x, y in points[1:]:
        path.lineTo(x, height - y)
    if closed:
        path.close()
    return path


def _path(canvas: Any, shape: Path, height: float) -> None:
    canvas.setStrokeColor(color(shape.stroke))
    canvas.setLineWidth(shape.width)
    canvas.setDash(list(shape.dash))
    canvas.setLineJoin(1)
    canvas.drawPath(_outline(canvas, shape.points, height, closed=False), stroke=1, fill=0)
    canvas.setDash()


def _dot(canvas: Any, shape: Dot, height: float) -> None:
    canvas.setFillColor(color(shape.fill))
    corners = outline(shape.symbol, shape.x, shape.y, shape.size)
    if corners:
        canvas.drawPath(_outline(canvas, corners, height, closed=True), stroke=0, fill=1)
    else:
        canvas.circle(shape.x, height - shape.y, shape.size / 2, stroke=0, fill=1)


def _label(canvas: Any, shape: Label, height: float) -> None:
    base = BOLD if shape.bold else SANS
    canvas.saveState()
    canvas.translate(shape.x, height - shape.y)
    if shape.turned:
        canvas.rotate(90)
    canvas.setFillColor(color(shape.fill))
    shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[shape.anchor] * width_of(shape.text, shape.size, base)
    x = -shift
    for font, part in runs(shape.text, base):
        canvas.setFont(font, shape.size)
        canvas.drawString(x, 0, part)
        x += canvas.stringWidth(part, font, shape.size)
    canvas.restoreState()


_DRAWN: dict[type, Any] = {Cells: _cells, Path: _path, Dot: _dot, Label: _label}


class MemoryBar(Flowable):
    """Parts of a model's memory; an estimated part is hatched."""

    def __init__(self, parts: Sequence[BarPart], largest: int, width: float) -> None:
        super().__init__()
        self._parts, self._largest = parts, max(1, largest)
        self.width, self.height = width, 9.0

    def wrap(self, *_: float) -> tuple[float, float]:
        """Its size."""
        return self.width, self.height + 3

    def draw(self) -> None:
        """Draw it on its ground."""
        canvas = self.canv
        canvas.setFillColor(color(PANEL))
        canvas.rect(0, 2, self.width, self.height, stroke=0, fill=1)
        x = 0.0
        for part in self._parts:
            wide = self.width * part.bytes / self._largest
            paint = color(PARTS.get(part.key, MUTED))
            if part.how == ESTIMATED:
                hatched(canvas, (x, 2, wide, self.height), paint)
            else:
                canvas.setFillColor(paint)
                canvas.rect(x, 2, wide, self.height, stroke=0, fill=1)
            x += wide


def hatched(canvas: Any, box: tuple[float, float, float, float], paint: Any) -> None:
    """A rectangle of slanted lines: what is estimated looks like this."""
    x, y, wide, high = box
    canvas.saveState()
    path = canvas.beginPath()
    path.rect(x, y, wide, high)
    canvas.clipPath(path, stroke=0, fill=0)
    canvas.setStrokeColor(paint)
    canvas.setLineWidth(0.8)
    start = x - high
    while start < x + wide:
        canvas.line(start, y, start + high, y + high)
        start += 2.4
    canvas.rect(x, y, wide, high, stroke=1, fill=0)
    canvas.restoreState()


class Swatch(Flowable):
    """The colour ramp with its ends and meaning."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words
        self.width, self.height = 400.0, 11.0

    def wrap(self, *_: float) -> tuple[float, float]:
        """Its size."""
        return self.width, self.height + 4

    def draw(self) -> None:
        """Eleven steps."""
        canvas, x = self.canv, 22.0
        canvas.setFont(SANS, 7.5)
        canvas.setFillColor(color(INK))
        canvas.drawString(0, 5, "0 %")
        for step in range(11):
            canvas.setFillColor(color(f"level:{2 * step}"))
            canvas.rect(x, 4, 10, 8, stroke=0, fill=1)
            x += 10
        canvas.setFillColor(color(INK))
        canvas.drawString(x + 5, 5, "100 %")
        canvas.drawString(x + 32, 5, self._words)
