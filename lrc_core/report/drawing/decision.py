"""The decision picture as shapes, for the report and the slides: bytes against loss, with the frontier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lrc_core.charts.shapes import DENSE_SYMBOL, Drawing
from lrc_core.figures.decision import choice_color
from lrc_core.quality.decision import BITS, DENSE, FORMAT, KINDS, PIVOTS, PRUNED, RANKS, REFERENCE, TUNED, Choice
from lrc_core.quality.decision import frontier as frontier_of
from lrc_core.quality.decision_words import loss_words
from lrc_core.report.content import LegendEntry
from lrc_core.report.drawing.charts import ChartPoint, PointSeries, curves
from lrc_core.words import data_size, percent

_SYMBOLS = {
    DENSE: DENSE_SYMBOL, FORMAT: "square", RANKS: "circle", PIVOTS: "diamond", TUNED: "triangle", BITS: "down",
    PRUNED: "square", REFERENCE: DENSE_SYMBOL,
}  # fmt: skip


def decision_drawing(
    found: Sequence[Choice], key_of: Callable[[Choice], tuple[str, str]] = lambda one: ("", "")
) -> Drawing:
    """Perplexity over dense on a logarithmic axis, over the share of the bytes.

    Args:
        found: the choices, with the dense model among them.
        key_of: method and target of a choice, by which a reader switches it off; "" where it stays.
    """
    best = frontier_of(found)
    stairs = PointSeries("", "muted", "circle", tuple(_stairs(best)), marked=False)
    series = [_marked(one, *key_of(one)) for kind in KINDS for one in found if one.kind == kind]
    return curves([stairs, *series], "bytes of the whole model, % of 16 bits", "perplexity over dense", None)


def decision_legend(found: Sequence[Choice]) -> tuple[LegendEntry, ...]:
    """A symbol for every way that was measured; colours are the methods' and say more in the tips."""
    kinds = {one.kind: one for one in reversed(found)}
    return tuple(
        LegendEntry(label, _color(kinds[kind]), _SYMBOLS[kind], "") for kind, label in KINDS.items() if kind in kinds
    )


def _color(choice: Choice) -> str:
    return "ink" if choice.kind == DENSE else choice_color(choice)


def _marked(one: Choice, method: str, target: str) -> PointSeries:
    tip = f"{one.name}: {percent(one.share)} of the bytes, {data_size(one.size)}; {loss_words(one)}"
    point = ChartPoint(100 * one.share, one.times, one.times_error or 0.0, target, tip)
    return PointSeries(method, _color(one), _SYMBOLS[one.kind], (point,), joined=False)


def _stairs(best: Sequence[Choice]) -> list[ChartPoint]:
    """Corners of the frontier: from each choice level to the next larger one, then down."""
    corners: list[ChartPoint] = []
    for number, one in enumerate(best):
        if number:
            corners.append(ChartPoint(100 * one.share, best[number - 1].times, 0.0, "", ""))
        corners.append(ChartPoint(100 * one.share, one.times, 0.0, "", ""))
    return corners
