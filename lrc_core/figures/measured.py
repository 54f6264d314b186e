"""Plotly figures of measurements, with error bars; one colour a method, from the registry. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lrc_core.budget import removed_share
from lrc_core.figures.common import PERPLEXITY_TICKS, WHISKERS, perplexity_title
from lrc_core.names import GREY, in_order
from lrc_core.names import method_color as color
from lrc_core.names import method_label as label
from lrc_core.plan import split_variant
from lrc_core.quality.quantised import compresses, served_bytes, share_of
from lrc_core.quality.rows import accuracy_of, dense_row
from lrc_core.quality.speeds import DECODE, PREFILL, pace_of
from lrc_core.quality.tables import tasks_of, texts_of
from lrc_core.registry import Appearance
from lrc_core.texts.label import text_labels
from lrc_core.updates import BOTH, UPDATES
from lrc_core.words import figure as written
from lrc_core.words import measured, percent, removed, rounded, with_error

Row = Mapping[str, Any]
_DENSE, _AS_ALLOCATED = Appearance("/", "solid", "diamond-open"), Appearance("", "solid", "circle")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")


def methods_of(rows: Sequence[Row]) -> list[str]:
    """Methods among the rows: dense first, then in the order of the registry, updated ones behind their own."""
    return in_order(str(row["method"]) for row in rows)


_STANDING = 7  # bars whose names still fit below them, and whose values lie near each other


def _error(values: Sequence[float | None]) -> dict[str, Any]:
    return {**WHISKERS, "array": [value or 0 for value in values]}


def _whiskers(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Errors of perplexities: none is below 1, so that no whisker leads there, nor the axis behind it."""
    errors = [float(score.get("stderr") or 0) for score in scores]
    down = [min(error, max(0.0, score["value"] - 1)) for score, error in zip(scores, errors, strict=True)]
    return {**_error(errors), "symmetric": False, "arrayminus": down}


def _look(method: str) -> Appearance:
    """What tells a bar, line or point from others of the same colour; that of fitted factors for unknown updates."""
    _, update, _ = split_variant(method)
    if method == "dense" or not update:
        return _DENSE if method == "dense" else _AS_ALLOCATED
    return (UPDATES.get(update) if update in UPDATES else BOTH).look


def _marker(methods: Sequence[str]) -> dict[str, Any]:
    """Colours of bars; the dense model is hatched, because it is the reference and not a method, and so are updates."""
    return {
        "color": [color(method) for method in methods],
        "pattern": {"shape": [_look(method).pattern for method in methods], "size": 7, "solidity": 0.25},
    }


def _point(methods: Sequence[str]) -> dict[str, Any]:
    """The same of points, where symbols stand for patterns."""
    return {
        "color": [color(method) for method in methods],
        "symbol": [_look(method).symbol for method in methods],
        "size": 12,
        "line": {"width": 2},
    }


def perplexity_by_method(rows: Sequence[Row], *, log: bool = False) -> go.Figure:
    """Perplexity of every method, one panel per text; lower is better.

    A few methods stand as bars in their usual order. Many lie below each other, where their names can be read, the best
    on top, on a logarithmic axis: beside a method that fails, the differences between good ones would not be seen. Such
    an axis has no zero that a bar could begin at, so that there are points.

    Args:
        log: few lie on a logarithmic axis as well.
    """
    texts, log = texts_of(rows), log or len(methods_of(rows)) > _STANDING
    longest = max((len(label(name)) for name in methods_of(rows)), default=0)
    figure = make_subplots(
        rows=1,
        cols=max(1, len(texts)),
        subplot_titles=_names(texts),
        horizontal_spacing=min(0.4, max(0.2, 0.01 * longest)) if log else 0.08,  # names stand between the panels
    )
    for column, text in enumerate(texts, start=1):
        shown = [(name, score) for name in methods_of(rows) if (score := _score(rows, name, text)) is not None]
        if log:
            shown.sort(key=lambda entry: entry[1]["value"], reverse=True)
        methods, scores = [name for name, _ in shown], [score for _, score in shown]
        names, values = [label(name) for name in methods], [score["value"] for score in scores]
        error = _whiskers(scores)
        # The value stands beside the name: on the bar it is lost where bars are short or hatched.
        said = [rounded(score["value"], score.get("stderr")) for score in scores]
        words = [f"{name}{' ' if log else '<br>'}{value}" for name, value in zip(names, said, strict=True)]
        hover = {  # not the axis' own words, which hold the value already
            "customdata": [f"{name}: {value}" for name, value in zip(names, _measured_words(scores), strict=True)],
            "hovertemplate": "%{customdata}<extra></extra>",
        }
        drawn = (
            go.Scatter(x=values, y=names, error_x=error, mode="markers", marker=_point(methods), **hover)
            if log
            else go.Bar(x=names, y=values, error_y=error, marker=_marker(methods), **hover)
        )
        figure.add_trace(drawn, row=1, col=column)
        update = figure.update_yaxes if log else figure.update_xaxes
        update(tickvals=names, ticktext=words, row=1, col=column)
    _name_axes(figure, log)
    height = 80 + 24 * len(methods_of(rows)) if log else 360
    figure.update_layout(height=height, showlegend=False, margin={"l": 60, "r": 8, "t": 36, "b": 8}, bargap=0.35)
    return figure


def _measured_words(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    return [measured(score["value"], score.get("stderr")) for score in scores]


def _name_axes(figure: go.Figure, log: bool) -> None:
    title = perplexity_title(log=log)
    if log:
        # On two lines: one is wider than a panel on a narrow screen, and would be cut.
        figure.update_xaxes(title=title.replace(", log", ",<br>log"), type="log", **PERPLEXITY_TICKS)
        figure.update_yaxes(showgrid=True)
    else:
        figure.update_yaxes(rangemode="tozero")
        figure.update_yaxes(title=title, col=1)


def _names(texts: Sequence[str]) -> list[str]:
    return list(text_labels(texts).values())


def _score(rows: Sequence[Row], method: str, text: str) -> Mapping[str, Any] | None:
    return next(
        (row["perplexity"][text] for row in rows if row["method"] == method and text in row["perplexity"]), None
    )


def perplexity_curves(rows: Sequence[Row], *, log: bool) -> go.Figure:
    """Perplexity over the achieved compression, one panel per text, with the dense model as a line."""
    texts = texts_of(rows)
    figure = make_subplots(rows=1, cols=max(1, len(texts)), subplot_titles=_names(texts), horizontal_spacing=0.08)
    for column, text in enumerate(texts, start=1):
        dense = _score(rows, "dense", text)
        for index, method in enumerate(name for name in methods_of(rows) if compresses({"method": name})):
            points = _points(rows, method, text)
            figure.add_scatter(
                x=[rate for rate, _ in points],
                y=[score["value"] for _, score in points],
                error_y=_whiskers([score for _, score in points]),
                name=label(method),
                legendgroup=method,
                showlegend=column == 1,
                mode="lines+markers",
                line={"color": color(method), "width": 2.2, "dash": _look(method).dash},
                marker={"symbol": _SYMBOLS[index % len(_SYMBOLS)], "size": 9},
                customdata=_measured_words([score for _, score in points]),
                hovertemplate=f"{label(method)} at %{{x:.1%}}: %{{customdata}}<extra></extra>",
                row=1,
                col=column,
            )
        if dense is not None:
            figure.add_hline(y=dense["value"], line={"color": GREY, "dash": "dash", "width": 1.6}, row=1, col=column)
            note = {"showarrow": False, "font": {"size": 12}, "xanchor": "left", "yanchor": "bottom"}
            text_of = f"dense {rounded(dense['value'], dense.get('stderr'))}"
            height = math.log10(dense["value"]) if log else dense["value"]  # annotations take exponents on log axes
            figure.add_annotation(text=text_of, x=0, xref="x domain", y=height, **note, row=1, col=column)
    figure.update_xaxes(title="Achieved compression", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(**({"type": "log", **PERPLEXITY_TICKS} if log else {"type": "linear", "rangemode": "tozero"}))
    figure.update_yaxes(title=perplexity_title(log=log), col=1)
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.1, "xanchor": "left", "x": 0}
    figure.update_layout(height=420, margin={"l": 60, "r": 8, "t": 70, "b": 8}, legend=legend)
    return figure


def _points(rows: Sequence[Row], method: str, text: str) -> list[tuple[float, Mapping[str, Any]]]:
    points = [
        (removed_share(float(row.get("keep_achieved", row["keep_target"]))), row["perplexity"][text])
        for row in rows
        if row["method"] == method and text in row["perplexity"]
    ]
    return sorted(points, key=lambda point: point[0])


def zero_shot_bars(rows: Sequence[Row], metric: str) -> go.Figure:
    """Accuracy of every method on every task, with standard errors."""
    tasks = tasks_of(rows)
    figure = go.Figure()
    for method in methods_of(rows):
        row = next(row for row in rows if row["method"] == method)
        scores = row.get("zero_shot") or {}
        known = {task: accuracy_of(scores.get(task) or {}, metric)[1:] for task in tasks}
        shown = [task for task in tasks if known[task][0] is not None]
        values = [known[task] for task in shown]
        figure.add_bar(
            x=shown,
            y=[value for value, _ in values],
            error_y=_error([error for _, error in values]),
            name=label(method),
            marker=_marker([method] * len(shown)),
            hovertemplate=f"{label(method)}, %{{x}}: %{{y:.1%}} ± %{{error_y.array:.1%}}<extra></extra>",
        )
    figure.update_yaxes(title="Accuracy (higher is better)", tickformat=".0%", rangemode="tozero")
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0}
    figure.update_layout(
        height=400, barmode="group", margin={"l": 60, "r": 8, "t": 40, "b": 8}, legend=legend, bargap=0.25
    )
    return figure


def zero_shot_table(rows: Sequence[Row], metric: str) -> pd.DataFrame:
    """The same in numbers: one row per method, one column per task."""
    records = []
    for row in ordered(rows):
        scores = row.get("zero_shot") or {}
        found = {task: accuracy_of(scores.get(task) or {}, metric)[1:] for task in tasks_of(rows)}
        records.append(
            {"Method": bar_name(row)}
            | {
                task: "–" if value is None else with_error(100 * value, 100 * (error or 0), 1) + " %"
                for task, (value, error) in found.items()
            }
        )
    return pd.DataFrame(records)


_SIZE = "Size in MB"


def _size(row: Row) -> float | None:
    """Millions of bytes as it is served, not as the computer held it that measured it."""
    size = served_bytes(row)
    return None if size is None else size / 1e6


def _speed(row: Row, what: str) -> float | None:
    return (row.get("cost") or {}).get(f"{what}_tokens_per_s")


def speed_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Size and speeds in numbers, one row per model: tokens per second, and times the dense model's."""
    dense = dense_row(rows)
    records = []
    for row in ordered(rows):
        record: dict[str, str] = {"Model": bar_name(row), _SIZE: written(_size(row))}
        for what, title in ((PREFILL, "Prefill"), (DECODE, "Decode")):
            pace = None if row is dense else pace_of(row, dense, what)
            record[f"{title}, tokens/s"] = written(_speed(row, what))
            record[f"{title}, times dense"] = pace.figure if pace else "–"
        records.append(record)
    return pd.DataFrame(records)


def speed_bars(rows: Sequence[Row]) -> go.Figure:
    """Bytes, and both paces over the dense model's with their errors; without a dense model, tokens per second."""
    dense, found = dense_row(rows), ordered(rows)
    others = [row for row in found if row is not dense]
    panels: list[tuple[str, list[tuple[Row, float, float | None]]]] = [
        (_SIZE, [(row, size, None) for row in found if (size := _size(row)) is not None])
    ]
    for what, title in ((PREFILL, "Prefill"), (DECODE, "Decode")):
        if dense is None:
            panels.append(
                (f"{title}, tokens/s", [(row, speed, None) for row in others if (speed := _speed(row, what))])
            )
        else:
            paces = [(row, pace.value, pace.stderr) for row in others if (pace := pace_of(row, dense, what))]
            panels.append((f"{title}, times dense", paces))
    figure = make_subplots(rows=1, cols=3, subplot_titles=[title for title, _ in panels], horizontal_spacing=0.08)
    for column, (_, shown) in enumerate(panels, start=1):
        figure.add_bar(
            x=[bar_name(row) for row, *_ in shown],
            y=[value for _, value, _ in shown],
            error_y=_error([error for *_, error in shown]) if any(error for *_, error in shown) else None,
            marker=_marker([str(row["method"]) for row, *_ in shown]),
            hovertemplate="%{x}: %{y:,.3g}<extra></extra>",
            row=1,
            col=column,
        )
    if dense is not None:
        for column in (2, 3):
            figure.add_hline(y=1.0, line={"color": GREY, "dash": "dot", "width": 1}, row=1, col=column)
    figure.update_layout(height=340, showlegend=False, margin={"l": 50, "r": 8, "t": 36, "b": 8}, bargap=0.35)
    return figure


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Rows by method in the usual order, then from little to much compression."""
    order = {method: index for index, method in enumerate(methods_of(rows))}
    return sorted(rows, key=lambda row: (order[str(row["method"])], -float(row["keep_target"])))


def bar_name(row: Row) -> str:
    """``LLRC 20 %``; the dense model and formats alone without a rate, a plan with formats by its bytes."""
    name = label(str(row["method"]))
    if not compresses(row):
        return name
    share = share_of(row) if row.get("formats") else None  # its budget was one in bytes
    return f"{name} {removed(float(row['keep_target']))}" if share is None else f"{name}, {percent(share)} of the bytes"
