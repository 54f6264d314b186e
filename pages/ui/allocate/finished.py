"""A finished job: what came of it first, then what to do with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import streamlit as st

from lrc_core import words
from lrc_core.formats.grids import QUANTISED
from lrc_core.paths import read_only
from lrc_core.plan import Plan
from lrc_core.results.archive import RunView, archive, card_of
from lrc_core.results.identity import identified
from lrc_core.results.outcomes import outcome
from lrc_core.results.plans import PlanSource, find_plan, load_plan
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec, EvaluateSpec, EvaluationSpec, UpdateSpec
from lrc_core.runs.store import RunStore
from lrc_core.types import ModelCard
from lrc_core.updates import update_settings
from pages.ui.shared import jobs, pictures, state
from pages.ui.shared.frame import guard, page_link

QUICK = EvaluationSpec(max_windows=10)
THOROUGH = EvaluationSpec(tasks=("arc_easy", "piqa"))
"""As the samples were measured, so that both stand in one table."""
CHOICES = {
    "quick": ("Measure, quick", QUICK, "Perplexity on ten windows of each text: a first look with a large error."),
    "thorough": ("Measure, thorough", THOROUGH, "Forty windows and 200 questions, as the samples were measured."),
}


def show(view: RunView[AllocateSpec], follows: str) -> None:
    """Size, map and quality of a finished plan, and what can be done next: tune its factors, or measure it.

    Args:
        follows: the kind of update that was meant to follow its ranks, whose button then comes first; or ``none``.
    """
    found = outcome(view)
    with st.container(border=True, key="al_finished"), guard():
        plan, card = load_plan(view.path / "plan.json"), card_of(view)
        st.markdown(f"**{found.result or words.removed(plan.keep_achieved) + ' removed'}** · {summary(plan, card)}")
        st.markdown(f"Quality: {found.quality}." if found.quality else "Quality: **not measured yet**.")
        pictures.draw_picture(pictures.kept_map(card, plan), f"al_map_{view.id}")
        source = find_plan(view.id, RunStore())
        tune(view, source, first=follows != "none")
        measure(view, source)


def summary(plan: Plan, card: ModelCard) -> str:
    """How many layers stay dense, and how many are in which number format."""
    held = Counter(plan.formats.values())
    formats = "".join(f"; {held[name]} in {name}" for name in QUANTISED if held[name])
    return f"{words.stay_dense(len(plan.dense), len(card.layers))}{formats}."


def tune(view: RunView[AllocateSpec], source: PlanSource, *, first: bool) -> None:
    """The job that tunes the factors of the plan at these ranks, or what came of it; nothing where there are none.

    Args:
        source: its plan.
        first: whether it is the main thing to do now.
    """
    if not source.plan.get("ranks") or source.plan.get("pruned") or source.plan.get("formats"):
        return
    settings = asdict(update_settings({"kind": "tuned"}))
    spec = UpdateSpec(view.spec.model, source.plan, source.folder, settings, source.calibration or CalibrationSpec())
    made = archive().open(identified(spec).run_id, UpdateSpec)
    if made is not None and made.done:
        jobs.offered(spec)
        query = {"ru_run": made.id}
        page_link(
            "pages/runs.py", "Go on with the tuned plan: measure it, take it away", ":material/forward:", query=query
        )
        return
    if read_only() or jobs.under_way(spec):
        return
    st.caption("Step 2: gradient steps on the calibration text, at the same ranks and the same size.")
    pressed = st.button(
        "Tune its factors", icon=":material/healing:", key="al_tune", type="primary" if first else "secondary"
    )
    jobs.price_note(spec)
    if pressed and (run_id := jobs.submit(spec)):
        st.switch_page("pages/runs.py", query_params={**state.carried(), "ru_run": run_id})


def measure(view: RunView[AllocateSpec], source: PlanSource) -> None:
    """Two ways to measure, each with its price."""
    calibration = source.calibration or CalibrationSpec()
    for column, (key, (label, wanted, said)) in zip(st.columns(2), CHOICES.items(), strict=True):
        spec = EvaluateSpec(view.spec.model, source.plan, source.folder, calibration, wanted)
        with column:
            if jobs.instead(spec):
                return
            if jobs.offered(spec) or jobs.under_way(spec):
                continue
            st.caption(said)
            pressed = st.button(label, icon=":material/straighten:", key=f"al_measure_{key}")
            jobs.price_note(spec)
            if pressed and (run_id := jobs.submit(spec)):
                st.query_params["al_run"] = view.id
                st.toast(f"{label}: it runs in the background, see Runs ({run_id[-4:]}).", icon=":material/straighten:")
                st.rerun()
