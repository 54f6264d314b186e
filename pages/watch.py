"""Watch: a run as it learns its ranks, or a finished one played like a film."""

from __future__ import annotations

from functools import partial

import streamlit as st

from lrc_core import names
from lrc_core.kinds import title_of
from lrc_core.names import model_label
from lrc_core.registry import ALLOCATORS
from lrc_core.results.archive import RunView, archive
from lrc_core.results.forecasts import plays
from lrc_core.runs.spec import AllocateSpec
from pages.ui.shared import forms, jobs
from pages.ui.shared.frame import empty, frame, guard, page_link, sample_note
from pages.ui.shared.naming import told_apart, when
from pages.ui.shared.prose import prose
from pages.ui.shared.state import current_model
from pages.ui.watch import film, training_run

RUN, OVER = "wa_run", "wa_over"


def learning_runs() -> list[RunView[AllocateSpec]]:
    """Every run that learned or is about to: those that can be watched first, of them unfinished ones, then those that
    only wait, then those of the chosen model, then the newest.

    A run that ended before its first step has nothing to show, and must not hide one that has.
    """
    learned = [view for view in archive().runs(AllocateSpec) if names.learns(view.spec.method)]
    ref = current_model()
    asked = (ref.source, ref.revision)

    def order(view: RunView[AllocateSpec]) -> tuple[bool, ...]:
        other = (view.spec.model.source, view.spec.model.revision) != asked
        return view.final and not plays(view), view.final, view.status.state == "queued", other

    return sorted(learned, key=order)


def label(view: RunView[AllocateSpec]) -> str:
    """``LLRC at 30 % · SmolLM2-135M · Finished · 27 Nov, 14:05``."""
    state = [] if view.sample else [jobs.state_word(view.status.state)]
    found = [title_of(view.spec), model_label(view.spec.model), *state, when(view)]
    return " · ".join(found)


def choose(views: list[RunView[AllocateSpec]]) -> RunView[AllocateSpec]:
    """The run to watch, which the link may name."""
    by_id = {view.id: view for view in views}
    labels = told_apart({view.id: label(view) for view in views})
    if RUN not in st.session_state and (named := st.query_params.get(RUN)) in by_id:
        st.session_state[RUN] = named
    chosen = forms.one_of(
        st,
        "Run",
        labels,
        RUN,
        help=f"Every run of a method that learns: {', '.join(entry.label for entry in ALLOCATORS if entry.learns)}.",
    )
    view = by_id.get(chosen, views[0])
    st.query_params[RUN] = view.id  # always named: which one is first changes when a run ends
    return view


def choose_second(views: list[RunView[AllocateSpec]], first: RunView[AllocateSpec]) -> RunView[AllocateSpec] | None:
    """A second run to lay over the first, which the link may name; the control says where there is none."""
    others = {view.id: view for view in views if view.id != first.id and plays(view)}
    if not others:
        st.caption("A second run that has learned ranks could be laid over it; there is none here yet.")
        return None
    labels = told_apart({run_id: label(view) for run_id, view in others.items()})
    named = st.query_params.get(OVER, "")
    if st.session_state.get(OVER) not in ("", *others):
        st.session_state[OVER] = named if named in others else ""
    chosen = forms.one_of(
        st,
        "Lay over it",
        {"": "Nothing", **labels},
        OVER,
        help="A second run's losses, share removed and ranks, step by step beside the first one's.",
    )
    if chosen in others:
        st.query_params[OVER] = chosen
    elif OVER in st.query_params:
        del st.query_params[OVER]
    return others.get(chosen)


def body() -> None:
    st.caption(prose("watch"))
    views = learning_runs()
    if not views:
        empty(
            "Nothing has been learned yet",
            "Start LLRC or another method that learns on the Allocate page; it appears here with its first step.",
            ":material/movie:",
        )
        page_link("pages/allocate.py", "Learn ranks", ":material/tune:")
        return
    left, right = st.columns(2)
    with left:
        view = choose(views)
    with right:
        over = choose_second(views, view)
    jobs.panel(view.id, live=partial(training_run.allocate_live, over=over))
    sample_note(view.sample, view.id)
    shown = film.film_of(view) if view.final else None
    if shown is not None and shown.frames["step"]:
        st.markdown("**Take it along**")
        film.downloads(view)


frame("watch")
st.title("Watch it learn")
with guard():
    body()
jobs.rerun_if_asked()
