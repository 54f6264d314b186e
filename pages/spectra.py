"""Spectra: where each layer's information lives."""

from __future__ import annotations

import streamlit as st

from lrc_core.budget import keep_at
from lrc_core.decompose import ALL
from lrc_core.names import decomposition_label
from lrc_core.results.archive import RunView, archive
from lrc_core.results.spectra import spectra_of
from lrc_core.runs.spec import ModelRef, SpectraSpec
from pages.ui.shared import cards, forms, jobs
from pages.ui.shared.frame import empty, frame, guard, page_link, sample_note
from pages.ui.shared.naming import told_apart, when
from pages.ui.shared.prose import prose
from pages.ui.spectra import measures, sides, streaming
from pages.ui.spectra.curves import spectrum
from pages.ui.spectra.heatmap import draw_heatmap, heatmap_beside
from pages.ui.spectra.look import Look, compared
from pages.ui.spectra.sides import Side
from pages.ui.spectra.tables import tables

MEASURE, DECOMPOSITION, CUT, RUN, ASKED = "sp_measure", "sp_decomposition", "sp_cut", "sp_run", "sp_more_run"


def nothing_yet(ref: ModelRef) -> None:
    """No spectra: the job that is under way, or the buttons that start one."""
    views = archive().runs(SpectraSpec, ref, samples=False)
    if views:
        jobs.panel(views[0].id, live=streaming.live)
        if not views[0].final:
            st.caption("The spectra appear here by themselves when the job has finished.")
            return
    else:
        empty(
            "No spectra of this model yet",
            "A background job decomposes every linear layer of its blocks. It goes on when this tab is closed.",
            ":material/grid_on:",
        )
        cards.fetch_button(ref)
    if ref.source != "starter":
        streaming.offer(ref)
        if archive().best_spectra(ModelRef()):
            page_link(
                "pages/spectra.py", "Look at the starter model meanwhile", ":material/star:", query={"model": "starter"}
            )


def choose_run(views: list[RunView[SpectraSpec]]) -> RunView[SpectraSpec]:
    """The run that is shown; a choice only where there are several."""
    if len(views) == 1:
        return views[0]
    by_id = {view.id: view for view in views}
    if st.session_state.get(ASKED) in by_id:
        st.session_state[RUN] = st.session_state.pop(ASKED)

    def label(run_id: str) -> str:
        view = by_id[run_id]
        how = "streamed from disk" if view.spec.stream else ", ".join(view.spec.decompositions)
        return f"{how} · {when(view)}"

    labels = told_apart({run_id: label(run_id) for run_id in by_id})
    chosen = forms.one_of(st, "Run", labels, RUN, bind="query-params")
    return by_id.get(chosen, views[0])


def controls(ref: ModelRef, view: RunView[SpectraSpec]) -> Look:
    """What is looked at: measure, decomposition, compression, cut, reference, what stands beside, search."""
    spectra = spectra_of(view)
    left, middle, right = st.columns([3, 4, 3], vertical_alignment="top")
    known = {key: entry.label for key, entry in measures.MEASURES.items()}
    usual = list(known).index("r95")
    measure = forms.one_of(left, "Measure", known, MEASURE, first=usual, bind="query-params")
    names = list(spectra.decompositions)
    labels = {name: decomposition_label(name) for name in names}
    first = "whitened" if "whitened" in names else names[0]
    chosen = forms.pick(middle, "Decomposition", labels, first, DECOMPOSITION, wrap=True, bind="query-params")
    words = "Where the current cut lies. A click on a curve of the spectrum sets it, too."
    keep = keep_at(forms.rate_slider(right, words))
    side = Side(view, spectra, fitting(measure, chosen if chosen in names else names[0], names))
    place, *others = st.columns([3, 4, 4, 3], vertical_alignment="bottom")
    cuts = sides.cut_choices(ref, side, keep)
    words = "What decides the ranks of the current cut: the uniform rule, or a recorded plan near this size."
    cut = forms.one_of(place, "Cut by", cuts, CUT, help=words)
    ranks = sides.cut_ranks(ref, side, cut or sides.UNIFORM, keep)
    return compared(Look(side, measure, keep, ranks), others)


def fitting(measure: str, decomposition: str, known: list[str]) -> str:
    """The decomposition that is shown: the one that the measure is about, where the run has it."""
    wanted = measures.MEASURES[measure].decompositions
    if not wanted or decomposition in wanted:
        return decomposition
    return next((name for name in wanted if name in known), decomposition)


def lacking(look: Look) -> None:
    """A measure that this run holds nothing for: what it needs, and the job that computes it."""
    entry, view = measures.MEASURES[look.measure], look.side.view
    needed = "overlaps of neighbouring blocks" if entry.subspaces else (
        f"the {decomposition_label(entry.decompositions[0])} decomposition"
    )  # fmt: skip
    empty(
        f"“{entry.label}” needs {needed}",
        "The run that is shown did not compute it. One more job does, with everything else that this page can show.",
        ":material/add_chart:",
    )
    spec = SpectraSpec(view.spec.model, ALL, view.spec.calibration, subspaces=True, stream=False)
    if jobs.instead(spec):
        return
    if st.button("Compute it", icon=":material/play_arrow:", type="primary", key="sp_more"):
        run_id = jobs.submit(spec)
        if run_id:
            st.session_state[ASKED] = run_id
            st.rerun()
    jobs.command(spec)


@st.fragment
def explorer(ref: ModelRef, view: RunView[SpectraSpec]) -> None:
    """Controls, heatmaps, spectra and tables; a fragment, so that a click redraws no more than this."""
    with guard():
        look = controls(ref, view)
        jobs.changed_note(view)
        if look.measure not in sides.measures_for(look.side):
            lacking(look)
            return
        left, right = st.columns([1, 1] if look.beside else [5, 6], gap="medium")
        with left:
            draw_heatmap(look)
            sample_note(view.sample, view.id)
        with right:
            if look.beside:
                heatmap_beside(look)
                sample_note(look.beside.view.sample, look.beside.view.id)
            else:
                spectrum(look)
        if look.beside:
            spectrum(look)
        tables(look)


def body(ref: ModelRef) -> None:
    views = archive().done_spectra(ref)
    if not views:
        nothing_yet(ref)
        return
    working = [view for view in archive().runs(SpectraSpec, ref, samples=False) if not view.final]
    if working:
        jobs.panel(working[0].id, live=streaming.live)
    st.markdown(prose("spectra"))
    view = choose_run(views)
    if view.spec.stream:
        streaming.memory(((view.run.result() or {}).get("stream")) or {})
    explorer(ref, view)


model_ref = frame("spectra")
st.title("Spectra")
with guard():
    body(model_ref)
jobs.rerun_if_asked()
