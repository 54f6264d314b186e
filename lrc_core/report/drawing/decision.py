"""The decision picture as shapes, for the report and the slides: bytes against loss, with the frontier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lrc_core.charts.shapes import DENSE_SYMBOL, Drawing
from lrc_core.figures.decision import choice_color, colored
from lrc_core.quality.decision import (
    BITS,
    DENSE,
    FORMAT,
    KINDS,
    PIVOTS,
    PRUNED,
    RANKS,
    REFERENCE,
    TUNED,
    Choice,
    series_of,
)
from lrc_core.quality.decision import frontier as frontier_of
from lrc_core.quality.decision_words import loss_words
from lrc_core.report.content import LegendEntry
from lrc_core.report.drawing.charts import ChartPoint, PointSeries, curves
from lrc_core.words import data_size, percent

_SYMBOLS = {
    DENSE: DENSE_SYMBOL, FORMAT: "square", RANKS: "circle", PIVOTS: "diamond", TUNED: "triangle", BITS: "star",
    PRUNED: "down", REFERENCE: "spark",
}  # fmt: skip
"""The shapes of :mod:`lrc_core.figures.decision`, so that both pictures are read alike."""


def decision_drawing(
    found: Sequence[Choice], key_of: Callable[[Choice], tuple[str, str]] = lambda one: ("", "")
) -> Drawing:
    """Perplexity over dense on a logarithmic axis, over the share of the bytes; every way with its name.

    Args:
        found: the choices, with the dense model among them.
        key_of: method and target of a choice, by which a reader switches it off; "" where it stays.
    """
    best = frontier_of(found)
    names = {id(ways[0]): name for name, ways in series_of(found)}
    stairs = PointSeries("", "muted", "circle", tuple(_stairs(best)), marked=False)
    series = [_marked(one, *key_of(one), names.get(id(one), "")) for kind in KINDS for one in found if one.kind == kind]
    return curves([stairs, *series], "bytes of the whole model, % of 16 bits", "perplexity over dense", None)


def decision_legend(found: Sequence[Choice]) -> tuple[LegendEntry, ...]:
    """A shape for every way that was measured, of no colour, and then the colours of methods, of no shape."""
    kinds = {one.kind for one in found}
    ways = [LegendEntry(label, "ink", _SYMBOLS[kind], "") for kind, label in KINDS.items() if kind in kinds]
    colors = [LegendEntry(label, color, "bar", "") for label, color in colored(found).items()]
    return (*ways, *colors)


def _marked(one: Choice, method: str, target: str, name: str) -> PointSeries:
    tip = f"{one.name}: {percent(one.share)} of the bytes, {data_size(one.size)}; {loss_words(one)}"
    point = ChartPoint(100 * one.share, one.times, one.times_error or 0.0, target, tip)
    color = "ink" if one.kind == DENSE else choice_color(one)
    return PointSeries(
        method, color, _SYMBOLS[one.kind], (point,), joined=False, label=name, above=one.kind in (FORMAT, REFERENCE)
    )


def _stairs(best: Sequence[Choice]) -> list[ChartPoint]:
    """Corners of the frontier: from each choice level to the next larger one, then down."""
    corners: list[ChartPoint] = []
    for number, one in enumerate(best):
        if number:
            corners.append(ChartPoint(100 * one.share, best[number - 1].times, 0.0, "", ""))
        corners.append(ChartPoint(100 * one.share, one.times, 0.0, "", ""))
    return corners
