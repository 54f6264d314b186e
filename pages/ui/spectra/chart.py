"""The chart of spectra: clicked on, zoomed, walked along by keyboard.

A component of our own, because Plotly takes a quarter of a second to draw what a click on the heatmap asks for.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from lrc_core.budget import break_even
from lrc_core.charts.film_html import chart_parts
from lrc_core.decompose.measures import cumulative_energy
from lrc_core.figures.common import SpectrumCurve
from lrc_core.names import decomposition_label
from pages.ui.shared.prose import component

MOST_POINTS = 400
_DASHES = {
    "solid": "",
    "dash": "9 6",
    "dot": "2 4",
    "dashdot": "9 4 2 4",
    "longdash": "14 6",
    "longdashdot": "14 4 2 4",
}
_COMPONENT = component(
    "lrc_spectrum",
    "components/spectrum",
    '<div class="spectrum">\n<!-- filled by the script --></div>',
    js=chart_parts(),
)


@dataclass(frozen=True)
class Spectrum:
    """What is drawn: singular values above, cumulative energy below, over the same axis of directions.

    Attributes:
        curves: what to draw; the last one is in front.
        log: logarithmic values.
        cut: rank that the slider's compression leaves, None to mark none.
        with_layer: whether the legend names the layer (several are drawn).
        label: what is seen, for those who cannot see it.
        file: name of the PNG.
        references: drawn in grey behind the others.
        differences: of each curve's cumulative energy to its reference; drawn below in place of the energy itself.
    """

    curves: Sequence[SpectrumCurve]
    log: bool
    cut: int | None
    with_layer: bool
    label: str
    file: str
    references: Sequence[SpectrumCurve] = ()
    differences: Sequence[np.ndarray] = ()


def payload(shown: Spectrum) -> dict[str, Any]:
    """The chart as the browser gets it."""
    lines = [_line(curve, f"{curve.label} · reference", None, reference=True) for curve in shown.references]
    for number, curve in enumerate(shown.curves):
        name = decomposition_label(curve.decomposition)
        name = f"{curve.label} · {name}" if shown.with_layer else name
        lines.append(_line(curve, name, shown.differences[number] if shown.differences else None))
    below = (
        {"title": "Energy − reference", "percent": True, "tip": "{y} energy against the reference"}
        if shown.differences
        else {"title": "Cumulative energy", "percent": True, "fixed": [0, 1.03], "tip": "first {x} hold {y}"}
    )
    return {
        "curves": lines,
        "above": {"title": "Value / largest", "log": shown.log, "zero": True},
        "below": below,
        "marks": _marks(shown.curves, shown.cut),
        "label": shown.label,
        "file": shown.file,
    }


def picked(length: int) -> np.ndarray:
    """Indices of at most MOST_POINTS points: all of the steep beginning, then evenly."""
    if length <= MOST_POINTS:
        return np.arange(length)
    steep = MOST_POINTS // 4
    return np.unique(
        np.concatenate([np.arange(steep), np.linspace(steep, length - 1, MOST_POINTS - steep).astype(int)])
    )


def _line(curve: SpectrumCurve, name: str, below: np.ndarray | None, *, reference: bool = False) -> dict[str, Any]:
    shown = picked(len(curve.sigma))
    values = curve.sigma / curve.sigma[0] if curve.sigma[0] > 0 else curve.sigma
    energy = cumulative_energy(curve.sigma) if below is None else below
    return {
        "name": name,
        "layer": curve.layer.name,
        "color": curve.color,
        "dash": _DASHES[curve.dash],
        "reference": reference,
        "x": _packed(shown + 1),
        "above": _packed(values[shown]),
        "below": "" if reference else _packed(energy[shown]),
    }


def _packed(values: np.ndarray) -> str:
    """Figures as base64 of 32-bit floats, least significant byte first."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _marks(curves: Sequence[SpectrumCurve], cut: int | None) -> list[tuple[int, str, str]]:
    """Where factors cost what the dense layer costs, and where the current compression cuts: rank, word and dash."""
    evens = sorted({round(break_even(curve.layer)) for curve in curves})
    marks = [(even, "break-even", _DASHES["dash"]) for even in evens[:3]]
    return sorted(marks if cut is None else [*marks, (cut, "cut", _DASHES["dot"])])


def draw_spectra(shown: Spectrum, key: str, cut: Callable[[], None]) -> None:
    """Draw the chart.

    Args:
        key: of the component; :func:`cut_in` tells where was clicked.
        cut: called when a curve was clicked on.
    """
    _COMPONENT(data=payload(shown), key=key, on_cut_change=cut, height="content")


def cut_in(key: str) -> tuple[str, int]:
    """Layer and direction of the click; "" when there was none. To be called in the callback."""
    event = getattr(st.session_state.get(key), "cut", None)
    if not isinstance(event, Mapping) or not isinstance(event.get("direction"), int | float):
        return "", 0
    return str(event.get("layer", "")), int(event["direction"])
