"""Plotly figures of a bench: the trade-off of size and quality, and variants of an ablation. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lrc_core.figures.common import DASHES, PERPLEXITY_TICKS, WHISKERS, perplexity_title
from lrc_core.names import GREY, REFERENCE_COLOR, decomposition_label, method_color, method_label
from lrc_core.quality.rows import dense_row
from lrc_core.results.benches import ACCURACY, AXES, BenchRows, lines, place_of, points, value_of
from lrc_core.words import in_percent, measured

Row = Mapping[str, Any]
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "pentagon", "hexagram", "triangle-down")
_LEGEND_ROW = 20  # pixels


def pareto(bench: BenchRows, measure: str, axis: str, *, log: bool, decomposition: str = "") -> go.Figure:
    """Quality over size: one line per method, the dense model dashed, reference models as named points.

    Args:
        measure: a text or ``ACCURACY``.
        axis: of ``AXES``.
        log: whether perplexities are on a logarithmic axis.
        decomposition: the only one to draw, "" for all. What prunes structure has none and is always drawn.
    """
    figure = go.Figure()
    drawn = {key: rows for key, rows in lines(bench).items() if not decomposition or key[1] in (decomposition, "")}
    decompositions = list(dict.fromkeys(name for _, name in drawn if name))
    methods = list(dict.fromkeys(name for name, _ in drawn))
    for (method, under), rows in drawn.items():
        found = points(rows, measure, axis)
        if not found:
            continue
        name = method_label(method)
        if len(decompositions) > 1 and under:
            name += f" · {decomposition_label(under)}"
        figure.add_scatter(
            x=[point.x for point in found],
            y=[point.y for point in found],
            error_y={**WHISKERS, "color": method_color(method), "array": [point.error for point in found]},
            name=name,
            mode="lines+markers",
            line={
                "color": method_color(method),
                "width": 2.2,
                "dash": DASHES[decompositions.index(under) % len(DASHES)] if under else "solid",
            },
            marker={"symbol": _SYMBOLS[methods.index(method) % len(_SYMBOLS)], "size": 9},
            customdata=[_said(measure, point.y, point.error) for point in found],
            hovertemplate=f"{name}, %{{x}}: %{{customdata}}<extra></extra>",
        )
    _references(figure, bench, measure, axis)
    _dense(figure, bench, measure, log=log)
    accuracy, share = measure == ACCURACY, axis != "bytes"
    figure.update_xaxes(title=f"{AXES[axis]} removed" if share else "Size in MB", tickformat=".0%" if share else None)
    figure.update_yaxes(
        title="Mean accuracy (higher is better)" if accuracy else perplexity_title(log=log),
        **_scale(accuracy=accuracy, log=log),
    )
    # Below the axis, where any number of methods wraps into rows without taking the plot's width.
    legend = {"orientation": "h", "yanchor": "top", "y": -0.16, "xanchor": "left", "x": 0}
    height = 480 + _LEGEND_ROW * math.ceil(len(figure.data) / 4)
    figure.update_layout(height=height, showlegend=True, margin={"l": 60, "r": 8, "t": 12, "b": 8}, legend=legend)
    return figure


def _scale(*, accuracy: bool, log: bool) -> dict[str, Any]:
    """Of the axis that shows a measure; accuracies are never logarithmic."""
    if accuracy:
        return {"type": "linear", "tickformat": ".0%"}
    return {"type": "log", **PERPLEXITY_TICKS} if log else {"type": "linear"}


def _references(figure: go.Figure, bench: BenchRows, measure: str, axis: str) -> None:
    shown = [
        (str(row.get("name", "reference")), place_of(row, axis), value_of(row, measure))
        for row in bench.measured
        if row["method"] == "reference"
    ]
    shown = [entry for entry in shown if entry[1] is not None and entry[2] is not None]
    if shown:
        figure.add_scatter(
            x=[place for _, place, _ in shown],
            y=[value[0] for *_, value in shown if value],
            error_y={**WHISKERS, "color": REFERENCE_COLOR, "array": [value[1] or 0.0 for *_, value in shown if value]},
            text=[name for name, *_ in shown],
            textposition="top center",
            name="Reference models",
            mode="markers+text",
            marker={"symbol": "star-diamond", "size": 13, "color": REFERENCE_COLOR},
            customdata=[_said(measure, *value) for *_, value in shown if value],
            hovertemplate="%{text}, %{x}: %{customdata}<extra></extra>",
        )


def _dense(figure: go.Figure, bench: BenchRows, measure: str, *, log: bool, **place: Any) -> None:
    row = dense_row(bench.measured)
    found = value_of(row, measure) if row is not None else None
    if found is None:
        return
    figure.add_hline(y=found[0], line={"color": GREY, "dash": "dash", "width": 1.6}, **place)
    if place:  # a panel of bars: its title says it, where no bar stands behind the letters
        return
    figure.add_annotation(
        text=_dense_words(found[0], measure),
        x=0,
        xref="x domain",
        y=math.log10(found[0]) if log and measure != ACCURACY else found[0],  # annotations take exponents there
        showarrow=False,
        font={"size": 12},
        xanchor="left",
        yanchor="bottom",
    )


def _said(measure: str, value: float, error: float | None) -> str:
    """A point with its error, as the tables say it."""
    return f"{in_percent(value, error)} %" if measure == ACCURACY else measured(value, error)


def _dense_words(value: float, measure: str) -> str:
    return f"dense {100 * value:.1f} %" if measure == ACCURACY else f"dense {value:.2f}"


def _panel_titles(bench: BenchRows, shown: Mapping[str, str]) -> list[str]:
    """Measures with what the dense model has: the dashed line."""
    dense = dense_row(bench.measured)
    values = {measure: value_of(dense, measure) if dense is not None else None for measure in shown}
    return [
        _broken(title) if (value := values[measure]) is None else f"{_broken(title)}, {_dense_words(value[0], measure)}"
        for measure, title in shown.items()
    ]


def _broken(title: str) -> str:
    """Two lines, so that titles stay apart in a narrow window."""
    first, _, rest = title.replace("zero-shot ", "").partition(" ")
    return f"{first.rstrip(',')}<br>{rest}"


def variants_side_by_side(bench: BenchRows, rows: Sequence[Row], shown: Mapping[str, str], *, log: bool) -> go.Figure:
    """One bar a variant, one panel a measure; the variant that the others are tested against is solid.

    On a logarithmic axis there are points, since it has no zero that a bar could begin at.

    Args:
        bench: gives the dense model.
        rows: of one method, part and target.
        shown: measures and their titles.
        log: whether perplexities are on a logarithmic axis.
    """
    titles = _panel_titles(bench, shown)
    figure = make_subplots(rows=1, cols=max(1, len(shown)), subplot_titles=titles, horizontal_spacing=0.08)
    figure.update_annotations(font={"size": 12.5})
    for column, measure in enumerate(shown, start=1):
        found = [(row, value_of(row, measure)) for row in rows]
        bars = [(row, value) for row, value in found if value is not None]
        accuracy = measure == ACCURACY
        points_of = {"mode": "markers"} if log and not accuracy else {}
        drawn = (go.Scatter if points_of else go.Bar)(
            x=[_short(str(row["variant"])) for row, _ in bars],
            y=[value[0] for _, value in bars],
            error_y={**WHISKERS, "array": [value[1] or 0.0 for _, value in bars]},
            marker={
                "color": [method_color(str(row["method"])) for row, _ in bars],
                "opacity": [0.55 if "base" in (row.get("paired") or {}) else 1.0 for row, _ in bars],
                **({"size": 12} if points_of else {}),
            },
            customdata=[_said(measure, *value) for _, value in bars],
            hovertemplate="%{x}: %{customdata}<extra></extra>",
            **points_of,
        )
        figure.add_trace(drawn, row=1, col=column)
        _dense(figure, bench, measure, log=log, row=1, col=column)
        title = "logarithmic" if log and not accuracy else None
        figure.update_yaxes(title=title, **_scale(accuracy=accuracy, log=log), row=1, col=column)
    figure.update_layout(height=390, showlegend=False, margin={"l": 60, "r": 8, "t": 50, "b": 8}, bargap=0.3)
    return figure


def _short(variant: str) -> str:
    """A text's file name in place of its path."""
    word, _, rest = variant.partition(" ")
    return f"{word} {Path(rest).name}" if word == "text" and rest.startswith("/") else variant
