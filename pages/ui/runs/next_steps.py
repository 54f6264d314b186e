"""What a finished run's plan can be taken on to: updated factors, and a measurement."""

from __future__ import annotations

from dataclasses import asdict

import streamlit as st

from lrc_core.results import answers
from lrc_core.results.archive import AnyRun
from lrc_core.results.plans import PlanSource, find_plan
from lrc_core.runs.spec import CalibrationSpec, EvaluateSpec, ModelRef, UpdateSpec
from lrc_core.runs.store import RunStore
from lrc_core.settings import fields_of
from lrc_core.updates import KINDS, UPDATE_LABELS, update_settings
from pages.ui.shared import forms, jobs
from pages.ui.shared.frame import guard

MADE = "ru_made"
"""The run that a button here made, until the page shows it."""
SOURCES = ("allocate", "update", "adopt")
"""Kinds of runs that leave a plan."""


def section(view: AnyRun) -> None:
    """A fold with two forms: update the factors of one of the run's plans, measure it."""
    with st.expander("Go on with this plan", icon=":material/forward:"), guard():
        known = {choice.key: choice for choice in answers.plans_of(view)}
        keys = sorted(known, key=lambda name: name != view.id)  # the final plan, then those recorded on the way
        key = keys[0]
        if len(keys) > 1:
            key = st.selectbox("Plan", keys, format_func=lambda name: known[name].label, key=f"ru_plan_{view.id}")
        found = find_plan(key, RunStore())
        update, measure = st.columns(2, gap="large")
        with update:
            _update(view.spec.model, found, view.id)
        with measure:
            _measure(view.spec.model, found, view.id)


def _update(ref: ModelRef, found: PlanSource, run_id: str) -> None:
    kind = st.selectbox(
        "Update of the factors",
        KINDS,
        format_func=UPDATE_LABELS.__getitem__,
        key=f"ru_update_{run_id}",
        help=jobs.UPDATE_HELP,
    )
    usual = update_settings({"kind": kind})
    with st.expander("Settings", icon=":material/tune:"):
        chosen = {
            info.name: forms.widget(info, getattr(usual, info.name), f"ru_{kind}_{info.name}", None)
            for info in fields_of(type(usual))
            if info.name != "kind"
        }
    if st.button("Update the factors", icon=":material/healing:", key=f"ru_do_update_{run_id}"):
        settings = asdict(update_settings({"kind": kind, **chosen}))
        _start(UpdateSpec(ref, found.plan, found.folder, settings, found.calibration or CalibrationSpec()))
    st.caption("This makes a separate run; its plan can be measured, compared and talked to like any other.")


def _measure(ref: ModelRef, found: PlanSource, run_id: str) -> None:
    with st.form(f"ru_measure_{run_id}", border=False, enter_to_submit=False):
        with st.expander("What is measured", icon=":material/settings:"):
            wanted = forms.evaluation(f"ru_{run_id}")
        pressed = st.form_submit_button("Measure this plan", icon=":material/straighten:")
    if pressed:
        _start(EvaluateSpec(ref, found.plan, found.folder, found.calibration or CalibrationSpec(), wanted))
    st.caption("Its figures join those on Compare and the score list on Plans.")


def _start(spec: UpdateSpec | EvaluateSpec) -> None:
    """Queue the job and look at its run."""
    if run_id := jobs.submit(spec):
        st.session_state[MADE] = run_id
        st.rerun()
