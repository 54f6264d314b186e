"""What the Spectra page looks at: one :class:`Look`, and the widgets that make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from lrc_core.budget import uniform_ranks
from lrc_core.escape import escaped
from lrc_core.types import LinearShape
from pages.ui.shared import forms, summary
from pages.ui.spectra import sides
from pages.ui.spectra.sides import Reference, Side, layer_label

LAYERS, REFERENCE, BESIDE, FIND = "sp_layers", "sp_ref", "sp_beside", "sp_find"
MOST = 6
"""Layers whose spectra are drawn over each other."""


@dataclass(frozen=True)
class Look:
    """What the page shows.

    Attributes:
        side: the spectra.
        measure: of the heatmap.
        keep: share kept, of the slider.
        ranks: that the current cut leaves.
        reference: what everything is compared with.
        beside: other spectra on the same scale.
        found: layers that the search found, None where nothing is searched.
    """

    side: Side
    measure: str
    keep: float
    ranks: Mapping[str, int]
    reference: Reference | None = None
    beside: Side | None = None
    found: list[str] | None = None


def compared(look: Look, places: Sequence[Any]) -> Look:
    """A look with its reference, its neighbour and its search, from widgets in three places."""
    side, layers = look.side, look.side.card.layers
    others = sides.other_sides(side)
    cells = {layer.name: f"Cell {layer_label(layer)}" for layer in layers}
    options = {"": "Nothing", **{key: f"Run: {label}" for key, label in others.items()}, **cells}
    picked = forms.one_of(
        places[0],
        "Show the difference to",
        options,
        REFERENCE,
        bind="query-params",
        help="A pinned cell, or a whole run. P pins the cell under the cursor; type here to search.",
    )
    beside = forms.one_of(
        places[1],
        "Beside it",
        {"": "Nothing", **others},
        BESIDE,
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
    look = replace(look, found=sides.search(side.card, text))
    if beside in others:
        look = replace(look, beside=sides.side_of(beside))
    if picked in cells:
        values, _, _ = sides.measure_side(side, look.measure, look.ranks)
        return replace(look, reference=sides.cell_reference(side, picked, values))
    other = sides.side_of(picked) if picked in others else None
    if other is not None and look.measure in sides.measures_for(other):
        values, _, _ = sides.measure_side(other, look.measure, ranks_at(other, look))
        return replace(look, reference=sides.run_reference(side, other, values))
    if picked in others:
        st.caption(f":material/info: {escaped(others[picked])} has no figures of this measure to compare with.")
    return look


def ranks_at(side: Side, look: Look) -> Mapping[str, int]:
    """The current cut on another side: the same ranks on the same model, else the uniform rule at the same size."""
    names = {layer.name for layer in side.card.layers}
    same = side.card.layers == look.side.card.layers and names <= set(look.ranks)
    return look.ranks if same else uniform_ranks(side.card.layers, look.keep)


def chosen_layers(look: Look) -> list[LinearShape]:
    """The layers whose spectra are drawn, the one in front last."""
    by_name = {layer.name: layer for layer in look.side.card.layers}
    if LAYERS not in st.session_state:
        return [summary.example_of(look.side)]
    mates = {} if not look.beside else sides.matched(look.beside.card, look.side.card)
    names = [mates.get(name, name) for name in st.session_state[LAYERS] or []]
    return [by_name[name] for name in dict.fromkeys(names) if name in by_name][:MOST]
