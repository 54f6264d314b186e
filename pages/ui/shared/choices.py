"""Best, fast or baseline: what one sees first; every method, with what it gave on the starter, in a fold beneath."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import streamlit as st

from lrc_core.names import learns, method_label
from lrc_core.quality.starter_bench import RECOMMENDED, Recommendation, starter_rows
from lrc_core.registry import ALLOCATORS

CHOSEN, FREE = ":material/radio_button_checked:", ":material/radio_button_unchecked:"


def figures_of(choice: Recommendation) -> str:
    """``Lagrangian: 1.07 / 1.1``; of several methods one after the other."""
    return ", ".join(
        f"{method_label(method)} {gensim:g} / {c4:g}"
        for method, (gensim, c4) in zip(choice.methods, choice.figures, strict=True)
    )


def three_choices(chosen: Recommendation | None, key: str, take: Callable[[Recommendation], None]) -> None:
    """One button for each, with its figures; which one the form says is marked.

    Args:
        chosen: the one that the form says, None where it says another method.
        key: beginning of the buttons' keys.
    """
    for column, choice in zip(st.columns(len(RECOMMENDED)), RECOMMENDED, strict=True):
        with column:
            icon = CHOSEN if choice is chosen else FREE
            st.button(
                choice.label, icon=icon, key=f"{key}_{choice.key}", on_click=take, args=(choice,), width="stretch"
            )
            st.caption(f"{choice.said} **{figures_of(choice)}**")
    st.caption(
        "Figures: perplexity over the dense model's, on gensim / c4, with 20 % removed of the starter model, on K-FAC. "
        "What pivots and tuning win counts in them, not the choice of ranks alone."
    )


def ordered_methods() -> list[str]:
    """All methods, those that did best on the starter first; what was not measured there stands last."""
    best = {method: gensim for method, gensim, *_ in starter_rows(ALLOCATORS.names())}
    return sorted(ALLOCATORS.names(), key=lambda name: best.get(name, float("inf")))


def all_methods_table(methods: Sequence[str]) -> None:
    """What every method gave on the starter, and how long its run took."""
    frame = pd.DataFrame(
        [
            {
                "Method": method_label(method),
                "Learns": "yes" if learns(method) else "",
                "As pairs, gensim": gensim,
                "As pairs, c4": c4,
                "As pivots": pivots,
                "Tuned": tuned,
                "Time": took,
            }
            for method, gensim, c4, pivots, tuned, took in starter_rows(methods)
        ]
    )
    st.dataframe(frame, hide_index=True, height=300, alt="What every method gave on the starter with 20 % removed")
    st.caption(
        "Perplexity over dense with 20 % removed, gensim / c4, on K-FAC. Times of runs to 40 %, as pairs, on a shared "
        "H100 compare only roughly."
    )
