"""The closed-form plan as the slider's preview: an estimate from spectra, with nothing trained and nothing measured."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import streamlit as st

from lrc_core import words
from lrc_core.allocate.curves.loss_curves import predicted_loss
from lrc_core.budget import Ranks, fit_budget, is_dense, keep_at, uniform_ranks
from lrc_core.decompose import TWO_SIDED
from lrc_core.errors import BudgetError
from lrc_core.escape import escaped
from lrc_core.names import decomposition_label
from lrc_core.paths import read_only
from lrc_core.plan import make_plan
from lrc_core.results.archive import AnyRun, RunView, archive, card_of
from lrc_core.results.series import closed_form_runs, from_spectra
from lrc_core.results.spectra import losses_of
from lrc_core.runs.spec import ModelRef, SpectraSpec
from lrc_core.types import ModelCard
from pages.ui.shared import jobs
from pages.ui.shared.frame import sample_note, show_error, show_ids
from pages.ui.shared.naming import download, file_name


def beneath(
    ref: ModelRef, card: ModelCard, view: RunView[SpectraSpec], ranks: Ranks, rate: int, known: tuple[str, str] | None
) -> None:
    """What the closed form says of its plan at a rate, where it comes from, and the plan as a file.

    Args:
        view: the spectra that it was made from.
        ranks: of the plan.
        rate: that it was made for, in whole percent.
        known: what is known of its quality, None where nothing is.
    """
    keep = keep_at(rate)
    try:
        even = fit_budget(card.layers, uniform_ranks(card.layers, keep), keep)
    except BudgetError as error:
        show_error(error)
        return
    plan = make_plan(
        card,
        ranks,
        decomposition=TWO_SIDED,
        method="lagrangian",
        keep_target=keep,
        origin={"spectra_run_id": view.id},
    )
    with st.container(border=True, key="preview_lagrangian"):
        kind = known[0] if known else "nothing measured"
        badge = f":orange-badge[:material/function: estimate from spectra, {kind}]"
        st.markdown(f"**Lagrangian, on {decomposition_label(TWO_SIDED)}** {badge}")
        if known is not None:
            how = "Measured" if known[0] == "measured" else "Forecast, not measured"
            st.markdown(f"{how}: {escaped(known[1])}.")
        st.caption(estimate_sentence(card, losses_of(view), ranks, even))
        run = closed_form_runs(view, card.layers[0].storage).get(rate)
        if run is not None:
            st.caption(recorded_sentence(card, view, run, ranks, rate))
            show_ids([run.id])
        with st.container(horizontal=True, vertical_alignment="center"):
            sample_note(view.sample, view.id)
            download(
                f"Estimated plan at {rate} %",
                json.dumps(plan.to_dict(), indent=1),
                file_name(card.name, "lagrangian", "estimated", f"{rate} % removed", "plan", ending="json"),
                key="estimate_plan",
            )
        if view.sample and not read_only() and any(not other.sample for other in archive().done_spectra(ref)):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.caption("Your own spectra have no two-sided (K-FAC) values yet, which this estimate needs.")
                _read_button(ref)


def recorded_sentence(card: ModelCard, view: RunView[SpectraSpec], run: AnyRun, ranks: Ranks, rate: int) -> str:
    """That a plan is as a run computed it, and how these spectra alone would have it."""
    alone = from_spectra(view, card.layers[0].storage).plan_near(rate, card.layers)
    apart = [abs(alone[name] - rank) for name, rank in ranks.items() if alone[name] != rank]
    said = "This plan is as a run computed it"
    if not apart:
        return f"{said}; these spectra give the same one."
    there, here = card_of(run).dtype, card_of(view).dtype
    how = f"its statistics were read in {there}, these in {here}" if there != here else "from statistics of its own"
    sides = [is_dense(layer, ranks[layer.name]) != is_dense(layer, alone[layer.name]) for layer in card.layers]
    dense = f"; {sum(sides)} of the layers are dense in one of the two alone" if any(sides) else ""
    return f"{said}: {how}, by which {len(apart)} of {len(ranks)} ranks differ, by {max(apart)} at most{dense}."


def estimate_sentence(card: ModelCard, losses: Mapping[str, np.ndarray], ranks: Ranks, even: Ranks) -> str:
    """What the estimate says about this plan, beside the uniform one on the same loss curves."""
    mine, theirs = (predicted_loss(card.layers, plan, losses) for plan in (ranks, even))
    dense = sum(is_dense(layer, ranks[layer.name]) for layer in card.layers)
    against = f", {words.percent(mine / theirs)} of what the uniform plan is predicted to add" if theirs > 0 else ""
    return (
        f"{words.stay_dense(dense, len(card.layers))}. Predicted to add {mine:.2g} nats per token{against}. "
        "The prediction adds layers up one by one; the more is removed, the more it underestimates."
    )


def missing(ref: ModelRef) -> None:
    """What the closed form needs, and the job that computes it."""
    with st.container(border=True, key="preview_lagrangian", horizontal=True, vertical_alignment="center"):
        st.markdown(
            "**Lagrangian** :gray-badge[needs K-FAC spectra]  \n:small[With spectra of the two-sided decomposition, "
            "half of every discarded sigma² estimates a loss, and the best plan for any rate is drawn under the slider "
            "too. They cost one backward pass over the calibration text.]",
            width="stretch",
        )
        _read_button(ref)


def _read_button(ref: ModelRef) -> None:
    """Start the job that computes two-sided spectra."""
    spec = SpectraSpec(model=ref, decompositions=(TWO_SIDED,))
    if jobs.instead(spec):
        return
    jobs.price_note(spec)
    if st.button("Read K-FAC spectra", icon=":material/play_arrow:", key="estimate_spectra") and jobs.submit(spec):
        st.rerun()
