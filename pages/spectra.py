"""Spectra: where each layer's information lives."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from lrc_core.budget import break_even, uniform_ranks
from lrc_core.runs.spec import ModelRef
from lrc_core.types import LinearShape, ModelCard
from pages.ui import cards, data, figures, hero, jobs, measures, state, words
from pages.ui.frame import empty, frame, guard, page_link, sample_note
from pages.ui.methods import decomposition_label

MEASURE, DECOMPOSITION, LAYERS, SHOWN, LOG = "sp_measure", "sp_decomposition", "sp_layers", "sp_shown", "sp_log"
CHART = "sp_heatmap"


def layer_label(layer: LinearShape) -> str:
    return f"{layer.block} {layer.kind}"


def nothing_yet(ref: ModelRef) -> None:
    """No spectra: the job that is under way, or the button that starts it."""
    views = data.all_runs(ref, "spectra", samples=False)
    if views:
        jobs.panel(views[0].id)
        if not views[0].final:
            st.caption("The spectra appear here by themselves when the job has finished.")
        return
    empty(
        "No spectra of this model yet",
        "A background job decomposes every linear layer of its blocks. It goes on when this tab is closed.",
        ":material/grid_on:",
    )
    cards.fetch_button(ref)
    if ref.source != "starter" and data.best_spectra(ModelRef()):
        page_link(
            "pages/spectra.py", "Look at the starter model meanwhile", ":material/star:", query={"model": "starter"}
        )


def controls(spectra: data.Spectra) -> tuple[str, str, float]:
    """Measure, decomposition and compression of the heatmap."""
    left, middle, right = st.columns([3, 4, 3], vertical_alignment="top")
    measure = left.selectbox(
        "Measure",
        list(measures.MEASURES),
        index=list(measures.MEASURES).index("r95"),
        format_func=lambda key: measures.MEASURES[key].label,
        key=MEASURE,
        bind="query-params",
    )
    names = list(spectra.decompositions)
    decomposition = middle.segmented_control(
        "Decomposition",
        names,
        default="whitened" if "whitened" in names else names[0],
        format_func=decomposition_label,
        required=True,
        key=DECOMPOSITION,
        bind="query-params",
    )
    rate = right.slider(
        "Compression",
        1,
        state.LARGEST_RATE,
        state.DEFAULT_RATE,
        format="%d %%",
        key=state.RATE,
        bind="query-params",
        help="Marks the uniform cut in the spectrum, and drives the measure “energy kept”.",
    )
    return measure, decomposition or names[0], min(max(int(rate), 1), state.LARGEST_RATE) / 100


@st.cache_data(max_entries=24, show_spinner="Measuring …")
def measure_table(
    run_id: str, stamp: tuple[int, int], decomposition: str, compression: float
) -> dict[str, dict[str, float]]:
    view = data.open_run(run_id)
    assert view is not None
    spectra = data.spectra_of(view)
    return measures.table(spectra.card, spectra.values[decomposition], compression)


def clicked() -> None:
    """A click on the heatmap chooses the layers that the panel shows; shift-click adds one."""
    points = st.session_state[CHART].selection.points
    names = [point["customdata"] for point in points if point.get("customdata")]
    names = [name[0] if isinstance(name, list) else name for name in names]
    if names:
        st.session_state[LAYERS] = names[-6:]


def heatmap(
    spectra: data.Spectra, measure: str, decomposition: str, values: dict[str, float], chosen: list[str]
) -> None:
    """The heatmap that is clicked on."""
    card, sigmas = spectra.card, spectra.values[decomposition]
    entry = measures.MEASURES[measure]
    hover = {
        layer.name: f"<b>{layer_label(layer)}</b><br>{entry.words(layer, sigmas[layer.name], values[layer.name])}"
        for layer in card.layers
    }
    figure = figures.layer_heatmap(card, values, entry.scale, hover, chosen)
    lowest = min(card.layers, key=lambda layer: values[layer.name])
    highest = max(card.layers, key=lambda layer: values[layer.name])
    st.markdown(f"**{entry.label}**, {decomposition_label(decomposition)}")
    st.plotly_chart(
        figure,
        key=CHART,
        on_select=clicked,
        selection_mode="points",
        config=figures.config(f"{card.name}-{measure}-{decomposition}"),
        alt=f"{entry.label} of {len(card.layers)} layers: lowest in {layer_label(lowest)}, "
        f"highest in {layer_label(highest)}",
    )


def choose_layers(spectra: data.Spectra, decomposition: str) -> list[str]:
    """The layers whose spectra are drawn, by name."""
    by_name = {layer.name: layer for layer in spectra.card.layers}
    # A click on the heatmap sets the value; a default beside a set value would make Streamlit warn.
    first = None if LAYERS in st.session_state else [hero.example_layer(spectra, decomposition).name]
    chosen = st.multiselect(
        "Layers",
        list(by_name),
        default=first,
        format_func=lambda name: layer_label(by_name[name]),
        max_selections=6,
        key=LAYERS,
        bind="query-params",
        help="Click a cell of the heatmap, or choose up to six here to lay them over each other.",
    )
    return [name for name in chosen if name in by_name][:6]


def spectrum(spectra: data.Spectra, chosen: list[str], decomposition: str, compression: float) -> None:
    """The chosen layers' spectra with the reading in words."""
    layers = [layer for layer in spectra.card.layers if layer.name in chosen]
    if not layers:
        empty("No layer chosen", "Click a cell of the heatmap, or choose a layer above.", ":material/ads_click:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        shown = st.pills(
            "Show",
            list(spectra.decompositions),
            selection_mode="multi",
            default=list(spectra.decompositions) if len(layers) == 1 else [decomposition],
            format_func=decomposition_label,
            key=f"{SHOWN}_{'one' if len(layers) == 1 else 'many'}",
        )
        log = st.toggle("Logarithmic", value=True, key=LOG, bind="query-params")
    shown = [name for name in spectra.decompositions if name in shown] or [decomposition]
    ranks = uniform_ranks(spectra.card.layers, 1 - compression)
    cuts = {ranks[layer.name] for layer in layers}
    curves = figures.curves_of(layers, spectra.values, shown)
    figure = figures.spectrum_figure(
        curves, log=log, cut=cuts.pop() if len(cuts) == 1 else None, with_layer=len(layers) > 1
    )
    words_of = [
        measures.reading(layer, spectra.values[decomposition][layer.name], decomposition_label(decomposition))
        for layer in layers
    ]
    st.plotly_chart(
        figure,
        config=figures.config(f"{spectra.card.name}-spectrum"),
        alt=" ".join(sentence.replace("*", "").replace("`", "") for sentence in words_of),
    )
    for sentence in words_of:
        st.markdown(sentence)


def measure_frame(card: ModelCard, table: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Every measure of every layer as a table, ranks as figures beside their break-even."""
    return pd.DataFrame(
        {
            "layer": [layer.name for layer in card.layers],
            "block": [layer.block for layer in card.layers],
            "kind": [layer.kind for layer in card.layers],
            "rows": [layer.out_features for layer in card.layers],
            "columns": [layer.in_features for layer in card.layers],
            "break_even_rank": [round(break_even(layer), 1) for layer in card.layers],
            "effective_rank": [table["effective"][layer.name] * layer.full_rank for layer in card.layers],
            "stable_rank": [table["stable"][layer.name] for layer in card.layers],
            **{
                f"rank_{share}": [round(table[f"r{share}"][layer.name] * break_even(layer)) for layer in card.layers]
                for share in (90, 95, 99)
            },
            "energy_kept": [table["kept"][layer.name] for layer in card.layers],
        }
    )


def spectra_frame(spectra: data.Spectra, chosen: list[str]) -> pd.DataFrame:
    """The chosen layers' singular values, one column for each layer and decomposition."""
    columns = {
        f"{layer} {name}": pd.Series(values[layer], index=range(1, len(values[layer]) + 1))
        for name, values in spectra.values.items()
        for layer in chosen
    }
    return pd.DataFrame(columns).rename_axis("direction")


def downloads(spectra: data.Spectra, table: dict[str, dict[str, float]], chosen: list[str], decomposition: str) -> None:
    """The figures behind the picture: as a table for every reader, as CSV for every program."""
    frame_ = measure_frame(spectra.card, table)
    with st.container(horizontal=True):
        st.download_button(
            "All measures (CSV)",
            frame_.to_csv(index=False),
            f"{spectra.card.name}-measures-{decomposition}.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
        )
        st.download_button(
            "Chosen spectra (CSV)",
            spectra_frame(spectra, chosen).to_csv(),
            f"{spectra.card.name}-spectra.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            disabled=not chosen,
        )
        st.caption("PNG: the camera above each chart.")
    with st.expander("The same as a table", icon=":material/table_chart:"):
        st.dataframe(frame_, hide_index=True, alt=f"Measures of every layer, {decomposition}", height=380)
    with st.expander("What the measures mean", icon=":material/help:"):
        st.markdown(words.prose("measures"))


def body(ref: ModelRef) -> None:
    view = data.best_spectra(ref)
    if view is None:
        nothing_yet(ref)
        return
    spectra = data.spectra_of(view)
    st.markdown(words.prose("spectra"))
    measure, decomposition, compression = controls(spectra)
    left, right = st.columns([5, 6], gap="medium")
    with right:
        chosen = choose_layers(spectra, decomposition)
        with guard():
            spectrum(spectra, chosen, decomposition, compression)
    table = measure_table(view.id, data.stamp(view.path / "spectra.npz"), decomposition, compression)
    with left, guard():
        heatmap(spectra, measure, decomposition, table[measure], chosen)
        sample_note(view.sample, view.id)
    downloads(spectra, table, chosen, decomposition)


model_ref = frame("spectra")
st.title("Spectra")
with guard():
    body(model_ref)
jobs.rerun_if_asked()
