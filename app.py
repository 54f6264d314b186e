"""Home: what low-rank compression is, three ways in, the model in use, and what to do next."""

from __future__ import annotations

import streamlit as st

from lrc_core.results.archive import archive
from lrc_core.runs.spec import FetchSpec, ModelRef, SpectraSpec
from pages.ui.home import size_slider
from pages.ui.home import views as home_views
from pages.ui.shared import cards, jobs
from pages.ui.shared.frame import empty, frame, guard, sample_note
from pages.ui.shared.prose import prose
from pages.ui.shared.summary import shown_spectra


def card(ref: ModelRef) -> None:
    """The current model's card."""
    known = archive().newest_card(ref)
    if known is None:
        if any(not view.final for view in archive().runs(SpectraSpec, ref, samples=False)):
            return  # its job stands below
        empty(
            "Not fetched yet",
            "Choose a model above and press the button that reads its spectra: they and its card appear here.",
            ":material/cloud_download:",
        )
        return
    model, view = known
    with st.container(border=True):
        cards.model_card(model)
        sample_note(view.sample, view.id)


def running(ref: ModelRef) -> None:
    """The fetch or spectra job of the current model while it is not done."""
    views = [view for view in archive().runs(ref=ref, samples=False) if isinstance(view.spec, FetchSpec | SpectraSpec)]
    if views and not views[0].done:
        jobs.panel(views[0].id)


def body(ref: ModelRef) -> None:
    """The picture first: everything else may take its time."""
    shown = shown_spectra(ref)
    home_views.first_picture(shown, ref)
    home_views.next_step(ref, lambda: cards.fetch_button(ref))
    with guard():
        home_views.ways_in(shown, ref)


model_ref = frame("home")
st.title("Low-rank compression explorer")
with guard():
    size_slider.draw_size(model_ref)  # what moves comes before what is read
unread = archive().newest_card(model_ref) is None
with (
    st.expander("Choose a model, and see whether it fits", icon=":material/swap_horiz:", expanded=unread),
    guard(),
):
    cards.picker(model_ref)
st.markdown(prose("home"))
with guard():
    body(model_ref)
st.header("The model")
with guard():
    card(model_ref)
with guard():
    running(model_ref)
jobs.rerun_if_asked()
