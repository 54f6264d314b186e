"""The closed-form plan as the slider's preview: an estimate from spectra, with nothing trained and nothing measured."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import streamlit as st

from lrc_core.allocate.loss_curves import cheapest_ranks
from lrc_core.budget import Ranks, fit_budget, is_dense, uniform_ranks
from lrc_core.errors import BudgetError
from lrc_core.plan import make_plan
from lrc_core.runs.spec import ModelRef, SpectraSpec
from lrc_core.types import ModelCard
from pages.ui import data, jobs, rank_charts, words
from pages.ui.frame import sample_note, show_error

TWO_SIDED = "kfac"
"""The decomposition whose discarded sigma^2 is a loss, comparable between layers."""


def lagrangian(ref: ModelRef, card: ModelCard, share: float) -> None:
    """The Lagrangian plan at this rate, from the newest spectra of the two-sided decomposition.

    Args:
        ref: the model.
        card: its card.
        share: of the block linears' parameters to remove.
    """
    with st.container(border=True, key="preview_lagrangian", height="stretch"):
        views = [view for view in data.all_runs(ref, "spectra") if view.done and TWO_SIDED in view.spec.decompositions]
        if not views:
            _missing(ref)
            return
        st.markdown("**Lagrangian** :orange-badge[:material/function: estimate from spectra, nothing measured]")
        spectra = data.spectra_of(views[0])
        losses = {name: 0.5 * np.square(sigma) for name, sigma in spectra.values[TWO_SIDED].items()}
        try:
            ranks = cheapest_ranks(card.layers, losses, 1 - share)
            even = fit_budget(card.layers, uniform_ranks(card.layers, 1 - share), 1 - share)
        except BudgetError as error:
            show_error(error)
            return
        st.caption(reading(card, losses, ranks, even))
        rank_charts.draw(card, ranks, f"Estimated Lagrangian ranks at {words.percent(share)}", key="chart_lagrangian")
        plan = make_plan(
            card,
            ranks,
            decomposition=TWO_SIDED,
            method="lagrangian",
            keep_target=round(1 - share, 6),
            origin={"spectra_run_id": views[0].id},
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            sample_note(views[0].sample, views[0].id)
            st.download_button(
                "plan.json",
                json.dumps(plan.to_dict(), indent=1),
                f"plan-lagrangian-{round(100 * share):02d}.json",
                "application/json",
                icon=":material/download:",
                on_click="ignore",
                key="estimate_plan",
            )


def reading(card: ModelCard, losses: Mapping[str, np.ndarray], ranks: Ranks, even: Ranks) -> str:
    """What the estimate says about this plan, beside the uniform one on the same loss curves."""
    mine, theirs = predicted(card, losses, ranks), predicted(card, losses, even)
    dense = sum(is_dense(layer, ranks[layer.name]) for layer in card.layers)
    against = f", {words.percent(mine / theirs)} of what the uniform plan is predicted to add" if theirs > 0 else ""
    return (
        f"{dense} of {len(card.layers)} layers stay dense. Predicted to add {mine:.2g} nats a token{against}. "
        "The prediction adds layers up one by one; the more is removed, the more it says too little."
    )


def predicted(card: ModelCard, losses: Mapping[str, np.ndarray], ranks: Ranks) -> float:
    """Sum of the losses of all components dropped, in nats a token; a dense layer drops none."""
    return sum(
        0.0 if is_dense(layer, ranks[layer.name]) else float(losses[layer.name][ranks[layer.name] :].sum())
        for layer in card.layers
    )


def _missing(ref: ModelRef) -> None:
    st.markdown("**Lagrangian** :gray-badge[needs K-FAC spectra]")
    st.caption(
        "With spectra of the two-sided decomposition, half of every discarded sigma² estimates a loss, and the best "
        "plan for any rate follows in milliseconds. They cost one backward pass over the calibration text."
    )
    if st.button("Read K-FAC spectra", icon=":material/play_arrow:", key="estimate_spectra"):
        run_id = jobs.submit(SpectraSpec(model=ref, decompositions=(TWO_SIDED,)))
        if run_id:
            st.rerun()
