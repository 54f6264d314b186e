"""The live view of an allocate job: figures, loss terms and ranks as they change."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from pages.ui import data, methods, rank_charts, words

_KEPT = "live_events"


def events_of(view: data.RunView) -> list[dict[str, Any]]:
    """All events of a run; a tick reads only what was added since the last one."""
    kept = st.session_state.setdefault(_KEPT, {})
    attempt = view.status.attempt
    if kept.get("id") != (view.id, attempt):
        kept.update(id=(view.id, attempt), events=[], offset=0)
    fresh, kept["offset"] = view.run.read_events(kept["offset"])
    kept["events"] += fresh
    return list(kept["events"])


def allocate_live(view: data.RunView) -> None:
    """Figures and charts of a training run; nothing for a method that does not train."""
    if not methods.learns(view.spec.method) or view.status.state == "queued":
        return
    frame = rank_charts.training_frame(events_of(view))
    if frame.empty:
        st.caption("The first training step has not been reported yet: the layers are being decomposed.")
        return
    last = frame.iloc[-1].to_dict()
    _figures(last, 1 - view.spec.keep)
    left, right = st.columns(2, gap="medium")
    with left:
        _ranks(view)
    with right:
        _curves(view, frame, last)


def _curves(view: data.RunView, frame: pd.DataFrame, last: dict[str, Any]) -> None:
    """Achieved rate against target, and every loss term on its own scale."""
    st.markdown("**Compression**")
    st.altair_chart(
        rank_charts.rate_chart(frame),
        key=f"rate_{view.id}",
        alt=f"Achieved compression {words.percent(last['achieved compression'])} at step {int(last['step'])}",
    )
    st.markdown("**Losses**")
    with st.grid(2, min_column_width=200):
        for name in rank_charts.LOSSES:
            if name in frame and frame[name].notna().any():
                st.altair_chart(
                    rank_charts.loss_chart(frame, name),
                    key=f"loss_{name}_{view.id}",
                    alt=f"{rank_charts.LOSSES[name]}: {words.figure(last.get(name))} at the last step",
                )


def _figures(last: dict[str, Any], target: float) -> None:
    with st.grid(4, min_column_width=110):
        st.metric(
            "Compression now",
            words.percent(last["achieved compression"]),
            help="Counted on the noise-free mask: a direction is kept when its weight is above zero.",
        )
        st.metric("Target", words.percent(target))
        st.metric("Speed", f"{words.figure(last.get('tokens_per_s'), 3)} tokens/s")
        memory = last.get("memory_mb")
        st.metric("Memory", words.data_size(memory * 1e6) if isinstance(memory, int | float) else "–")


def _ranks(view: data.RunView) -> None:
    card = data.card_of(view)
    snapshot = data.last_ranks(view, card)
    if snapshot is None:
        st.caption("The first snapshot of the ranks appears here soon.")
        return
    step, ranks = snapshot
    note = "as they were at the end of training" if view.done else "as they are learned, not final"
    st.markdown(f"**Ranks at step {step:,}** :small[:gray[({note})]]")
    st.altair_chart(
        rank_charts.rank_chart(card, ranks),
        key=f"ranks_{view.id}",
        alt=f"Share of each layer's parameters kept at step {step}",
    )
