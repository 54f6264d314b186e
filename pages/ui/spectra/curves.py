"""The spectra of the chosen layers on the Spectra page, with their references and neighbours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import streamlit as st

from lrc_core import words
from lrc_core.budget import break_even
from lrc_core.figures import common as figures
from lrc_core.figures.common import SpectrumCurve
from lrc_core.names import decomposition_label, model_label
from lrc_core.results.spectra import Spectra
from lrc_core.types import LinearShape
from pages.ui.shared import charting, forms, state
from pages.ui.shared.frame import empty
from pages.ui.spectra import chart, measures, sides
from pages.ui.spectra.chart import Spectrum, cut_in
from pages.ui.spectra.heatmap import layer_color
from pages.ui.spectra.look import LAYERS, MOST, REFERENCE, Look, chosen_layers
from pages.ui.spectra.sides import layer_label

SPECTRUM, SHOWN, LOG = "sp_spectrum", "sp_shown", "sp_log"


def spectrum(look: Look) -> None:
    """The chosen layers' spectra with the reading in words."""
    layers = _choose(look)
    if not layers:
        empty("No layer chosen", "Click a cell of the heatmap, or choose a layer above.", ":material/ads_click:")
        return
    side = look.side
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names = list(side.spectra.decompositions)
        alone = len(layers) == 1 and not look.reference and not look.beside
        labels = {name: decomposition_label(name) for name in names}
        key = f"{SHOWN}_{'one' if alone else side.decomposition}"
        shown = forms.several(st, "Show", labels, names if alone else [side.decomposition], key)
        log = st.toggle("Logarithmic", value=True, key=LOG, bind="query-params")
    shown = [name for name in names if name in shown] or [side.decomposition]
    curves = figures.curves_of(layers, side.spectra.values, shown) + _curves_beside(look, layers)
    rank = look.ranks[layers[-1].name]
    sentences = [
        measures.spectrum_sentence(layer, side.sigmas[layer.name], decomposition_label(side.decomposition))
        for layer in layers
    ]
    chosen = [layer.name for layer in layers]
    said = charting.ChartText(
        " ".join(sentences), lambda: spectra_frame(side.spectra, chosen).reset_index(), "\n\n".join(sentences)
    )
    shown_now = Spectrum(
        curves,
        log=log,
        cut=rank if rank < break_even(layers[-1]) else None,
        with_layer=len(layers) > 1 or look.beside is not None,
        label=charting.without_marks(said.alt),
        file=f"{side.card.name}-spectrum",
        references=_references(look, layers),
        differences=_differences(look, curves),
    )
    chart.draw_spectra(shown_now, SPECTRUM, lambda: clicked_curve({layer.name: layer for layer in side.card.layers}))
    charting.below(said, SPECTRUM)


def _choose(look: Look) -> list[LinearShape]:
    """The box with the chosen layers, and the pin."""
    by_name = {layer.name: layer for layer in look.side.card.layers}
    # A click on the heatmap sets the value; a default beside a set value would make Streamlit warn.
    first = None if LAYERS in st.session_state else [layer.name for layer in chosen_layers(look)]
    if LAYERS in st.session_state:
        st.session_state[LAYERS] = [layer.name for layer in chosen_layers(look)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names = st.multiselect(
            "Layers",
            list(by_name),
            default=first,
            format_func=lambda name: layer_label(by_name[name]),
            max_selections=MOST,
            key=LAYERS,
            bind="query-params",
            help="Click a cell of the heatmap, or choose up to six here to lay them over each other.",
        )
        chosen = [by_name[name] for name in names if name in by_name][:MOST]
        if look.reference is not None:
            st.button("Unpin", icon=":material/keep_off:", on_click=_pin, args=("",), key="sp_unpin")
        elif chosen:
            last = chosen[-1]
            label = f"Pin {last.block} {words.short_kind(last.kind)}"
            st.button(label, icon=":material/keep:", on_click=_pin, args=(last.name,), key="sp_pin")
    return chosen


def _pin(name: str) -> None:
    st.session_state[REFERENCE] = name


def clicked_curve(names: Mapping[str, LinearShape]) -> None:
    """A click on a curve: its layer comes to the front in the heatmap, and every layer is cut at the same share."""
    name, direction = cut_in(SPECTRUM)
    if name not in names:
        return
    others = [other for other in st.session_state.get(LAYERS) or [] if other != name]
    st.session_state[LAYERS] = [*others, name][-MOST:]
    st.session_state[state.RATE] = sides.cut_at(names[name], direction)


def _curves_beside(look: Look, layers: list[LinearShape]) -> list[SpectrumCurve]:
    """The same layers of the other side, dashed."""
    if look.beside is None:
        return []
    mates = sides.matched(look.side.card, look.beside.card)
    theirs = {layer.name: layer for layer in look.beside.card.layers}
    source = "" if look.beside.view.id == look.side.view.id else model_label(look.beside.view.spec.model)
    return [
        SpectrumCurve(
            theirs[mates[layer.name]],
            look.beside.decomposition,
            look.beside.sigmas[mates[layer.name]],
            "#5c6867" if len(layers) == 1 else layer_color(number, len(layers)),
            "dash",
            source,
        )
        for number, layer in enumerate(layers)
        if layer.name in mates
    ]


def _references(look: Look, layers: list[LinearShape]) -> list[SpectrumCurve]:
    """Spectra of the reference: the pinned layer's once, or a run's of each layer."""
    reference = look.reference
    if reference is None:
        return []
    by_name = {layer.name: layer for layer in look.side.card.layers}
    drawn = [by_name[reference.cell]] if reference.cell else layers
    return [
        SpectrumCurve(layer, look.side.decomposition, reference.sigmas[layer.name], "#8a9593", "dot")
        for layer in drawn
        if layer.name in reference.sigmas
    ]


def _differences(look: Look, curves: list[SpectrumCurve]) -> list[np.ndarray]:
    if look.reference is None or any(curve.layer.name not in look.reference.sigmas for curve in curves):
        return []
    return [
        sides.energy_difference(curve.sigma, look.reference.sigmas[curve.layer.name]) for curve in curves
    ]  # fmt: skip


def spectra_frame(spectra: Spectra, chosen: list[str]) -> pd.DataFrame:
    """The chosen layers' singular values, one column for each layer and decomposition."""
    columns = {
        f"{layer} {name}": pd.Series(values[layer], index=range(1, len(values[layer]) + 1))
        for name, values in spectra.values.items()
        for layer in chosen
    }
    return pd.DataFrame(columns).rename_axis("direction")
