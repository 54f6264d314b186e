"""``plot``: the app's figures of a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from lrc_core.api.compare import ComparedMethods
from lrc_core.api.evaluate import Evaluation
from lrc_core.api.plan import ChosenPlan
from lrc_core.api.spectra import LayerSpectra
from lrc_core.charts.film import film_of
from lrc_core.errors import RunError, SettingsError
from lrc_core.escape import in_plotly
from lrc_core.figures.common import curves_of
from lrc_core.figures.measured import perplexity_by_method, perplexity_curves, speed_bars, zero_shot_bars
from lrc_core.figures.ranks import rank_figure
from lrc_core.figures.spectra import spectrum_figure
from lrc_core.figures.training import training_figure
from lrc_core.names import method_label
from lrc_core.plan import plan_variant
from lrc_core.words import percent

Shown = LayerSpectra | ChosenPlan | ComparedMethods | Evaluation | Sequence[Evaluation]
VIEWS = {
    LayerSpectra: ("spectra",),
    ChosenPlan: ("ranks", "training"),
    ComparedMethods: ("curves", "perplexity", "accuracy", "speed"),
}
"""What can be drawn of each result, the usual one first."""


def plot(shown: Shown, view: str = "", *, layers: Sequence[str] = (), log: bool = True) -> go.Figure:
    """A Plotly figure of a result.

    Args:
        shown: of ``spectra``: values and energy over directions. Of a plan: ``ranks`` as a heatmap, or ``training``
            where its method learns. Of a comparison, a measurement or several: ``curves`` of perplexity over size,
            bars of ``perplexity``, ``accuracy`` or ``speed``.
        view: which; the first of these by default.
        layers: of spectra: full names of layers; the first of the model by default.
        log: logarithmic axes for singular values and perplexities.

    Raises:
        SettingsError: there is no such view or layer.
        RunError: nothing was recorded to draw.
    """
    kind = next((known for known in VIEWS if isinstance(shown, known)), ComparedMethods)
    view = view or VIEWS[kind][0]
    if view not in VIEWS[kind]:
        raise SettingsError(f"There is no view {view!r} of this.", f"Choose one of {', '.join(VIEWS[kind])}.")
    if isinstance(shown, LayerSpectra):
        figure = _spectra_figure(shown, layers, log)
    elif isinstance(shown, ChosenPlan):
        figure = _plan_figure(shown, view)
    else:
        figure = _measured_figure(_rows(shown), view, log)
    return go.Figure(in_plotly(figure.to_dict()))


def _spectra_figure(shown: LayerSpectra, names: Sequence[str], log: bool) -> go.Figure:
    by_name = {layer.name: layer for layer in shown.found.card.layers}
    chosen = [names] if isinstance(names, str) else list(names) or list(by_name)[:1]
    for name in chosen:
        if name not in by_name:
            raise SettingsError(f"There is no layer {name!r}.", f"A layer is called {next(iter(by_name))}.")
    layers = [by_name[name] for name in chosen]
    return spectrum_figure(curves_of(layers, shown.found.values, shown.decompositions), log=log)


def _plan_figure(shown: ChosenPlan, view: str) -> go.Figure:
    if view == "ranks":
        title = f"{method_label(plan_variant(shown.plan))}, {percent(shown.keep)} kept"
        return rank_figure(shown.card, shown.plan, title)
    if shown.run is None:
        raise RunError("This plan comes from no run, so no training was recorded.")
    return training_figure(film_of(shown.run))


def _rows(shown: Any) -> list[Any]:
    if isinstance(shown, ComparedMethods):
        return shown.rows
    return [one.row for one in ([shown] if isinstance(shown, Evaluation) else shown)]


def _measured_figure(rows: list[Any], view: str, log: bool) -> go.Figure:
    if view == "curves":
        return perplexity_curves(rows, log=log)
    if view == "perplexity":
        return perplexity_by_method(rows)
    return speed_bars(rows) if view == "speed" else zero_shot_bars(rows, "acc_norm")
