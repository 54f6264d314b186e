"""A training run as it is watched: its figures now, its film, and the quality it heads for."""

from __future__ import annotations

import streamlit as st

from lrc_core import names, words
from lrc_core.export.film import Film
from lrc_core.results.archive import AnyRun, asks_for
from lrc_core.runs.spec import AllocateSpec
from pages.ui.shared.prose import prose
from pages.ui.watch import film, forecasts


def allocate_live(view: AnyRun) -> None:
    """Everything there is to watch of a run; nothing for a method that does not train."""
    if not asks_for(view, AllocateSpec) or not names.learns(view.spec.method) or view.status.state == "queued":
        return
    shown = film.film_of(view)
    if shown is None:
        st.caption(
            "It ended before its first training step, so there is nothing to watch."
            if view.final
            else "The first training step has not been reported yet: the layers are being decomposed."
        )
        return
    if shown.live:
        _figures(shown)
    film.show(shown)
    forecasts.show(view, shown)


def _figures(shown: Film) -> None:
    """How the run stands, in a line."""

    def last(name: str) -> float | None:
        value = (shown.ticks.get(name) or [None])[-1]
        return value if isinstance(value, int | float) else None

    memory = last("memory_mb")
    with st.grid(5, min_column_width=140):
        st.metric(
            "Compression now",
            words.percent(last("removed")),
            help="Counted on the noise-free mask: a direction is kept when its weight is above zero.",
        )
        st.metric("Target", words.percent(shown.removed))
        st.metric("Entropy", f"{words.figure(last('entropy'), 3)} bits", help=prose("entropy"))
        st.metric("Speed", f"{words.figure(last('tokens_per_s'), 3)} tokens/s")
        st.metric("Memory", "–" if memory is None else words.data_size(memory * 1e6))
