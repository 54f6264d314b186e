"""The heatmap of layers: clicked on, walked over by keyboard, drawn in the theme's colours. A component of our own,

because Plotly's heatmap is deaf to keys and is torn down at every change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from lrc_core.figures.common import Scale
from lrc_core.types import ModelCard
from lrc_core.words import kind_labels
from pages.ui.shared.prose import component

_HTML = (
    '<div class="frame"><div class="grid"></div><div class="tip" hidden></div>'
    '<div class="foot"><span>{keys}</span>'
    '<button type="button">Save as PNG</button></div></div>'
)


OUTLINE = "#e07b1f"
"""Of the one chosen cell; several have colours of their own."""


@dataclass(frozen=True)
class Limits:
    """The ends of a colour scale.

    Attributes:
        low: where the palette begins.
        high: where it ends.
        diverging: two-sided around 0.
        log: equal colours for equal ratios.
    """

    low: float
    high: float
    diverging: bool = False
    log: bool = False


@dataclass(frozen=True)
class Grid:
    """What the heatmap shows.

    Attributes:
        card: gives blocks and kinds.
        values: one figure per layer; layers without one stay empty.
        words: what is said of a layer, lines of plain text.
        scale: how figures are written.
        limits: of the colours.
        label: what the whole shows, for those who cannot see it.
        name: of the PNG.
        chosen: outlined layers and their colours.
        pinned: the reference layer, "" for none.
        picks: whether the page is told which layer is chosen.
        pins: whether a layer can be pinned by the key P.
        found: layers that a search found; None when nothing is searched.
        marks: a sign on a layer.
    """

    card: ModelCard
    values: Mapping[str, float]
    words: Mapping[str, str]
    scale: Scale
    limits: Limits
    label: str
    name: str
    chosen: Mapping[str, str] = field(default_factory=dict)
    pinned: str = ""
    picks: bool = True
    pins: bool = True
    found: Sequence[str] | None = None
    marks: Mapping[str, str] = field(default_factory=dict)


def limits_of(values: Sequence[float], *, diverging: bool = False, log: bool = False) -> Limits:
    """Ends that hold all finite values; with ``log`` all positive ones."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if not finite:
        return Limits(1e-9, 1.0, diverging, log) if log else Limits(-1.0 if diverging else 0.0, 1.0, diverging)
    low, high = min(finite), max(finite)
    if diverging:
        end = max(abs(low), abs(high)) or 1.0
        return Limits(-end, end, diverging=True)
    if low == high:
        return Limits(low / 1.5, high * 1.5, log=True) if log else Limits(low - 0.5 * abs(low), high + 0.5 * abs(high))
    return Limits(low, high, log=log)


def ticks_of(limits: Limits, scale: Scale) -> list[tuple[float, str]]:
    """Round places on the colour scale with their labels: powers of ten on a logarithmic one, else even steps."""
    places = _decades(limits) if limits.log else _even_steps(limits.low, limits.high)
    if scale.even is not None and limits.low <= scale.even <= limits.high:
        near = 0.06 * (limits.high - limits.low)
        places = sorted([place for place in places if abs(place - scale.even) > near] + [scale.even])
    sign = "+" if limits.diverging else ""
    return [(place, written(place, scale, sign if place else "")) for place in places]


def _even_steps(low: float, high: float) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten within both ends, three to six of them."""
    span = high - low
    power = 10.0 ** math.floor(math.log10(span))
    step = next(size * power for size in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0) if span / (size * power) <= 5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _decades(limits: Limits) -> list[float]:
    """Powers of ten within both ends; where fewer than three lie there, 2 and 5 times them as well."""
    powers = range(math.floor(math.log10(limits.low)), math.ceil(math.log10(limits.high)) + 1)
    for digits in ((1.0,), (1.0, 2.0, 5.0)):
        places = [digit * 10.0**power for power in powers for digit in digits]
        inside = [place for place in places if limits.low * (1 - 1e-9) <= place <= limits.high * (1 + 1e-9)]
        if len(inside) >= 3:
            return inside[:: -(-len(inside) // 6)]
    return [limits.low, math.sqrt(limits.low * limits.high), limits.high]


def written(value: float, scale: Scale, sign: str = "") -> str:
    """A figure as a scale writes it: ``43 %``, ``12.3``; with its sign where it is a difference."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞"
    if scale.format.endswith("%"):
        digits = int(scale.format[1:-1] or 0)
        return f"{100 * value:{sign}.{digits}f} %".replace("-", "−")
    text = f"{value:{sign}.3g}"
    return (f"{float(text):{sign},.0f}" if "e+" in text and abs(value) < 1e6 else text).replace("-", "−")


def payload(grid: Grid) -> dict[str, Any]:
    """The grid as the browser gets it."""
    kinds = grid.card.kinds
    labels, columns = kind_labels(kinds), {kind: number for number, kind in enumerate(kinds)}
    usable = grid.limits.low if grid.limits.log else -math.inf
    cells = []
    for layer in grid.card.layers:
        value = grid.values.get(layer.name, math.nan)
        drawn = max(value, usable) if math.isfinite(value) else None
        sign = grid.marks.get(layer.name, "")
        cells.append([layer.block, columns[layer.kind], layer.name, drawn, grid.words.get(layer.name, ""), sign])
    return {
        "rows": grid.card.n_blocks,
        "columns": [labels[kind] for kind in kinds],
        "cells": cells,
        "low": grid.limits.low,
        "high": grid.limits.high,
        "log": grid.limits.log,
        "diverging": grid.limits.diverging,
        "ticks": ticks_of(grid.limits, grid.scale),
        "even": grid.scale.even,
        "unit": grid.scale.title,
        "label": grid.label,
        "name": grid.name,
        "chosen": list(grid.chosen.items()),
        "pinned": grid.pinned,
        "picks": grid.picks,
        "pins": grid.pins,
        "found": None if grid.found is None else list(grid.found),
    }


def cell_grid(
    grid: Grid, key: str, picked: Callable[[], None] | None = None, pinned: Callable[[], None] | None = None
) -> None:
    """Draw the heatmap.

    Args:
        key: of the component; ``picked_in(key)`` tells what was chosen, ``pinned_in(key)`` what was pinned.
        picked: called when a cell is chosen.
        pinned: called when the key P pins a cell or takes the pin back.
    """
    keys = "Arrow keys move" + ", Enter chooses" * grid.picks + ", Shift adds, P pins" * grid.pins
    name = "lrc_cellgrid" + "_picks" * grid.picks + "_pins" * grid.pins
    drawn = component(name, "components/cellgrid", _HTML.format(keys=keys))
    drawn(
        data=payload(grid),
        key=key,
        on_picked_change=picked or (lambda: None),
        on_pinned_change=pinned or (lambda: None),
        height="content",
    )


def picked_in(key: str) -> tuple[str, bool]:
    """The layer that was chosen and whether it is to be added to the others; "" when none was."""
    event = _event(key, "picked")
    return str(event.get("id", "")), bool(event.get("add"))


def pinned_in(key: str) -> str | None:
    """The layer that was pinned, "" when the pin was taken back, None when neither happened."""
    event = _event(key, "pinned")
    return str(event["id"]) if "id" in event else None


def _event(key: str, name: str) -> Mapping[str, Any]:
    state = st.session_state.get(key)
    event = getattr(state, name, None) if state is not None else None
    return event if isinstance(event, Mapping) else {}
