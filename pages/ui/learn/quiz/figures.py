"""The figures that questions ask to read: each is drawn from numbers, and so are the answers that are offered."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrc_core.budget import break_even, factor_params
from lrc_core.decompose.measures import cumulative_energy, energy_rank
from lrc_core.types import LinearShape
from lrc_core.words import figure, percent
from pages.ui.learn import picture
from pages.ui.learn.plane import HEIGHT, TOP, Axes
from pages.ui.shared import svg

SHARE, CLOSE = 0.9, 0.99
MEASURED = {"A": (38.0, 2.5), "B": (41.0, 2.5), "C": (60.0, 4.0)}
"""Perplexity and its standard error of three methods that do not exist."""
OBLONG = LinearShape("layer", 0, "layer", 1000, 3000)
SQUARE = LinearShape("layer", 0, "layer", 200, 200)
FALLS = {"P": 0.02, "Q": 0.002}
"""How fast the singular values of two made-up layers fall off."""


@dataclass(frozen=True)
class QuizFigure:
    """A figure and what can be read from it.

    Attributes:
        drawing: SVG.
        facts: what its question and answers say of it, by the name of the placeholder.
    """

    drawing: str
    facts: dict[str, str]


def _svg(content: str, label: str) -> str:
    return f'<svg viewBox="0 0 640 256" role="img" aria-label="{label}" style="max-width:640px">{content}</svg>'


def _curve(axes: Axes, energy: NDArray[np.float64], color: str) -> str:
    points = [axes.at(0, 0), *(axes.at(rank, float(share)) for rank, share in enumerate(energy, start=1))]
    return svg.polyline(points, color)


_SHARES = [(tenth / 10, percent(tenth / 10, 0)) for tenth in range(1, 11, 2)]


def energy() -> QuizFigure:
    """Energy against rank of the picture of step 1."""
    _, sigma, _ = picture.decomposed()
    right, kept = energy_rank(sigma, CLOSE), cumulative_energy(sigma)
    low = float(kept[0])
    most = 5 * right
    axes = Axes((1, most), (low, 1), "rank", "energy kept")
    ticks = [share for share in (0.85, 0.9, 0.95, CLOSE) if share > low]
    content = axes.drawn(range(5, most + 1, 5), [(share, percent(share, 0)) for share in ticks])
    points = [axes.at(rank, float(share)) for rank, share in enumerate(kept[:most], start=1)]
    content += svg.polyline(points, svg.ORANGE)
    facts = {
        "rows": str(picture.ROWS),
        "share": percent(CLOSE, 0),
        "right": str(right),
        "middle": str(2 * right),
        "most": str(4 * right),
    }
    return QuizFigure(_svg(content, "A curve of the energy kept against the rank"), facts)


def whiskers() -> QuizFigure:
    """Three measured values with their errors."""
    axes = Axes((0, 80), (0, 4), "perplexity", "")
    content = axes.drawn(range(0, 81, 10), [(3 - number, name) for number, name in enumerate(MEASURED)])
    for number, (value, error) in enumerate(MEASURED.values()):
        (low, y), (high, _), (x, _) = (axes.at(place, 3 - number) for place in (value - error, value + error, value))
        content += svg.polyline([(low, y), (high, y)], svg.TEAL, 3.0)
        content += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{svg.TEAL}"/>'
    (first, one), (second, other), (third, _) = MEASURED.items()
    facts = {
        "first": first,
        "second": second,
        "third": third,
        "gap": figure(other[0] - one[0], 2),
        "error": figure(math.hypot(one[1], other[1]), 2),
    }
    return QuizFigure(_svg(content, "Three points with whiskers on an axis of perplexity"), facts)


def cost() -> QuizFigure:
    """Parameters of two factors against their rank, and those of the layer."""
    even, full = break_even(OBLONG), OBLONG.full_rank
    top = factor_params(OBLONG, full)
    axes = Axes((0, full), (0, top / 1e6), "rank", "parameters, millions")
    content = axes.drawn(range(0, full + 1, 125), [(million, str(million)) for million in range(1, 5)])
    content += svg.polyline([axes.at(0, 0), axes.at(full, top / 1e6)], svg.ORANGE)
    level = OBLONG.params / 1e6
    content += svg.polyline([axes.at(0, level), axes.at(full, level)], svg.TEAL)
    (x, y), (right, _) = axes.at(0, level), axes.at(full, level)
    content += svg.text(x + 12, y - 8, "the layer", size=15, anchor="start")
    content += svg.text(right - 150, axes.at(full, 1.6)[1], "two factors", size=15, anchor="end")
    facts = {"low": f"{full // 2:,}", "even": f"{even:,.0f}", "high": f"{full:,}"}
    return QuizFigure(_svg(content, "Two lines of parameters against rank that cross"), facts)


def layers() -> QuizFigure:
    """Energy against rank of two layers of one shape, and their break-even rank."""
    full, even = SQUARE.full_rank, break_even(SQUARE)
    axes = Axes((0, full), (0, 1), "rank", "energy kept")
    content = axes.drawn(range(0, full + 1, 20), _SHARES)
    ranks = {}
    for (name, fall), color in zip(FALLS.items(), (svg.ORANGE, svg.TEAL), strict=True):
        sigma = np.exp(-fall * np.arange(full))
        kept = cumulative_energy(sigma)
        ranks[name] = energy_rank(sigma, SHARE)
        content += _curve(axes, kept, color)
        x, y = axes.at(40, float(kept[39]))
        content += svg.text(x + 10, y + 20, name, size=17, anchor="start")
    edge, _ = axes.at(even, 0)
    content += svg.line((edge, TOP), (edge, TOP + HEIGHT), dash="6 4")
    steep, flat = ranks
    facts = {
        "share": percent(SHARE, 0),
        "steep": steep,
        "flat": flat,
        "small": str(ranks[steep]),
        "large": str(ranks[flat]),
    }
    return QuizFigure(_svg(content, "Two curves of energy kept against rank, and a dashed line"), facts)


FIGURES: dict[str, Callable[[], QuizFigure]] = {
    "energy": energy,
    "whiskers": whiskers,
    "cost": cost,
    "layers": layers,
}
