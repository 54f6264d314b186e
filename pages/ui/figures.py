"""Plotly figures of finished things: spectra and measure heatmaps. Pure functions; colours follow the theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from lrc_core.types import LinearShape, ModelCard
from pages.ui.methods import decomposition_color
from pages.ui.words import kind_labels

CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"], "scrollZoom": False}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
LAYER_COLORS = ("#1b8a86", "#d9762b", "#6a86d1", "#c05a94", "#a8952b", "#7f8c8a")
PERPLEXITY_TICKS = {"tickvals": [digit * 10**power for power in range(6) for digit in (1, 2, 3, 5)], "tickformat": "~r"}
"""Of a logarithmic axis: whole numbers, where plotly writes bare digits between the powers of ten."""
_MARGIN = {"l": 56, "r": 8, "t": 24, "b": 8}


def config(name: str) -> dict[str, object]:
    """Chart options with the name of the PNG that the camera button saves."""
    return {**CONFIG, "toImageButtonOptions": {"format": "png", "filename": name, "scale": 2}}


def kinds_of(card: ModelCard) -> tuple[str, ...]:
    """Kinds of layer in the order of their first appearance in a block."""
    return tuple(dict.fromkeys(layer.kind for layer in card.layers))


def grid(card: ModelCard, values: Mapping[str, float]) -> np.ndarray:
    """Values by layer name as [blocks, kinds], NaN where a block has no such layer."""
    kinds = {kind: column for column, kind in enumerate(kinds_of(card))}
    cells = np.full((card.n_blocks, len(kinds)), np.nan)
    for layer in card.layers:
        cells[layer.block, kinds[layer.kind]] = values[layer.name]
    return cells


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


def layer_heatmap(
    card: ModelCard, values: Mapping[str, float], scale: Scale, hover: Mapping[str, str], selected: Sequence[str] = ()
) -> go.Figure:
    """Blocks down, kinds across, with an invisible square marker on every cell that reports clicks.

    Args:
        card: gives the grid.
        values: one figure a layer.
        scale: how they are shown.
        hover: what the pointer says of a layer, HTML.
        selected: layers that are outlined.
    """
    kinds, labels = kinds_of(card), kind_labels(kinds_of(card))
    low, high = scale.limits or (None, None)
    figure = go.Figure(
        go.Heatmap(
            z=grid(card, values),
            x=[labels[kind] for kind in kinds],
            y=list(range(card.n_blocks)),
            xgap=2,
            ygap=1 if card.n_blocks > 40 else 2,
            zmin=low,
            zmax=high,
            hoverinfo="skip",
            colorbar={
                "title": {"text": scale.title, "side": "right"},
                "tickformat": scale.format,
                "thickness": 12,
                "outlinewidth": 0,
            },
        )
    )
    figure.add_trace(_click_targets(card, labels, hover))
    for layer in card.layers:
        if layer.name in selected:
            figure.add_shape(**_outline(kinds.index(layer.kind), layer.block))
    figure.update_xaxes(
        range=[-0.5, len(kinds) - 0.5],
        side="top",
        showgrid=False,
        zeroline=False,
        fixedrange=True,
        tickangle=0 if len(kinds) < 6 else -30,
    )
    figure.update_yaxes(
        range=[card.n_blocks - 0.5, -0.5],
        title="Block",
        showgrid=False,
        zeroline=False,
        fixedrange=True,
        dtick=_tick_step(card.n_blocks),
    )
    figure.update_layout(height=heatmap_height(card.n_blocks), margin=_MARGIN, dragmode=False, showlegend=False)
    return figure


def heatmap_height(n_blocks: int) -> int:
    """Pixels: tall enough to hit a cell, never endless."""
    return int(min(900, max(280, 90 + 18 * n_blocks)))


def _tick_step(n_blocks: int) -> int:
    return 1 if n_blocks <= 12 else 5 if n_blocks <= 60 else 10


def _click_targets(card: ModelCard, labels: Mapping[str, str], hover: Mapping[str, str]) -> go.Scatter:
    invisible = {"marker": {"opacity": 0}}
    return go.Scatter(
        x=[labels[layer.kind] for layer in card.layers],
        y=[layer.block for layer in card.layers],
        customdata=[layer.name for layer in card.layers],
        text=[hover[layer.name] for layer in card.layers],
        mode="markers",
        marker={"symbol": "square", "size": 18, "opacity": 0},
        selected=invisible,
        unselected=invisible,
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def _outline(column: int, row: int) -> dict[str, object]:
    return {
        "type": "rect",
        "x0": column - 0.5,
        "x1": column + 0.5,
        "y0": row - 0.5,
        "y1": row + 0.5,
        "line": {"color": "#e07b1f", "width": 3},
    }


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
