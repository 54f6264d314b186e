"""Home: what low-rank compression is, the model in use, and the way on."""

from __future__ import annotations

import streamlit as st

from lrc_core.runs.spec import ModelRef
from pages.ui import cards, data, hero, jobs, words
from pages.ui.frame import PAGES, empty, frame, guard, page_link, sample_note


def picture(ref: ModelRef) -> None:
    """The picture, from the current model's spectra or else from the sample's."""
    view = data.best_spectra(ref) or data.best_spectra(ModelRef())
    if view is None:
        empty("A picture of a real layer will be here", "Fetch the starter model below to see its first spectra.")
        return
    spectra = data.spectra_of(view)
    decomposition = "whitened" if "whitened" in spectra.decompositions else spectra.decompositions[0]
    layer = hero.example_layer(spectra, decomposition)
    svg, figures = hero.picture(layer, spectra.values[decomposition][layer.name])
    hero.draw(svg)
    st.caption(words.prose("picture").format(**figures))
    sample_note(view.sample, view.id)


def card(ref: ModelRef) -> None:
    """The current model's card."""
    known = data.newest_card(ref)
    if known is None:
        empty(
            "Not fetched yet",
            "Choose a model below and press **Fetch and read its spectra**: its card and its spectra appear here.",
            ":material/cloud_download:",
        )
        return
    model, view = known
    with st.container(border=True):
        cards.model_card(model)
        sample_note(view.sample, view.id)


def running(ref: ModelRef) -> None:
    """The fetch or spectra job of the current model while it is not done."""
    views = [view for view in data.all_runs(ref, samples=False) if view.kind in ("fetch", "spectra")]
    if views and not views[0].done:
        jobs.panel(views[0].id)


def way_on() -> None:
    """The other pages."""
    with st.grid(5, min_column_width=150):
        for key in ("learn", "spectra", "allocate", "compare", "runs"):
            info = PAGES[key]
            with st.container(border=True, height="stretch", gap="xsmall"):
                page_link(info.file, f"**{info.title}**", info.icon, width="stretch")
                st.caption(info.summary)


model_ref = frame("home")
st.title("Low-rank compression explorer")
st.markdown(words.prose("home"))
with guard():
    picture(model_ref)
st.subheader("The model")
with guard():
    card(model_ref)
with guard():
    running(model_ref)
with st.expander("Choose a model", icon=":material/swap_horiz:", expanded=data.newest_card(model_ref) is None), guard():
    cards.picker(model_ref)
st.subheader("Go on")
with guard():
    way_on()
jobs.rerun_if_asked()
