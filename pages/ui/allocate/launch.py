"""The job of the Allocate form: its button and price, and starting by itself once the slider rests."""

from __future__ import annotations

import time
from dataclasses import replace

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lrc_core import words
from lrc_core.budget import same_percent
from lrc_core.escape import escaped
from lrc_core.formats.budgets import budget_words
from lrc_core.jobs import manager
from lrc_core.kinds import title_of
from lrc_core.names import learns
from lrc_core.quality.starter_bench import RECOMMENDED
from lrc_core.registry import ALLOCATORS
from lrc_core.results.archive import archive
from lrc_core.results.identity import identified
from lrc_core.results.plans import recorded_plans
from lrc_core.runs.spec import AllocateSpec, ModelRef
from lrc_core.types import ModelCard
from pages.ui.allocate import arithmetic, budget
from pages.ui.shared import jobs, state
from pages.ui.shared.frame import guard, page_link
from pages.ui.shared.prose import prose

RUN, UPDATE = "al_run", "al_update"
"""Query parameters: the job that is watched, and whether tuning follows the ranks, which best and fast differ in."""
FIRST = RECOMMENDED[0]
_AUTO, _MOVED = "al_auto", "al_moved_at"


def moved() -> None:
    """The target was changed by hand in this tab; a link never counts as that."""
    st.session_state[_MOVED] = time.monotonic()


def forget_moves() -> None:
    """Starting by itself was switched: only what is moved from now on counts."""
    st.session_state.pop(_MOVED, None)


def set_otherwise() -> None:
    """A method or setting was changed: looking at it starts nothing, but a countdown that runs begins anew."""
    if _MOVED in st.session_state:
        moved()


def what_follows() -> str:
    """The kind of update that is to follow the ranks, or ``none``."""
    known = {choice.update for choice in RECOMMENDED}
    named = st.query_params.get(UPDATE, FIRST.update)
    return named if named in known else FIRST.update


def start(spec: AllocateSpec, *, automatic: bool) -> None:
    """Submit the job and watch it; an automatic one takes the place of automatic ones that still wait."""
    run_id = jobs.submit(spec, automatic=automatic)
    st.session_state.pop(_MOVED, None)
    if run_id is None:
        return
    if automatic:
        manager.replace_queued(spec)
    st.query_params[RUN] = run_id
    st.rerun()


def covered(ref: ModelRef, spec: AllocateSpec) -> bool:
    """Whether a run with the same settings has already recorded a plan at this size."""
    same = [
        view
        for view in archive().runs(AllocateSpec, ref, samples=False)
        if replace(view.spec, keep=spec.keep, preset=spec.preset, contents=spec.contents) == spec
        and not view.status.stopped
    ]
    return any(same_percent(plan.keep, spec.keep) for plan in recorded_plans(same))


def launcher(ref: ModelRef, card: ModelCard, spec: AllocateSpec, countdown: DeltaGenerator) -> None:
    """The toggle, the button with its price or why it cannot be pressed, and the command line.

    Args:
        countdown: where it is said that a job is about to start: beside the slider, not down here.
    """
    arithmetic.at_once(card, spec)
    if jobs.instead(spec):
        return
    problem = budget.out_of_reach(spec, card)
    automatic = not spec.budget and st.toggle(
        "Start when the slider stops",
        value=False,
        key=_AUTO,
        on_change=forget_moves,
        persist_state="session",
        help=prose("autostart"),
    )
    verb = "Learn ranks" if learns(spec.method) else "Compute ranks"
    if ALLOCATORS.get(spec.method).structured:
        verb = "Prune"
    if jobs.offered(spec):
        made = {RUN: identified(spec).run_id, UPDATE: what_follows()}
        page_link("pages/allocate.py", "See its map, and what can follow", ":material/grid_on:", query=made)
    elif not jobs.under_way(spec):
        label = f"{verb} within {budget_words(spec.budget)}" if spec.budget else f"{verb} at {words.removed(spec.keep)}"
        off = problem is not None
        pressed = st.button(label, type="primary", icon=":material/play_arrow:", key="al_start", disabled=off)
        if problem is not None:
            st.caption(f":material/block: {escaped(problem.message)} {escaped(problem.remedy)}")
        else:
            jobs.price_note(spec)
        if pressed:
            start(spec, automatic=False)
    pending = automatic and problem is None and _MOVED in st.session_state
    if pending and covered(ref, spec):
        st.session_state.pop(_MOVED, None)
        st.caption(":material/check: A finished run answers this rate; nothing needs to be started.")
    elif pending:
        with countdown:
            st.fragment(wait_for_quiet, run_every=0.5)(spec)
    with st.expander("The same from the command line", icon=":material/terminal:"):
        jobs.command(spec)


def wait_for_quiet(spec: AllocateSpec) -> None:
    """Counts two seconds without a change, then starts the job."""
    with guard():
        changed = st.session_state.get(_MOVED)
        if changed is None:
            return
        left = state.QUIET_S - (time.monotonic() - changed)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(
                f":material/timer: **{escaped(title_of(spec))}** starts in {max(0.0, left):.0f} s", width="content"
            )
            stopped = st.button("Not now", key="al_not_now", type="tertiary")
        if stopped:
            st.session_state.pop(_MOVED, None)
            st.rerun()
        if left <= 0:
            start(spec, automatic=True)
