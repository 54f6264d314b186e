"""Watch: a run as it learns its ranks, or a finished one played like a film."""

from __future__ import annotations

import streamlit as st

from lrc_core import names
from lrc_core.kinds import title_of
from lrc_core.names import model_label
from lrc_core.registry import ALLOCATORS
from lrc_core.results.archive import RunView, archive
from lrc_core.runs.spec import AllocateSpec
from pages.ui.shared import jobs
from pages.ui.shared.frame import empty, frame, guard, page_link, sample_note
from pages.ui.shared.prose import prose
from pages.ui.watch import film, live

RUN = "wa_run"


def learning_runs() -> list[RunView[AllocateSpec]]:
    """Every run that learned or is about to: unfinished ones first, then the newest; samples last."""
    learned = [view for view in archive().runs(AllocateSpec) if names.learns(view.spec.method)]
    return sorted(learned, key=lambda view: view.final)


def label(view: RunView[AllocateSpec]) -> str:
    """``LLRC at 30 % · SmolLM2-135M · Finished · allocate-…``."""
    _, _, word = jobs.BADGES.get(view.status.state, jobs.BADGES["damaged"])
    words_of = [
        title_of(view.spec),
        model_label(view.spec.model),
        "Sample" if view.sample else word,
        view.id,
    ]
    return " · ".join(words_of)


def choose(views: list[RunView[AllocateSpec]]) -> RunView[AllocateSpec]:
    """The run to watch, which the link may name."""
    by_id = {view.id: view for view in views}
    if RUN not in st.session_state and (named := st.query_params.get(RUN)) in by_id:
        st.session_state[RUN] = named
    chosen = st.selectbox(
        "Run",
        list(by_id),
        format_func=lambda run_id: label(by_id[run_id]) if run_id in by_id else run_id,
        key=RUN,
        help=f"Every run of a method that learns: {', '.join(entry.label for entry in ALLOCATORS if entry.learns)}.",
    )
    view = by_id.get(chosen, views[0])
    st.query_params[RUN] = view.id  # always named: which one is first changes when a run ends
    return view


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
    view = choose(views)
    jobs.panel(view.id, live=live.allocate_live)
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
