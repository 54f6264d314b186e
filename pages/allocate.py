"""Allocate: choose a size, see what follows at once, and learn the ranks."""

from __future__ import annotations

import time
from dataclasses import asdict

import streamlit as st

from lrc_core.budget import check_target, fit_budget, keep_ratio, uniform_ranks, whole_model_ratio
from lrc_core.errors import BudgetError
from lrc_core.jobs import manager
from lrc_core.registry import MethodEntry
from lrc_core.runs.spec import AllocateSpec, ModelRef
from lrc_core.types import ModelCard
from pages.ui import cards, data, estimate, forms, jobs, live, rank_charts, state, words
from pages.ui.frame import empty, frame, guard, page_link, sample_note, show_error
from pages.ui.methods import ALLOCATORS, DECOMPOSITIONS, learns, method_label

METHOD, DECOMPOSITION, PRESET, RUN, AUTO, MOVED = (
    "al_method", "al_decomposition", "al_preset", "al_run", "al_auto", "al_moved_at",
)  # fmt: skip


def moved() -> None:
    """The slider or a setting was changed by hand in this tab; a link never counts as that."""
    st.session_state[MOVED] = time.monotonic()


def slider(card: ModelCard) -> float:
    """The compression slider and what follows from it; returns the share to remove."""
    left, right = st.columns([5, 6], gap="large", vertical_alignment="center")
    rate = left.slider(
        "Compression",
        1,
        state.LARGEST_RATE,
        state.DEFAULT_RATE,
        format="%d %%",
        key=state.RATE,
        on_change=moved,
        bind="query-params",
        help="Share of the block linears' parameters that is removed.",
    )
    share = min(max(int(rate), 1), state.LARGEST_RATE) / 100
    kept = card.params_total - round(share * card.params_linear)
    with right:
        cards.facts(
            [
                ("Parameters", words.count(kept), f"of {words.count(card.params_total)}"),
                (
                    "Size",
                    words.data_size(kept * card.dtype_bytes),
                    f"of {words.data_size(card.params_total * card.dtype_bytes)}, {card.dtype}",
                ),
                (
                    "Whole model shrinks by",
                    words.percent(1 - whole_model_ratio(1 - share, card.params_linear, card.params_total)),
                    "embeddings and head stay whole",
                ),
            ]
        )
    return share


def preview_uniform(card: ModelCard, share: float) -> None:
    """What the uniform rule does at this rate: exact arithmetic, nothing measured."""
    with st.container(border=True, key="preview_uniform", height="stretch"):
        st.markdown("**Uniform** :blue-badge[:material/calculate: preview, quality not measured]")
        try:
            check_target(card.layers, 1 - share)
            ranks = fit_budget(card.layers, uniform_ranks(card.layers, 1 - share), 1 - share)
        except BudgetError as error:
            show_error(error)
            return
        st.caption(f"Every layer keeps the same share: {words.percent(1 - keep_ratio(card.layers, ranks))} removed.")
        rank_charts.draw(card, ranks, f"Uniform ranks at {words.percent(share)}", key="chart_uniform")


def preview_learned(ref: ModelRef, share: float, decomposition: str) -> None:
    """The recorded plan of a learned run that is nearest to this rate."""
    with st.container(border=True, key="preview_learned", height="stretch"):
        learned = [
            view
            for view in data.all_runs(ref, "allocate")
            if learns(view.spec.method) and view.spec.decomposition == decomposition
        ]
        found = data.nearest(data.recorded_plans(learned), share)
        if found is None:
            st.markdown("**Learned** :gray-badge[nothing recorded yet]")
            st.caption(
                f"No run of this model has learned ranks on {DECOMPOSITIONS.get(decomposition).label} yet. A run "
                "records a plan at every whole percent on its way, and this panel then answers at once."
            )
            return
        recorded(found, share)


def recorded(found: data.Recorded, share: float) -> None:
    """One recorded plan: where it comes from, what it keeps."""
    plan, card = data.load_plan(found.path), data.card_of(found.view)
    label = method_label(plan.method)
    st.markdown(f"**Learned** :green-badge[:material/school: {label}, recorded at {words.percent(found.compression)}]")
    away = abs(found.compression - share)
    words_of = (
        f"{words.percent(1 - plan.keep_achieved)} removed, {len(plan.dense)} of {len(card.layers)} layers stay dense."
    )
    if away > 0.0051:
        words_of += f" This is the nearest recorded rate to {words.percent(share)}."
    if not found.view.final:
        words_of += " Its run is still training."
    st.caption(words_of)
    rank_charts.draw(card, plan, f"Learned ranks at {words.percent(found.compression)}", key="chart_learned")
    with st.container(horizontal=True, vertical_alignment="center"):
        sample_note(found.view.sample, found.view.id)
        st.download_button(
            "plan.json",
            found.path.read_bytes(),
            f"plan-{found.view.id}-{round(100 * found.compression):02d}.json",
            "application/json",
            icon=":material/download:",
            on_click="ignore",
        )


def choose_method() -> tuple[MethodEntry, str]:
    """Method, decomposition and preset, from the registries."""
    names = sorted(ALLOCATORS.names(), key=lambda name: not learns(name))
    method = st.pills(
        "Method",
        names,
        wrap=True,
        default=names[0],
        format_func=lambda name: ALLOCATORS.get(name).label,
        required=True,
        key=METHOD,
        on_change=moved,
        bind="query-params",
    )
    entry = ALLOCATORS.get(method or names[0])
    st.caption(f"{entry.summary} :small[:gray[{entry.source}]]")
    preset = st.selectbox(
        "Preset", list(entry.presets), key=f"{PRESET}_{entry.name}", on_change=moved, bind="query-params"
    )
    return entry, preset if preset in entry.presets else next(iter(entry.presets))


def choose_decomposition() -> str:
    """The decomposition; drawn above the previews because they depend on it."""
    names = list(DECOMPOSITIONS.names())
    chosen = st.segmented_control(
        "Decomposition",
        names,
        wrap=True,
        default="whitened" if "whitened" in names else names[0],
        format_func=lambda name: DECOMPOSITIONS.get(name).label,
        required=True,
        key=DECOMPOSITION,
        on_change=moved,
        bind="query-params",
    )
    return chosen or names[0]


def form(ref: ModelRef, share: float, decomposition: str) -> AllocateSpec:
    """The settings of the next job, generated from the registry; returns its spec."""
    entry, preset = choose_method()
    with st.expander("All settings", icon=":material/settings:"):
        overrides = forms.method_settings(entry, preset, "al", moved)
        calibration = forms.calibration("al_cal", moved)
    settings = entry.settings(preset, overrides)
    return AllocateSpec(
        model=ref,
        method=entry.name,
        decomposition=decomposition,
        keep=round(1 - share, 6),
        preset=preset,
        settings=asdict(settings),
        calibration=calibration,
        seed=calibration.seed,
    )


def start(spec: AllocateSpec, *, automatic: bool) -> None:
    """Submit the job and watch it; an automatic one takes the place of what still waits in the queue."""
    run_id = jobs.submit(spec, resume=not automatic)
    st.session_state.pop(MOVED, None)
    if run_id is None:
        return
    if automatic:
        manager.replace_queued(spec)
    st.query_params[RUN] = run_id
    st.rerun()


def covered(ref: ModelRef, spec: AllocateSpec) -> bool:
    """Whether a run with the same settings has already recorded a plan at this rate."""
    same = [
        view
        for view in data.all_runs(ref, "allocate", samples=False)
        if (view.spec.method, view.spec.decomposition, view.spec.settings, view.spec.calibration)
        == (spec.method, spec.decomposition, spec.settings, spec.calibration)
        and not view.status.resumable
    ]
    return any(abs(plan.compression - (1 - spec.keep)) < 0.0051 for plan in data.recorded_plans(same))


def launcher(ref: ModelRef, spec: AllocateSpec) -> None:
    """The toggle, the button and the command line."""
    automatic = st.toggle(
        "Start by itself",
        value=data.fetched(ref),
        key=AUTO,
        persist_state="session",
        help=words.prose("autostart"),
    )
    verb = "Learn ranks" if learns(spec.method) else "Compute ranks"
    if ALLOCATORS.get(spec.method).structured:
        verb = "Prune"
    if st.button(
        f"{verb} at {words.percent(1 - spec.keep)}", type="primary", icon=":material/play_arrow:", key="al_start"
    ):
        start(spec, automatic=False)
    pending = automatic and MOVED in st.session_state
    if pending and covered(ref, spec):
        st.session_state.pop(MOVED, None)
        st.caption(":material/check: A finished run answers this rate; nothing needs to be started.")
    elif pending:
        st.fragment(wait_for_quiet, run_every=0.5)(spec)
    with st.expander("The same from the command line", icon=":material/terminal:"):
        jobs.command(spec)


def wait_for_quiet(spec: AllocateSpec) -> None:
    """Counts two seconds without a change, then starts the job."""
    with guard():
        changed = st.session_state.get(MOVED)
        if changed is None:
            return
        left = state.QUIET_S - (time.monotonic() - changed)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f":material/timer: Starts in {max(0.0, left):.0f} s")
            stopped = st.button("Not now", key="al_not_now", type="tertiary")
        if stopped:
            st.session_state.pop(MOVED, None)
            st.rerun()
        if left <= 0:
            start(spec, automatic=True)


def watched(ref: ModelRef) -> None:
    """The job that the link names, else the newest unfinished one; others in a line each."""
    views = data.all_runs(ref, "allocate", samples=False)
    named = st.query_params.get(RUN, "")
    if named and named not in {view.id for view in views} and data.open_run(named) is not None:
        named = ""  # a job of another model
    unfinished = [view for view in views if not view.final]
    shown = named or (unfinished[0].id if unfinished else views[0].id if views else "")
    if not shown:
        empty(
            "No job yet",
            "Progress, every loss term and the ranks as they change appear here. Close the tab whenever you like: the "
            "job goes on, and this page finds it again.",
            ":material/monitoring:",
        )
        if any(learns(view.spec.method) for view in data.all_runs(kind="allocate")):
            page_link("pages/watch.py", "Watch a recorded run meanwhile", ":material/movie:")
        return
    jobs.panel(shown, live=live.allocate_live)
    for view in unfinished:
        if view.id != shown:
            page_link("pages/allocate.py", f"{jobs.title_of(view.spec)} · {view.status.state}", ":material/visibility:",
                      query={RUN: view.id})  # fmt: skip
    current = data.open_run(shown)
    if current and learns(current.spec.method):
        page_link("pages/watch.py", "Watch it in full width, or export it", ":material/movie:", query={"wa_run": shown})
    if current and current.done:
        page_link("pages/compare.py", "Compare it with the other methods", ":material/balance:")
        page_link("pages/plans.py", "Change its ranks by hand", ":material/edit_square:")


def body(ref: ModelRef) -> None:
    known = data.newest_card(ref)
    if known is None:
        empty(
            "This model has not been read yet",
            "The slider needs the shapes of its layers. Fetch the model and read its spectra first.",
            ":material/cloud_download:",
        )
        views = data.all_runs(ref, samples=False)
        if views and not views[0].done:
            jobs.panel(views[0].id)
        cards.fetch_button(ref)
        return
    card, _ = known
    st.caption(words.prose("allocate"))
    share = slider(card)
    decomposition = choose_decomposition()
    left, right = st.columns(2, gap="medium")
    with left, guard():
        preview_uniform(card, share)
    with right, guard():
        preview_learned(ref, share, decomposition)
    with guard():
        estimate.lagrangian(ref, card, share)
    st.subheader("Learn the ranks")
    with guard():
        left, right = st.columns([3, 2], gap="large")
        with left:
            spec = form(ref, share, decomposition)
        with right:
            launcher(ref, spec)
    with guard():
        watched(ref)


model_ref = frame("allocate")
st.title("Allocate")
with guard():
    body(model_ref)
jobs.rerun_if_asked()
