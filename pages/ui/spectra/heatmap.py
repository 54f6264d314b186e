"""The heatmaps of the Spectra page: clicked on, walked over, pinned, side by side on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import streamlit as st

from lrc_core.escape import escaped
from lrc_core.figures.common import LAYER_COLORS, Scale
from lrc_core.names import decomposition_label
from pages.ui.shared.cellgrid import OUTLINE, Grid, Limits, cell_grid, limits_of, picked_in, pinned_in, written
from pages.ui.shared.frame import empty
from pages.ui.spectra import measures, sides
from pages.ui.spectra.look import FIND, LAYERS, MOST, REFERENCE, Look, chosen_layers, ranks_at
from pages.ui.spectra.sides import Side

CHART, CHART_BESIDE = "sp_heatmap", "sp_heatmap_beside"


@dataclass(frozen=True)
class SpectraHeatmap:
    """A heatmap's figures, ready to draw: differences where there is a reference."""

    values: Mapping[str, float]
    words: Mapping[str, str]
    scale: Scale
    doubts: Mapping[str, str] = field(default_factory=dict)


def spectra_heatmap(side: Side, look: Look) -> SpectraHeatmap:
    """What one heatmap shows of a side."""
    values, sentences, doubts = sides.measure_side(side, look.measure, ranks_at(side, look))
    scale = measures.MEASURES[look.measure].scale
    lines = {
        layer.name: f"Block {layer.block} {layer.kind}\n{sentences[layer.name]}"
        for layer in side.card.layers
        if layer.name in sentences
    }
    if look.reference is None:
        return SpectraHeatmap(values, lines, scale, doubts)
    mates = sides.matched(side.card, look.side.card)
    reference = replace(
        look.reference,
        values={
            name: look.reference.values[mate] for name, mate in mates.items() if mate in look.reference.values
        },
    )  # fmt: skip
    if look.reference.cell:
        value = look.reference.values[look.reference.cell]
        reference = replace(look.reference, values=dict.fromkeys(values, value))
    apart, scale = sides.difference(look.measure, values, reference)
    lines = {
        name: f"{line}\n{written(apart[name], scale, '+')} against {reference.label}" for name, line in lines.items()
    }
    return SpectraHeatmap(apart, lines, scale, doubts)


def shared_limits(look: Look, heats: list[SpectraHeatmap]) -> Limits:
    """One scale for all heatmaps of a look."""
    every = [value for heat in heats for value in heat.values.values()]
    if look.reference is not None:
        return limits_of(every, diverging=True)
    return limits_of(every, log=measures.MEASURES[look.measure].log)


def draw_heatmap(look: Look) -> None:
    """The heatmap that is clicked on, walked over and pinned."""
    heats = [spectra_heatmap(look.side, look)]
    if look.beside and look.measure in sides.measures_for(look.beside):
        heats.append(spectra_heatmap(look.beside, look))
    _one_heatmap(look, look.side, heats[0], shared_limits(look, heats), CHART)


def heatmap_beside(look: Look) -> None:
    """The other heatmap, on the same scale."""
    assert look.beside is not None
    if look.measure not in sides.measures_for(look.beside):
        empty("Nothing to show", f"{look.beside.label} has no figures of this measure.", ":material/grid_off:")
        return
    heats = [spectra_heatmap(look.side, look), spectra_heatmap(look.beside, look)]
    _one_heatmap(look, look.beside, heats[1], shared_limits(look, heats), CHART_BESIDE)


def _one_heatmap(look: Look, side: Side, heat: SpectraHeatmap, limits: Limits, key: str) -> None:
    entry, card = measures.MEASURES[look.measure], side.card
    chosen = chosen_layers(look)
    colors = {layer.name: layer_color(number, len(chosen)) for number, layer in enumerate(chosen)}
    found = look.found
    if side is not look.side:
        mates = sides.matched(card, look.side.card)
        colors = {name: colors[mate] for name, mate in mates.items() if mate in colors}
        found = sides.search(card, str(st.session_state.get(FIND, ""))) if found is not None else None
    title = f"**{entry.label}**" + (f", difference to {escaped(look.reference.label)}" if look.reference else "")
    source = side.label if look.beside else decomposition_label(side.decomposition)
    st.markdown(f"{title}  \n:small[:gray[{escaped(source)}]]")
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


def _readings(look: Look, side: Side, heat: SpectraHeatmap) -> None:
    """What a heatmap says, in sentences computed from it."""
    if look.reference is not None:
        sign = lambda value: written(value, heat.scale, "+")  # noqa: E731
        st.caption(sides.spread_words(list(heat.values.values()), sign, escaped(look.reference.label)))
    else:
        unit = "of " + heat.scale.title.split(" of ", 1)[1] if " of " in heat.scale.title else ""
        st.caption(
            sides.heat_reading(side.card, heat.values, lambda value: written(value, heat.scale), unit)
        )  # fmt: skip
    if look.found is not None:
        st.caption(f":material/search: {len(look.found)} of {len(look.side.card.layers)} layers fit the search.")
    if heat.doubts:
        reason = max(set(heat.doubts.values()), key=list(heat.doubts.values()).count)
        st.caption(
            f":material/warning: Poor fit in {len(heat.doubts)} of {len(side.card.layers)} layers, marked ?: "
            f"{reason} most often. Their exponent should not be read."
        )


def layer_color(number: int, count: int) -> str:
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
