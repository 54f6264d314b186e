"""A training run while it runs: its current figures, its film, and its measured or expected quality."""

from __future__ import annotations

import math

import streamlit as st

from lrc_core import names, words
from lrc_core.charts.film import Film
from lrc_core.escape import escaped
from lrc_core.results import forecasts
from lrc_core.results.archive import AnyRun, RunView, asks_for
from lrc_core.runs.spec import AllocateSpec
from lrc_core.texts.label import text_label
from pages.ui.shared.frame import show_ids
from pages.ui.shared.prose import prose
from pages.ui.watch import film


def allocate_live(view: AnyRun, over: RunView[AllocateSpec] | None = None) -> None:
    """Everything there is to watch of a run; nothing for a method that does not train.

    Args:
        over: a second one that is laid over it.
    """
    if not asks_for(view, AllocateSpec) or not names.learns(view.spec.method) or view.status.state == "queued":
        return
    shown = film.film_of(view)
    if shown is None:
        st.caption(
            "It ended before its first training step, so there is nothing to watch."
            if view.final
            else "Training has not begun yet: what it starts from is being computed."
        )
        return
    if shown.live:
        _figures(shown)
    film.show(shown, film.as_recorded(over) if over is not None else None)
    _quality(view, shown)


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
        st.metric("Target", shown.target)
        st.metric("Entropy", f"{words.figure(last('entropy'), 3)} bits", help=prose("entropy"))
        st.metric("Speed", f"{words.figure(last('tokens_per_s'), 3)} tokens/s")
        st.metric("Memory", "–" if memory is None else words.data_size(memory * 1e6))


def _quality(view: RunView[AllocateSpec], shown: Film) -> None:
    """Measured where the run's final plan was measured, else forecast, else why there is neither."""
    measured = forecasts.measurement_of(view)
    if measured:
        run, scores = measured
        parts = [
            f"{escaped(text_label(text))} {words.measured(score['value'], score.get('stderr'))}"
            for text, score in scores.items()
        ]
        st.markdown(
            f":green-badge[:material/straighten: Measured] perplexity of its plan at {shown.target}: {', '.join(parts)}"
        )
        show_ids([run])
        return
    found, reason = forecasts.forecasts(view, shown)
    if not found:
        st.markdown(f":gray-badge[:material/timeline: No quality forecast yet] :small[{escaped(reason)}]")
        return
    lines = [
        f"{escaped(text_label(text))} about **{forecasts.figures(made, dense)}**, dense {dense:.1f}"
        for text, (made, dense) in found.items()
    ]
    first = next(iter(found.values()))[0]
    missed = max(made.error for made, _ in found.values())
    st.markdown(
        f":violet-badge[:material/timeline: Forecast, not measured] perplexity at {shown.target}: " + "; ".join(lines)
    )
    st.caption(
        f"From the KL divergence of training so far, scaled by {first.plans} measured plans. Tried on each of "
        "those plans with its training hidden from the same point onward, it misses the rise of log-perplexity by "
        f"{words.percent(math.expm1(missed), 0)}; {first.record}."
    )
    show_ids(first.runs)
