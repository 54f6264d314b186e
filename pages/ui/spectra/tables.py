"""The figures behind the Spectra page: as a table for every reader, as CSV for every program."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import streamlit as st

from lrc_core.budget import break_even
from lrc_core.escape import csv_cell
from lrc_core.names import decomposition_label
from lrc_core.types import ModelCard
from pages.ui.shared.naming import download, file_name
from pages.ui.shared.prose import prose
from pages.ui.spectra import sides
from pages.ui.spectra.curves import spectra_frame
from pages.ui.spectra.heatmap import spectra_heatmap
from pages.ui.spectra.look import Look, chosen_layers

TABLE = "sp_table"
_COLUMNS = {
    "stable": "stable_rank",
    "kept": "energy_kept",
    "discarded": "output_energy_discarded",
    "condition": "condition_number",
    "inputs": "overlap_inputs",
    "outputs": "overlap_outputs",
}


def measure_frame(look: Look) -> pd.DataFrame:
    """Every measure of every layer as a table, ranks as figures beside their break-even."""
    card: ModelCard = look.side.card
    keys = [key for key in sides.measures_for(look.side) if key not in ("alpha", "r90", "r95", "r99")]
    table = {key: sides.measure_side(look.side, key, look.ranks)[0] for key in keys}
    ranks = {key: sides.measure_side(look.side, key, look.ranks)[0] for key in ("r90", "r95", "r99")}
    effective = table.pop("effective")
    columns: dict[str, list[Any]] = {
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
        values, _, doubts = sides.measure_side(look.side, "alpha", look.ranks)
        columns["power_law_exponent"] = [values[layer.name] for layer in card.layers]
        columns["power_law_doubt"] = [doubts.get(layer.name, "") for layer in card.layers]
    if look.reference is not None:
        heat = spectra_heatmap(look.side, look)
        columns[f"difference of {look.measure}"] = [heat.values.get(layer.name, math.nan) for layer in card.layers]
    return pd.DataFrame(columns)


def tables(look: Look) -> None:
    """The figures behind the picture: as a table for every reader, as CSV for every program."""
    chosen = [layer.name for layer in chosen_layers(look)]
    card, decomposition = look.side.card, look.side.decomposition
    with st.container(horizontal=True):
        download(
            "All measures (CSV)",
            lambda: measure_frame(look).map(csv_cell).to_csv(index=False),
            file_name(card.name, "measures of every layer", decomposition_label(decomposition), ending="csv"),
        )
        download(
            "Chosen spectra (CSV)",
            lambda: spectra_frame(look.side.spectra, chosen).to_csv(),
            file_name(card.name, "spectra", *chosen[:3], ending="csv"),
            disabled=not chosen,
        )
    table = st.expander("The same as a table", icon=":material/table_chart:", key=TABLE, bind="query-params")
    if table.open:  # else every click on a cell would wait for it
        table.dataframe(
            measure_frame(look), hide_index=True, alt=f"Measures of every layer, {decomposition}", height=380
        )
    with st.expander("What the measures mean", icon=":material/help:"):
        st.markdown(prose("measures"))
