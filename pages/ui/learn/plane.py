"""Axes of small charts that are drawn as SVG: in questions, and in the lesson that needs no server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pages.ui.shared import svg

LEFT, TOP, WIDTH, HEIGHT = 92.0, 14.0, 520.0, 190.0


@dataclass(frozen=True)
class Axes:
    """The plane of a chart of our own.

    Attributes:
        x, y: the ends of both axes.
        x_label, y_label: what they are of.
        log: whether x is logarithmic.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    log: bool = False

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the drawing."""
        right = self._share(x)
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + WIDTH * right, TOP + HEIGHT * (1 - up)

    def _share(self, x: float) -> float:
        if self.log:
            return math.log(x / self.x[0]) / math.log(self.x[1] / self.x[0])
        return (x - self.x[0]) / (self.x[1] - self.x[0])

    def drawn(self, x_ticks: Sequence[float], y_ticks: Sequence[tuple[float, str]]) -> str:
        """Both axes with their ticks and labels."""
        bottom = TOP + HEIGHT
        parts = [svg.line((LEFT, bottom), (LEFT + WIDTH, bottom)), svg.line((LEFT, TOP), (LEFT, bottom))]
        for tick in x_ticks:
            x, _ = self.at(tick, self.y[0])
            parts += [svg.line((x, bottom), (x, bottom + 5)), svg.text(x, bottom + 22, f"{tick:g}", size=15)]
        for tick, words in y_ticks:
            _, y = self.at(self.x[0], tick)
            parts += [svg.line((LEFT, y), (LEFT + WIDTH, y), dash="2 5")]
            parts += [svg.text(LEFT - 8, y + 5, words, size=15, anchor="end")]
        parts.append(svg.text(LEFT + WIDTH / 2, bottom + 44, self.x_label, size=15))
        turned = f'transform="rotate(-90 18 {TOP + HEIGHT / 2:.0f})"'
        parts.append(svg.text(18, TOP + HEIGHT / 2, self.y_label, size=15, extra=turned))
        return "".join(parts)
