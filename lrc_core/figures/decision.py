"""The Plotly figure of a decision: bytes against loss, every measured way to a smaller model, the frontier drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import plotly.graph_objects as go

from lrc_core.names import GREY, REFERENCE_COLOR, in_order, method_color, method_label
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
from lrc_core.words import data_size, measured, percent

_SYMBOLS = {
    DENSE: "cross", FORMAT: "square", RANKS: "circle", PIVOTS: "diamond", TUNED: "triangle-up", BITS: "star",
    PRUNED: "triangle-down", REFERENCE: "star-diamond",
}  # fmt: skip
_NAMED_ALONE = (DENSE, FORMAT, REFERENCE)
_MOST_NAMES = 10
"""So many ways have their names beside them; of more, those that nothing beats."""
_Names: TypeAlias = Mapping[int, str]
_FINE, _TICKS = (1, 1.01, 1.02, 1.05, 1.1, 1.2), (1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100, 1000)


def choice_color(choice: Choice) -> str:
    """The method's colour; that of references where it is another model."""
    return REFERENCE_COLOR if choice.kind == REFERENCE else method_color(str(choice.row["method"]).partition("+")[0])


def colored(found: Sequence[Choice]) -> dict[str, str]:
    """Colours by the methods that have them; formats and other models are told apart by their names."""
    methods = dict.fromkeys(str(one.row["method"]).partition("+")[0] for one in found if one.kind not in _NAMED_ALONE)
    return {method_label(method): method_color(method) for method in in_order(methods)}


def decision_figure(found: Sequence[Choice]) -> go.Figure:
    """Perplexity over dense on a logarithmic axis, over the bytes of the whole model.

    Args:
        found: the choices, with the dense model among them.
    """
    figure = go.Figure()
    best, ways = frontier_of(found), series_of(found)
    names = {id(kept[0]): name for name, kept in ways if len(ways) <= _MOST_NAMES or kept[0] in best}
    figure.add_scatter(
        x=[one.share for one in best],
        y=[one.times for one in best],
        name="Frontier: nothing measured is smaller and loses less",
        mode="lines",
        line={"color": GREY, "width": 1.6, "dash": "dot", "shape": "hv"},
        hoverinfo="skip",
    )
    for kind in KINDS:
        shown = [one for one in found if one.kind == kind]
        if shown:
            _points(figure, kind, shown, best, names)
    for label, color in colored(found).items():
        _legend_only(figure, label, line={"color": color, "width": 9}, legend="legend2")
    whole = next((one.size for one in found if one.kind == DENSE), 0.0)
    ticks = list(_FINE if max((one.times for one in found), default=1.0) < 1.3 else _TICKS)
    places = [place / 10 for place in range(0, 11, 2)]
    figure.update_xaxes(
        title="Bytes of the whole model, as a share of 16 bits", tickvals=places,
        range=[0, 1.06 * max([1.0, *(one.share for one in found)])],
        ticktext=[f"{percent(place)}<br>{data_size(place * whole) if place else ''}" for place in places],
    )  # fmt: skip
    figure.update_yaxes(title="Perplexity over dense, logarithmic", type="log", tickvals=ticks, tickformat="~r")
    under = {"orientation": "h", "yanchor": "top", "xanchor": "left", "x": 0}
    figure.update_layout(
        height=560, showlegend=True, margin={"l": 60, "r": 8, "t": 12, "b": 8},
        legend={**under, "y": -0.2, "title": {"text": "Shapes: ways to a smaller model", "font": {"size": 13}}},
        legend2={**under, "y": -0.46, "title": {"text": "Colours: methods", "font": {"size": 13}}},
    )  # fmt: skip
    return figure


def _points(figure: go.Figure, kind: str, shown: Sequence[Choice], best: Sequence[Choice], names: _Names) -> None:
    on = [one in best for one in shown]
    down = [min(one.times_error or 0.0, 0.9 * one.times) for one in shown]  # below zero there is no logarithm
    figure.add_scatter(
        x=[one.share for one in shown],
        y=[one.times for one in shown],
        error_y={
            "type": "data", "symmetric": False, "array": [one.times_error or 0.0 for one in shown],
            "arrayminus": down, "thickness": 1.2, "width": 3, "color": GREY,
        },
        text=[names.get(id(one), "") for one in shown],
        textposition="top right" if kind in (FORMAT, REFERENCE) else "middle left",
        customdata=[[one.name, data_size(one.size), measured(one.times, one.times_error)] for one in shown],
        name=KINDS[kind],
        legendgroup=kind,
        showlegend=False,
        mode="markers+text",
        marker={
            "symbol": _SYMBOLS[kind],
            "size": [13 if held else 10 for held in on],
            "opacity": 1,
            "color": [choice_color(one) for one in shown],
        },
        hovertemplate="%{customdata[0]}: %{x:.1%} of the bytes, %{customdata[1]}; %{customdata[2]} times dense"
        "<extra></extra>",
    )  # fmt: skip
    _legend_only(figure, KINDS[kind], legendgroup=kind, marker={"symbol": _SYMBOLS[kind], "size": 11, "color": GREY})


def _legend_only(figure: go.Figure, name: str, **look: Any) -> None:
    """An entry of the legend that is no point of the picture."""
    figure.add_scatter(x=[None], y=[None], name=name, mode="lines" if "line" in look else "markers", **look)
