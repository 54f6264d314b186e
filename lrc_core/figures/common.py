"""The Plotly figure of spectra, and what charts have in common. Pure functions; colours follow the theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrc_core.names import GREY, decomposition_color
from lrc_core.types import LinearShape

CONFIG = {"displaylogo": False, "modeBarButtons": [["toImage"]], "scrollZoom": False}
WHISKERS = {"type": "data", "thickness": 1.4, "width": 4, "color": GREY}
"""Of bars, and of points of several colours: Plotly's own are as dark as the dark theme."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
LAYER_COLORS = ("#1b8a86", "#d9762b", "#6a86d1", "#c05a94", "#a8952b", "#7f8c8a")
PERPLEXITY_TICKS = {"tickvals": [digit * 10**power for power in range(6) for digit in (1, 2, 3, 5)], "tickformat": "~r"}
"""Of a logarithmic axis: whole numbers, where plotly writes bare digits between the powers of ten."""


def perplexity_title(*, log: bool) -> str:
    """Of an axis of perplexity: on a logarithmic one lengths are no amounts, which has to be said."""
    return f"Perplexity (lower is better{', logarithmic' if log else ''})"


def config(name: str) -> dict[str, object]:
    """Chart options. Plotly's toolbar would cover titles: all of it that is left saves a picture, under this name."""
    return {**CONFIG, "toImageButtonOptions": {"format": "png", "filename": name, "scale": 2}}


@dataclass(frozen=True)
class Scale:
    """How a heatmap's values are shown.

    Attributes:
        title: of the colour bar, with the unit.
        format: d3 format of ticks and hover.
        limits: fixed ends of the colours, None for the data's.
        even: where two factors cost as much as the layer, marked on the colour bar; None where that is no such value.
    """

    title: str
    format: str = ".3~r"
    limits: tuple[float, float] | None = None
    even: float | None = None


@dataclass(frozen=True)
class SpectrumCurve:
    """One spectrum to draw; ``source`` names the model or run where there are several."""

    layer: LinearShape
    decomposition: str
    sigma: np.ndarray
    color: str
    dash: str
    source: str = ""

    @property
    def label(self) -> str:
        """Block, kind and source."""
        return f"{self.layer.block} · {self.layer.kind}" + (f" · {self.source}" if self.source else "")


def curves_of(
    layers: Sequence[LinearShape], values: Mapping[str, Mapping[str, np.ndarray]], shown: Sequence[str]
) -> list[SpectrumCurve]:
    """Curves of some layers under some decompositions: one layer is coloured by decomposition, several by layer."""
    curves = []
    for index, layer in enumerate(layers):
        for number, decomposition in enumerate(shown):
            alone = len(layers) == 1
            color = decomposition_color(decomposition) if alone else LAYER_COLORS[index % len(LAYER_COLORS)]
            dash = "solid" if alone else DASHES[number % len(DASHES)]
            curves.append(SpectrumCurve(layer, decomposition, values[decomposition][layer.name], color, dash))
    return curves
