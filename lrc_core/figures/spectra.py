"""Singular values and what the first of them hold, drawn from the same curves as the app's own chart."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lrc_core.budget import break_even
from lrc_core.decompose.measures import cumulative_energy
from lrc_core.figures.common import SpectrumCurve
from lrc_core.names import GREY, decomposition_label


def spectrum_figure(curves: Sequence[SpectrumCurve], *, log: bool = True) -> go.Figure:
    """Values over the largest above, cumulative energy below, with the rank from which factors cost what W costs.

    Args:
        curves: see :func:`~lrc_core.figures.common.curves_of`.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for curve in curves:
        name = f"{curve.label} · {decomposition_label(curve.decomposition)}"
        look = {"name": name, "legendgroup": name, "line": {"color": curve.color, "dash": curve.dash}, "mode": "lines"}
        directions = list(range(1, len(curve.sigma) + 1))
        values = curve.sigma / curve.sigma[0] if curve.sigma[0] > 0 else curve.sigma
        energy = cumulative_energy(curve.sigma).tolist()
        figure.add_scatter(x=directions, y=values.tolist(), **look, row=1, col=1)
        figure.add_scatter(x=directions, y=energy, **look, showlegend=False, row=2, col=1)
    for even in sorted({round(break_even(curve.layer)) for curve in curves})[:3]:
        figure.add_vline(even, line={"color": GREY, "dash": "dash", "width": 1}, row="all", col=1)
    figure.update_yaxes(title="Value / largest", type="log" if log else "linear", row=1, col=1)
    figure.update_yaxes(title="Cumulative energy", tickformat=".0%", range=[0, 1.03], row=2, col=1)
    figure.update_xaxes(title="Direction", row=2, col=1)
    figure.update_layout(height=520, margin={"l": 60, "r": 8, "t": 24, "b": 8})
    return figure
