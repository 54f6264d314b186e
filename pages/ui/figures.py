"""The Plotly figure of spectra, and what charts have in common. Pure functions; colours follow the theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from lrc_core.budget import break_even
from lrc_core.decompose.measures import cumulative_energy
from lrc_core.types import LinearShape, ModelCard
from pages.ui.methods import decomposition_color, decomposition_label

CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"], "scrollZoom": False}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
LAYER_COLORS = ("#1b8a86", "#d9762b", "#6a86d1", "#c05a94", "#a8952b", "#7f8c8a")
MOST_POINTS = 400
_MARGIN = {"l": 56, "r": 8, "t": 24, "b": 8}
_VALUE = "%{y:.3~g}"


def config(name: str) -> dict[str, object]:
    """Chart options with the name of the PNG that the camera button saves."""
    return {**CONFIG, "toImageButtonOptions": {"format": "png", "filename": name, "scale": 2}}


def kinds_of(card: ModelCard) -> tuple[str, ...]:
    """Kinds of layer in the order of their first appearance in a block."""
    return tuple(dict.fromkeys(layer.kind for layer in card.layers))


@dataclass(frozen=True)
class Scale:
    """How a heatmap's values are shown.

    Attributes:
        title: of the colour bar, with the unit.
        format: d3 format of ticks and hover.
        limits: fixed ends of the colours, None for the data's.
    """

    title: str
    format: str = ".3~r"
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Curve:
    """One spectrum to draw; ``source`` names the model or run where there are several."""

    layer: LinearShape
    decomposition: str
    sigma: np.ndarray
    color: str
    dash: str
    source: str = ""

    @property
    def label(self) -> str:
        return f"{self.layer.block} · {self.layer.kind}" + (f" · {self.source}" if self.source else "")


def curves_of(
    layers: Sequence[LinearShape], values: Mapping[str, Mapping[str, np.ndarray]], shown: Sequence[str]
) -> list[Curve]:
    """Curves of some layers under some decompositions: one layer is coloured by decomposition, several by layer."""
    curves = []
    for index, layer in enumerate(layers):
        for number, decomposition in enumerate(shown):
            alone = len(layers) == 1
            color = decomposition_color(decomposition) if alone else LAYER_COLORS[index % len(LAYER_COLORS)]
            dash = "solid" if alone else DASHES[number % len(DASHES)]
            curves.append(Curve(layer, decomposition, values[decomposition][layer.name], color, dash))
    return curves


def spectrum_figure(
    curves: Sequence[Curve],
    *,
    log: bool,
    cut: int | None,
    with_layer: bool,
    references: Sequence[Curve] = (),
    differences: Sequence[np.ndarray] = (),
) -> go.Figure:
    """Singular values above, cumulative energy below, over the same axis of directions.

    A click on a curve reports the layer and the direction.

    Args:
        curves: what to draw.
        log: logarithmic values.
        cut: rank that the slider's compression leaves, None to mark none.
        with_layer: whether the legend names the layer (several are drawn).
        references: drawn in grey behind the others.
        differences: of each curve's cumulative energy to its reference; drawn below in place of the energy itself.
    """
    traces = []
    for curve in references:
        traces.append(_line(curve, f"{curve.label} · reference", _relative(curve.sigma), _VALUE))
    for number, curve in enumerate(curves):
        name = decomposition_label(curve.decomposition)
        name = f"{curve.label} · {name}" if with_layer else name
        traces.append(_line(curve, name, _relative(curve.sigma), _VALUE))
        below = differences[number] if differences else cumulative_energy(curve.sigma)
        tip = "%{y:+.2%} energy" if differences else "first %{x} hold %{y:.1%}"
        traces.append(_line(curve, name, below, tip, below=True))
    # One record at once: a figure that is built call by call takes Plotly three times as long.
    return go.Figure({"data": traces, "layout": {**_spectrum_axes(log, bool(differences)), **_ranks(curves, cut)}})


def _spectrum_axes(log: bool, differences: bool) -> dict[str, object]:
    """Two plots above each other over one axis of directions."""
    split = (0.4606, 0.3906)  # the lower plot takes 42 % of what a gap of 7 % leaves
    above = {"title": {"text": "Value / largest"}, "type": "log" if log else "linear", "rangemode": "tozero"}
    energy = {"title": {"text": "Cumulative energy"}, "tickformat": ".0%", "range": [0, 1.03]}
    apart = {"title": {"text": "Energy − reference"}, "tickformat": "+.0%"}
    return {
        "xaxis": {"anchor": "y", "domain": [0, 1], "matches": "x2", "showticklabels": False},
        "xaxis2": {"anchor": "y2", "domain": [0, 1], "title": {"text": "Direction, largest first"}},
        "yaxis": {
            **above, "anchor": "x", "domain": [split[0], 1], "exponentformat": "power", **({"dtick": 1} if log else {}),
        },
        "yaxis2": {**(apart if differences else energy), "anchor": "x2", "domain": [0, split[1]]},
        "height": 540,
        "margin": {**_MARGIN, "t": 40},
        "hovermode": "closest",
        "clickmode": "event+select",
        "dragmode": "zoom",
        "legend": {"orientation": "h", "yanchor": "top", "y": -0.13, "xanchor": "left", "x": 0},
    }  # fmt: skip


def _relative(sigma: np.ndarray) -> np.ndarray:
    return sigma / sigma[0] if sigma[0] > 0 else sigma


def _picked(length: int) -> np.ndarray:
    """Indices of at most MOST_POINTS points: all of the steep beginning, then evenly."""
    if length <= MOST_POINTS:
        return np.arange(length)
    steep = MOST_POINTS // 4
    return np.unique(
        np.concatenate([np.arange(steep), np.linspace(steep, length - 1, MOST_POINTS - steep).astype(int)])
    )


def _line(curve: Curve, name: str, values: np.ndarray, tip: str, *, below: bool = False) -> dict[str, object]:
    """One line, with invisible markers: a line alone cannot be clicked on. Two of them stand for all on the screen."""
    shown = _picked(len(values))
    hidden = {"marker": {"opacity": 0}}
    return {
        "type": "scatter",
        "x": shown + 1,
        "y": values[shown],
        "name": name,
        "meta": curve.layer.name,
        "mode": "lines+markers",
        "line": {"color": curve.color, "dash": curve.dash, "width": 2},
        "marker": {"opacity": 0, "size": 9, "maxdisplayed": 2},
        "selected": hidden,
        "unselected": hidden,
        "customdata": [curve.layer.name] * len(shown),
        "hovertemplate": f"{name}<br>direction %{{x}}: {tip}<extra></extra>",
        "showlegend": not below,
        "xaxis": "x2" if below else "x",
        "yaxis": "y2" if below else "y",
    }


def _ranks(curves: Sequence[Curve], cut: int | None) -> dict[str, object]:
    """Vertical lines: where factors cost what the dense layer costs, and where the current compression cuts."""
    evens = sorted({round(break_even(curve.layer)) for curve in curves})
    marks = [(even, "break-even", "dash") for even in evens[:3]]
    if cut is not None:
        marks.append((cut, "cut", "dot"))
    shapes, annotations = [], []
    for position, (rank, word, dash) in enumerate(sorted(marks)):
        line = {"type": "line", "x0": rank, "x1": rank, "y0": 0, "y1": 1}
        look = {"line": {"color": "#8a9593", "width": 1.5, "dash": dash}}
        shapes += [{**line, **look, "xref": f"x{n}", "yref": f"y{n} domain"} for n in ("", "2")]
        annotations.append(
            {
                "x": rank,
                "xref": "x",
                "y": 1.0,
                "yref": "y domain",
                "text": f"{word} {rank}",
                "showarrow": False,
                "yanchor": "bottom",
                "xanchor": "right" if position == 0 and len(marks) > 1 else "left",
                "font": {"size": 12},
            }
        )
    return {"shapes": shapes, "annotations": annotations}
