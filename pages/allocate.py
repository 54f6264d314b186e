"""Allocate: choose a size, see what follows at once, and learn the ranks."""

from __future__ import annotations

from dataclasses import asdict

import streamlit as st

from lrc_core import words
from lrc_core.budget import keep_at, stored_card
from lrc_core.escape import escaped
from lrc_core.kinds import title_of
from lrc_core.names import method_label
from lrc_core.quality.starter_bench import RECOMMENDED, Recommendation, starter_words
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS, MethodEntry
from lrc_core.results import series
from lrc_core.results.archive import RunView, archive, asks_for, same_model
from lrc_core.results.forecasts import can_be_watched
from lrc_core.results.plans import passes_rates, recorded_plans
from lrc_core.results.series import LARGEST_RATE
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec, ModelRef
from lrc_core.types import ModelCard, Storage
from pages.ui.allocate import budget, finished, panels
from pages.ui.allocate import slider as ratedrag
from pages.ui.allocate.launch import FIRST, RUN, UPDATE, launcher, moved, set_otherwise, what_follows
from pages.ui.shared import cards, choices, forms, jobs, state, take_away
from pages.ui.shared.frame import empty, frame, guard, page_link
from pages.ui.shared.naming import told_apart, when
from pages.ui.shared.prose import prose
from pages.ui.watch import training_run

METHOD, DECOMPOSITION, STORAGE, PRESET, LEARNED, SETTINGS = (
    "al_method", "al_decomposition", "al_storage", "al_preset", "al_learned", "al_settings",
)  # fmt: skip


def current_rate() -> int:
    """Where the slider stands, in whole percent: the link says it, else this tab, where another page's slider set it.

    The slider is no widget that Streamlit could bind to the link, so this page keeps the two alike itself.
    """
    named = st.query_params.get(state.RATE, "")
    known = named.isdecimal() and len(named) <= len(str(LARGEST_RATE))
    rate = int(named) if known else int(st.session_state.get(state.RATE, state.DEFAULT_RATE))
    rate = min(max(rate, 1), LARGEST_RATE)
    st.session_state[state.RATE] = rate
    if (named or str(state.DEFAULT_RATE)) != str(rate):
        st.query_params[state.RATE] = str(rate)
    return rate


def let_go() -> None:
    """The slider was let go: its rate becomes that of the page and of the link."""
    rate = ratedrag.released_at()
    if rate is not None:
        st.session_state[state.RATE], st.query_params[state.RATE] = rate, str(rate)
        moved()


def choose_learned(ref: ModelRef, decomposition: str, storage: Storage) -> RunView[AllocateSpec] | None:
    """The learned run whose plans the slider shows; a choice only where there are several."""
    runs = series.learned_runs(ref, decomposition, storage)
    if len(runs) < 2:
        return next(iter(runs.values()), None)

    def label(run_id: str) -> str:
        view = runs[run_id]
        last = words.removed(view.spec.keep)
        return f"{method_label(view.spec.method)} to {last} · {when(view)}"

    labels = told_apart({run_id: label(run_id) for run_id in runs})
    named = st.query_params.get(LEARNED, "")
    index = list(runs).index(named) if named in runs else 0
    chosen = forms.one_of(
        st, "Learned run", labels, LEARNED, first=index, bind="query-params",
        help="The run whose recorded plans the slider shows.",
    )  # fmt: skip
    return runs.get(chosen) or next(iter(runs.values()))


def decompose(name: str) -> None:
    """A decomposition stands in the form from now on."""
    st.session_state[DECOMPOSITION] = name
    set_otherwise()


def recorded_elsewhere(ref: ModelRef) -> None:
    """Where nothing was learned on this decomposition under this law: the way to where something was."""
    views = archive().runs(AllocateSpec, ref)
    view = next((view for view in views if passes_rates(view.spec) and recorded_plans([view])), None)
    if view is None:
        return
    label = f"Show the plans that {method_label(view.spec.method)} recorded"
    st.button(label, icon=":material/history:", type="tertiary", key="al_elsewhere", on_click=show_recorded,
              args=(view.spec.decomposition, view.spec.storage))  # fmt: skip


def show_recorded(decomposition: str, law: str) -> None:
    """The slider's plans on another decomposition, stored otherwise."""
    st.session_state[DECOMPOSITION], st.session_state[STORAGE] = decomposition, law
    set_otherwise()


def take(choice: Recommendation) -> None:
    """One of the three choices: its method, decomposition and storage stand in the form from now on."""
    method = choice.methods[0]
    st.session_state[METHOD], st.session_state[DECOMPOSITION] = method, choice.decomposition
    st.session_state[STORAGE] = choice.storage
    st.query_params[UPDATE] = choice.update
    set_otherwise()


def chosen_one(decomposition: str, storage: str) -> Recommendation | None:
    """Which of the three the form says, from the widgets' state or the link; None where it is another method."""
    labels = {ALLOCATORS.get(name).label: name for name in ALLOCATORS.names()}
    linked = labels.get(st.query_params.get(METHOD, ""), FIRST.methods[0])
    method = str(st.session_state.get(METHOD) or linked)
    fitting = (one for one in RECOMMENDED if one.fits(method, decomposition, storage, what_follows()))
    return next(fitting, None)


def choose_method(decomposition: str, storage: str) -> tuple[MethodEntry, str]:
    """One of three choices, or any method; and its preset, from the registries."""
    chosen = chosen_one(decomposition, storage)
    choices.three_choices(chosen, "al_take", take)
    names = choices.ordered_methods()
    with st.expander("All methods", icon=":material/apps:", expanded=chosen is None):
        method = st.pills(
            "Method",
            names,
            wrap=True,
            default=FIRST.methods[0],
            format_func=lambda name: ALLOCATORS.get(name).label,
            required=True,
            key=METHOD,
            on_change=set_otherwise,
            bind="query-params",
        )
        choices.all_methods_table(names)
    entry = ALLOCATORS.get(method or FIRST.methods[0])
    st.caption(f"**{entry.label}.** {entry.summary} {starter_words(entry.name)} :small[:gray[{entry.source}]]")
    presets = list(entry.presets)
    preset = presets[0]
    if presets[1:]:
        preset = st.selectbox(
            "Preset", presets, key=f"{PRESET}_{entry.name}", on_change=set_otherwise, bind="query-params"
        )
    return entry, preset if preset in entry.presets else presets[0]


def choose_decomposition() -> str:
    """The decomposition; drawn above the previews because they depend on it."""
    names = list(DECOMPOSITIONS.names())
    labels = {name: DECOMPOSITIONS.get(name).label for name in names}
    more = {"wrap": True, "on_change": set_otherwise, "bind": "query-params"}
    return forms.pick(st, "Decomposition", labels, FIRST.decomposition, DECOMPOSITION, **more)


def form(ref: ModelRef, card: ModelCard, keep: float, decomposition: str) -> AllocateSpec:
    """The settings of the next job, generated from the registry; its card has layers as they are to be stored."""
    entry, preset = choose_method(decomposition, card.layers[0].storage)
    fold = st.expander("All settings", icon=":material/settings:", key=SETTINGS, bind="query-params")
    overrides, calibration, multiple = {}, CalibrationSpec(), 1
    # Two dozen widgets would cost every visit a third of a second: they are drawn when a user looks at them, or has
    # changed one, which the link then says.
    if fold.open or any(key.startswith((f"al_{entry.name}_", "al_cal_", "al_multiple")) for key in st.query_params):
        with fold:
            multiple = forms.rank_multiple("al_multiple", set_otherwise)
            overrides = forms.method_settings(entry, preset, "al", set_otherwise)
            calibration = forms.calibration("al_cal", set_otherwise)
    settings = entry.settings(preset, overrides)
    spec = AllocateSpec(
        model=ref,
        method=entry.name,
        decomposition=decomposition,
        keep=keep,
        preset=preset,
        settings=asdict(settings),
        calibration=calibration,
        seed=calibration.seed,
        storage=entry.storage(card.layers[0].storage),
        rank_multiple=multiple,
    )
    return budget.choose(spec, entry, card, set_otherwise, decompose)


def watched(ref: ModelRef) -> None:
    """The job in the link, else the newest unfinished one; one line for each of the others."""
    views = archive().runs(AllocateSpec, ref, samples=False)
    named = st.query_params.get(RUN, "")
    known = archive().job(named) if named else None
    if known is not None and not (asks_for(known, AllocateSpec) and same_model(known.spec.model, ref)):
        named = ""  # a job of another model, or of another kind
    unfinished = [view for view in views if not view.final]
    shown = named or (unfinished[0].id if unfinished else views[0].id if views else "")
    if not shown:
        empty(
            "No job yet",
            "Progress, every loss term and the ranks as they change appear here. Close the tab whenever you like: the "
            "job goes on, and this page finds it again.",
            ":material/monitoring:",
        )
        if any(map(can_be_watched, archive().runs(AllocateSpec))):
            page_link("pages/watch.py", "Watch a recorded run meanwhile", ":material/movie:")
        return
    jobs.panel(shown, live=training_run.allocate_live)
    current = archive().job(shown)
    if current is not None and current.done and asks_for(current, AllocateSpec):
        finished.show(current, what_follows())
    for view in unfinished:
        if view.id != shown:
            named = f"{escaped(title_of(view.spec))} · {jobs.state_word(view.status.state)}"
            page_link("pages/allocate.py", named, ":material/visibility:", query={RUN: view.id})
    current = archive().open(shown, AllocateSpec)
    if can_be_watched(current):
        page_link("pages/watch.py", "Watch it in full width, or export it", ":material/movie:", query={"wa_run": shown})
    if current and current.done:
        page_link("pages/compare.py", "Compare it with the other methods", ":material/balance:")
        page_link("pages/plans.py", "Change its ranks by hand", ":material/edit_square:")
        page_link("pages/runs.py", "Update its factors, or measure it", ":material/forward:", query={"ru_run": shown})
        take_away.section(ref, take_away.offers_of(current), "al")


def body(ref: ModelRef) -> None:
    known = archive().newest_card(ref)
    if known is None:
        empty(
            "This model has not been read yet",
            "The slider needs the shapes of its layers. Fetch the model and read its spectra first.",
            ":material/cloud_download:",
        )
        views = archive().runs(ref=ref, samples=False)
        if views and not views[0].done:
            jobs.panel(views[0].id)
        cards.fetch_button(ref)
        return
    card, _ = known
    st.caption(prose("allocate"))
    cards.coverage(card)
    rate = current_rate()
    with st.container(horizontal=True):
        decomposition = choose_decomposition()
        storage = forms.storage(STORAGE, set_otherwise, first=FIRST.storage)
    countdown = st.container(key="al_countdown")
    card = stored_card(card, storage)
    run = choose_learned(ref, decomposition, storage)
    if run is not None:
        jobs.changed_note(run)
    with guard():
        shown = panels.shown(ref, card, run, decomposition)
        ratedrag.draw_slider(card, rate, panels.panels(shown), let_go)
        if run is None:
            recorded_elsewhere(ref)
        panels.below(ref, shown, rate)
    st.header("Learn the ranks")
    with guard():
        left, right = st.columns([3, 2], gap="large")
        with left:
            spec = form(ref, card, keep_at(rate), decomposition)
        with right:
            launcher(ref, card, spec, countdown)
    with guard():
        watched(ref)


model_ref = frame("allocate")
st.title("Allocate")
with guard():
    body(model_ref)
jobs.rerun_if_asked()
