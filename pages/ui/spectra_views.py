"""The views of the Spectra page: heatmaps, spectra, tables; all of them draw one :class:`Look`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import streamlit as st

from lrc_core.budget import break_even
from lrc_core.types import LinearShape, ModelCard
from pages.ui import charting, data, figures, hero, measures, spectra_data, state, words
from pages.ui.cellgrid import OUTLINE, Grid, Limits, cell_grid, limits_of, picked_in, pinned_in, written
from pages.ui.figures import LAYER_COLORS, Curve, Scale
from pages.ui.frame import empty
from pages.ui.methods import decomposition_label
from pages.ui.spectra_data import Reference, Side, layer_label

LAYERS, SHOWN, LOG, REFERENCE, BESIDE, FIND = "sp_layers", "sp_shown", "sp_log", "sp_ref", "sp_beside", "sp_find"
CHART, CHART_BESIDE, SPECTRUM, TABLE = "sp_heatmap", "sp_heatmap_beside", "sp_spectrum", "sp_table"
MOST = 6


@dataclass(frozen=True)
class Look:
    """What the page shows.

    Attributes:
        side: the spectra.
        measure: of the heatmap.
        compression: of the slider.
        ranks: that the current cut leaves.
        reference: what everything is compared with.
        beside: other spectra on the same scale.
        found: layers that the search found, None where nothing is searched.
    """

    side: Side
    measure: str
    compression: float
    ranks: Mapping[str, int]
    reference: Reference | None = None
    beside: Side | None = None
    found: list[str] | None = None


@dataclass(frozen=True)
class Heat:
    """A heatmap's figures, ready to draw: differences where there is a reference."""

    values: Mapping[str, float]
    words: Mapping[str, str]
    scale: Scale
    doubts: Mapping[str, str] = field(default_factory=dict)


def compared(look: Look, places: Sequence[Any]) -> Look:
    """A look with its reference, its neighbour and its search, from widgets in three places."""
    side, layers = look.side, look.side.card.layers
    others = spectra_data.other_sides(side)
    cells = {layer.name: f"Cell {layer_label(layer)}" for layer in layers}
    options = {"": "Nothing", **{key: f"Run: {label}" for key, label in others.items()}, **cells}
    picked = places[0].selectbox(
        "Show the difference to",
        list(options),
        format_func=lambda key: options[key],
        key=REFERENCE,
        bind="query-params",
        help="A pinned cell, or a whole run. P pins the cell under the cursor; type here to search.",
    )
    beside = places[1].selectbox(
        "Beside it",
        ["", *others],
        format_func=lambda key: others.get(key, "Nothing"),
        key=BESIDE,
        bind="query-params",
        help="Another decomposition or another model, on the same scale of colours.",
    )
    text = places[2].text_input(
        "Find a layer",
        placeholder="down_proj, or 7 mlp",
        key=FIND,
        bind="query-params",
        help="Words of the layer's name and block numbers; what does not fit fades.",
    )
    look = replace(look, found=spectra_data.search(side.card, text))
    if beside in others:
        look = replace(look, beside=spectra_data.side_of(beside))
    if picked in cells:
        values, _, _ = spectra_data.measure_side(side, look.measure, look.ranks)
        return replace(look, reference=spectra_data.cell_reference(side, picked, values))
    other = spectra_data.side_of(picked) if picked in others else None
    if other is not None and look.measure in spectra_data.measures_for(other):
        values, _, _ = spectra_data.measure_side(other, look.measure, ranks_at(other, look))
        return replace(look, reference=spectra_data.run_reference(side, other, values))
    if picked in others:
        st.caption(f":material/info: {others[picked]} has no figures of this measure to compare with.")
    return look


def ranks_at(side: Side, look: Look) -> Mapping[str, int]:
    """The current cut on another side: the same ranks on the same model, else the uniform rule at the same rate."""
    names = {layer.name for layer in side.card.layers}
    same = side.card.layers == look.side.card.layers and names <= set(look.ranks)
    return look.ranks if same else spectra_data.uniform_ranks(side.card.layers, 1 - look.compression)


def heat_of(side: Side, look: Look) -> Heat:
    """What one heatmap shows of a side."""
    values, told, doubts = spectra_data.measure_side(side, look.measure, ranks_at(side, look))
    scale = measures.MEASURES[look.measure].scale
    lines = {
        layer.name: f"Block {layer.block} {layer.kind}\n{told[layer.name]}"
        for layer in side.card.layers
        if layer.name in told
    }
    if look.reference is None:
        return Heat(values, lines, scale, doubts)
    mates = spectra_data.matched(side.card, look.side.card)
    reference = replace(
        look.reference,
        values={
            name: look.reference.values[mate] for name, mate in mates.items() if mate in look.reference.values
        },
    )  # fmt: skip
    if look.reference.cell:
        value = look.reference.values[look.reference.cell]
        reference = replace(look.reference, values=dict.fromkeys(values, value))
    apart, scale = spectra_data.difference(look.measure, values, reference)
    lines = {
        name: f"{line}\n{written(apart[name], scale, '+')} against {reference.label}" for name, line in lines.items()
    }
    return Heat(apart, lines, scale, doubts)


def shared_limits(look: Look, heats: list[Heat]) -> Limits:
    """One scale for all heatmaps of a look."""
    every = [value for heat in heats for value in heat.values.values()]
    if look.reference is not None:
        return limits_of(every, diverging=True)
    return limits_of(every, log=measures.MEASURES[look.measure].log)


def heatmap(look: Look) -> None:
    """The heatmap that is clicked on, walked over and pinned."""
    heats = [heat_of(look.side, look)]
    if look.beside and look.measure in spectra_data.measures_for(look.beside):
        heats.append(heat_of(look.beside, look))
    _one_heatmap(look, look.side, heats[0], shared_limits(look, heats), CHART)


def heatmap_beside(look: Look) -> None:
    """The other heatmap, on the same scale."""
    assert look.beside is not None
    if look.measure not in spectra_data.measures_for(look.beside):
        empty("Nothing to show", f"{look.beside.label} has no figures of this measure.", ":material/grid_off:")
        return
    heats = [heat_of(look.side, look), heat_of(look.beside, look)]
    _one_heatmap(look, look.beside, heats[1], shared_limits(look, heats), CHART_BESIDE)


def _one_heatmap(look: Look, side: Side, heat: Heat, limits: Limits, key: str) -> None:
    entry, card = measures.MEASURES[look.measure], side.card
    chosen = chosen_layers(look)
    colors = {layer.name: color_of(number, len(chosen)) for number, layer in enumerate(chosen)}
    found = look.found
    if side is not look.side:
        mates = spectra_data.matched(card, look.side.card)
        colors = {name: colors[mate] for name, mate in mates.items() if mate in colors}
        found = spectra_data.search(card, str(st.session_state.get(FIND, ""))) if found is not None else None
    title = f"**{entry.label}**" + (f", difference to {look.reference.label}" if look.reference else "")
    source = side.label if look.beside else decomposition_label(side.decomposition)
    st.markdown(f"{title}  \n:small[:gray[{source}]]")
    grid = Grid(
        card=card,
        values=heat.values,
        words=heat.words,
        scale=heat.scale,
        limits=limits,
        label=f"{entry.label} of {len(card.layers)} layers, {source}",
        name=f"{card.name}-{look.measure}-{side.decomposition}",
        chosen=colors,
        pinned=look.reference.cell if look.reference and side is look.side else "",
        pins=side is look.side,
        found=found,
        marks=dict.fromkeys(heat.doubts, "?"),
    )
    cell_grid(grid, key, lambda: picked(key), lambda: pinned(key))
    _readings(look, side, heat)


def _readings(look: Look, side: Side, heat: Heat) -> None:
    """What a heatmap says, in sentences computed from it."""
    if look.reference is not None:
        sign = lambda value: written(value, heat.scale, "+")  # noqa: E731
        st.caption(spectra_data.spread_words(list(heat.values.values()), sign, look.reference.label))
    else:
        unit = "of " + heat.scale.title.split(" of ", 1)[1] if " of " in heat.scale.title else ""
        st.caption(
            spectra_data.heat_reading(side.card, heat.values, lambda value: written(value, heat.scale), unit)
        )  # fmt: skip
    if look.found is not None:
        st.caption(f":material/search: {len(look.found)} of {len(look.side.card.layers)} layers fit the search.")
    if heat.doubts:
        reason = max(set(heat.doubts.values()), key=list(heat.doubts.values()).count)
        st.caption(
            f":material/warning: Poor fit in {len(heat.doubts)} of {len(side.card.layers)} layers, marked ?: "
            f"{reason} most often. Their exponent should not be read."
        )


def color_of(number: int, count: int) -> str:
    """Colour of a chosen layer's outline and curve; one layer's curves have their decompositions' colours."""
    return OUTLINE if count == 1 else LAYER_COLORS[number % len(LAYER_COLORS)]


def picked(key: str) -> None:
    """A click or a key on a heatmap chose a layer; Shift adds it to the others."""
    name, add = picked_in(key)
    if not name:
        return
    before = list(st.session_state.get(LAYERS) or []) if add else []
    if name in before:
        before.remove(name)
        st.session_state[LAYERS] = before or [name]
    else:
        st.session_state[LAYERS] = [*before, name][-MOST:]


def pinned(key: str) -> None:
    """The key P pinned a cell, or took the pin back."""
    name = pinned_in(key)
    if name is not None:
        st.session_state[REFERENCE] = name


def clicked_curve(names: Mapping[str, LinearShape]) -> None:
    """A click on a curve: its layer comes to the front in the heatmap, and every layer is cut at the same share."""
    points = st.session_state[SPECTRUM].selection.points
    if not points:
        return
    name = points[0].get("customdata")
    name = name[0] if isinstance(name, list) else name
    if name not in names:
        return
    others = [other for other in st.session_state.get(LAYERS) or [] if other != name]
    st.session_state[LAYERS] = [*others, name][-MOST:]
    st.session_state[state.RATE] = spectra_data.cut_at(names[name], int(points[0]["x"]))


def chosen_layers(look: Look) -> list[LinearShape]:
    """The layers whose spectra are drawn, the one in front last."""
    by_name = {layer.name: layer for layer in look.side.card.layers}
    if LAYERS not in st.session_state:
        return [hero.example_layer(look.side.spectra, look.side.decomposition)]
    mates = {} if not look.beside else spectra_data.matched(look.beside.card, look.side.card)
    names = [mates.get(name, name) for name in st.session_state[LAYERS] or []]
    return [by_name[name] for name in dict.fromkeys(names) if name in by_name][:MOST]


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
        shown = st.pills(
            "Show",
            names,
            selection_mode="multi",
            default=names if alone else [side.decomposition],
            format_func=decomposition_label,
            key=f"{SHOWN}_{'one' if alone else side.decomposition}",
        )
        log = st.toggle("Logarithmic", value=True, key=LOG, bind="query-params")
    shown = [name for name in names if name in shown] or [side.decomposition]
    curves = figures.curves_of(layers, side.spectra.values, shown) + _curves_beside(look, layers)
    rank = look.ranks[layers[-1].name]
    figure = figures.spectrum_figure(
        curves,
        log=log,
        cut=rank if rank < break_even(layers[-1]) else None,
        with_layer=len(layers) > 1 or look.beside is not None,
        references=_references(look, layers),
        differences=_differences(look, curves),
    )
    told = [
        measures.reading(layer, side.sigmas[layer.name], decomposition_label(side.decomposition)) for layer in layers
    ]
    chosen = [layer.name for layer in layers]
    charting.plotly(
        figure,
        charting.Told(" ".join(told), lambda: spectra_frame(side.spectra, chosen).reset_index(), "\n\n".join(told)),
        key=SPECTRUM,
        name=f"{side.card.name}-spectrum",
        on_select=lambda: clicked_curve({layer.name: layer for layer in side.card.layers}),
    )


def _curves_beside(look: Look, layers: list[LinearShape]) -> list[Curve]:
    """The same layers of the other side, dashed."""
    if look.beside is None:
        return []
    mates = spectra_data.matched(look.side.card, look.beside.card)
    theirs = {layer.name: layer for layer in look.beside.card.layers}
    source = "" if look.beside.view.id == look.side.view.id else state.model_label(look.beside.view.spec.model)
    return [
        Curve(
            theirs[mates[layer.name]],
            look.beside.decomposition,
            look.beside.sigmas[mates[layer.name]],
            "#5c6867" if len(layers) == 1 else color_of(number, len(layers)),
            "dash",
            source,
        )
        for number, layer in enumerate(layers)
        if layer.name in mates
    ]


def _references(look: Look, layers: list[LinearShape]) -> list[Curve]:
    """Spectra of the reference: the pinned layer's once, or a run's of each layer."""
    reference = look.reference
    if reference is None:
        return []
    by_name = {layer.name: layer for layer in look.side.card.layers}
    drawn = [by_name[reference.cell]] if reference.cell else layers
    return [
        Curve(layer, look.side.decomposition, reference.sigmas[layer.name], "#8a9593", "dot")
        for layer in drawn
        if layer.name in reference.sigmas
    ]


def _differences(look: Look, curves: list[Curve]) -> list:
    if look.reference is None or any(curve.layer.name not in look.reference.sigmas for curve in curves):
        return []
    return [
        spectra_data.energy_difference(curve.sigma, look.reference.sigmas[curve.layer.name]) for curve in curves
    ]  # fmt: skip


def measure_frame(look: Look) -> pd.DataFrame:
    """Every measure of every layer as a table, ranks as figures beside their break-even."""
    card: ModelCard = look.side.card
    keys = [key for key in spectra_data.measures_for(look.side) if key not in ("alpha", "r90", "r95", "r99")]
    table = {key: spectra_data.measure_side(look.side, key, look.ranks)[0] for key in keys}
    ranks = {key: spectra_data.measure_side(look.side, key, look.ranks)[0] for key in ("r90", "r95", "r99")}
    effective = table.pop("effective")
    columns: dict[str, list] = {
        "layer": [layer.name for layer in card.layers],
        "block": [layer.block for layer in card.layers],
        "kind": [layer.kind for layer in card.layers],
        "rows": [layer.out_features for layer in card.layers],
        "columns": [layer.in_features for layer in card.layers],
        "break_even_rank": [round(break_even(layer), 1) for layer in card.layers],
        "cut_rank": [look.ranks[layer.name] for layer in card.layers],
        "effective_rank": [effective[layer.name] * layer.full_rank for layer in card.layers],
    }
    for key, values in ranks.items():
        columns[f"rank_{key[1:]}"] = [round(values[layer.name] * break_even(layer)) for layer in card.layers]
    for key, values in table.items():
        columns[_COLUMNS.get(key, key)] = [values.get(layer.name, math.nan) for layer in card.layers]
    if look.measure == "alpha":
        values, _, doubts = spectra_data.measure_side(look.side, "alpha", look.ranks)
        columns["power_law_exponent"] = [values[layer.name] for layer in card.layers]
        columns["power_law_doubt"] = [doubts.get(layer.name, "") for layer in card.layers]
    if look.reference is not None:
        heat = heat_of(look.side, look)
        columns[f"difference of {look.measure}"] = [heat.values.get(layer.name, math.nan) for layer in card.layers]
    return pd.DataFrame(columns)


_COLUMNS = {
    "stable": "stable_rank",
    "kept": "energy_kept",
    "discarded": "output_energy_discarded",
    "condition": "condition_number",
    "inputs": "overlap_inputs",
    "outputs": "overlap_outputs",
}


def spectra_frame(spectra: data.Spectra, chosen: list[str]) -> pd.DataFrame:
    """The chosen layers' singular values, one column for each layer and decomposition."""
    columns = {
        f"{layer} {name}": pd.Series(values[layer], index=range(1, len(values[layer]) + 1))
        for name, values in spectra.values.items()
        for layer in chosen
    }
    return pd.DataFrame(columns).rename_axis("direction")


def tables(look: Look) -> None:
    """The figures behind the picture: as a table for every reader, as CSV for every program."""
    chosen = [layer.name for layer in chosen_layers(look)]
    card, decomposition = look.side.card, look.side.decomposition
    with st.container(horizontal=True):
        st.download_button(
            "All measures (CSV)",
            lambda: measure_frame(look).to_csv(index=False),
            f"{card.name}-measures-{decomposition}.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
        )
        st.download_button(
            "Chosen spectra (CSV)",
            lambda: spectra_frame(look.side.spectra, chosen).to_csv(),
            f"{card.name}-spectra.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            disabled=not chosen,
        )
    table = st.expander("The same as a table", icon=":material/table_chart:", key=TABLE, bind="query-params")
    if table.open:  # else every click on a cell would wait for it
        table.dataframe(
            measure_frame(look), hide_index=True, alt=f"Measures of every layer, {decomposition}", height=380
        )
    with st.expander("What the measures mean", icon=":material/help:"):
        st.markdown(words.prose("measures"))
