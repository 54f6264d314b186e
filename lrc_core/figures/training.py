"""A method that learns, step by step: the charts of its film as Plotly figures."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lrc_core.charts.film import Film
from lrc_core.names import GREY


def training_figure(film: Film) -> go.Figure:
    """What was recorded at every step: size and target, losses, and what else the method reports, one panel each."""
    shown = [chart for chart in film.charts if chart.series]
    figure = make_subplots(rows=len(shown), cols=1, shared_xaxes=True, subplot_titles=[chart.label for chart in shown])
    for row, chart in enumerate(shown, start=1):
        for number, (name, label) in enumerate(zip(chart.series, chart.labels, strict=True)):
            line = {"color": GREY, "dash": "dash"} if number else {"color": film.color}
            figure.add_scatter(
                x=film.ticks["step"], y=film.ticks[name], name=label, mode="lines", line=line, row=row, col=1
            )
        axis = {"tickformat": ".0%"} if chart.format == "percent" else {}
        figure.update_yaxes(title=chart.unit, **axis, row=row, col=1)
    figure.update_xaxes(title="Step", row=len(shown), col=1)
    figure.update_layout(
        title=film.title, showlegend=False, height=90 + 210 * len(shown), margin={"l": 70, "r": 8, "t": 80, "b": 8}
    )
    return figure
