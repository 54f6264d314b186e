"""Plans: make one by hand, take one in, give one out, and measure it against the machine's."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lrc_core.allocate.curves.hand import HAND
from lrc_core.budget import USUAL_KEEP, keep_at, plan_params, whole_percent
from lrc_core.errors import BudgetError, LrcError
from lrc_core.escape import escaped
from lrc_core.kinds.evaluate import evaluation_words
from lrc_core.names import method_label
from lrc_core.paths import read_only
from lrc_core.plan import variant_name
from lrc_core.results.archive import RunView, archive
from lrc_core.results.drafts import (
    Draft,
    calibration_of,
    draft_of,
    imported,
    plan_file,
    plan_of,
    save_plan,
    saved_plans,
    uniform_draft,
)
from lrc_core.results.plans import PlanSource, load_plan, nearest, recorded_plans
from lrc_core.runs.spec import AllocateSpec, EvaluateSpec, EvaluationSpec, ModelRef
from lrc_core.types import ModelCard
from pages.ui.plans import editor, folders
from pages.ui.shared import access, cards, forms, jobs, take_away
from pages.ui.shared.frame import empty, frame, guard, page_link, show_error
from pages.ui.shared.naming import download, file_name
from pages.ui.shared.prose import prose

START, UPLOAD, NAME, RUN, STORAGE = "pl_start", "pl_upload", "pl_name", "pl_run", "pl_storage"
UNIFORM = "uniform"


def beginnings(ref: ModelRef, card: ModelCard, keep: float) -> dict[str, str]:
    """Starting plans, by key: the uniform rule, recorded plans near this size, saved plans."""
    found = {UNIFORM: "Uniform rule"}
    methods: dict[str, list[RunView[AllocateSpec]]] = {}
    for view in archive().runs(AllocateSpec, ref):
        variant = variant_name(view.spec.method, "", view.spec.storage)
        methods.setdefault(f"{variant}/{view.spec.decomposition}", []).append(view)
    for name, views in sorted(methods.items()):
        near = nearest(recorded_plans(views), keep)
        if near is not None:
            found[str(near.path)] = f"{method_label(name.partition('/')[0])} · {near.words}"
    for path in saved_plans(card):
        found[str(path)] = f"Saved: {path.stem}"
    return found


def export_name(card: ModelCard, keep: float) -> str:
    """What the file of the Export button is called."""
    return file_name(card.name, "by hand", f"{whole_percent(keep)} % removed", "plan", ending="json")


def begin(card: ModelCard, choice: str, label: str, keep: float) -> None:
    """Replace the draft by a starting plan; Undo brings the old draft back."""
    try:
        plan = None if choice == UNIFORM else load_plan(Path(choice))
        draft = draft_of(plan, card, label) if plan else uniform_draft(card, keep)
    except LrcError as error:
        st.toast(escaped(str(error)), icon=":material/error:", duration="long")
        return
    editor.put(card, draft)


def take_in(card: ModelCard) -> None:
    """An uploaded plan becomes the draft."""
    file = st.session_state.get(UPLOAD)
    if file is None:
        return
    try:
        editor.put(card, imported(file.getvalue(), card, file.name))
        st.session_state.pop("pl_refused", None)
    except LrcError as error:
        st.session_state["pl_refused"] = error


def first_draft(card: ModelCard, keep: float) -> Draft:
    """What a tab without a draft shows: the uniform rule at the slider's rate, at the usual one where none is."""
    try:
        return uniform_draft(card, keep)
    except BudgetError:
        return uniform_draft(card, USUAL_KEEP)


def head(place: DeltaGenerator, ref: ModelRef, card: ModelCard, draft: Draft, keep: float) -> None:
    """Beginning, storage, import and export; ``place`` is beside the slider."""
    options = beginnings(ref, card, keep)
    with place, st.container(horizontal=True, vertical_alignment="bottom"):
        choice = st.selectbox("Begin with", list(options), format_func=lambda key: options.get(key, key), key=START)
        st.button(
            "Begin",
            icon=":material/restart_alt:",
            key="pl_begin",
            on_click=begin,
            args=(card, choice, options.get(choice, ""), keep),
        )

    def store_otherwise() -> None:
        editor.change(card, draft, lambda now, stored: now.with_storage(stored, st.session_state[STORAGE]))

    st.session_state[STORAGE] = draft.storage
    forms.storage(STORAGE, store_otherwise, linked=False)
    with st.container(horizontal=True):
        with st.popover("Import", icon=":material/upload:"):
            if access.is_guest():
                st.caption(prose("guest"))
            else:
                st.file_uploader("A plan file (JSON)", type="json", key=UPLOAD, on_change=take_in, args=(card,))
        download("Export", json.dumps(plan_of(draft, card, keep).to_dict(), indent=1), export_name(card, keep))
        editor.undo_button(card)
    if error := st.session_state.get("pl_refused"):
        show_error(error)


def evaluation(ref: ModelRef, card: ModelCard, draft: Draft, keep: float) -> EvaluationSpec:
    """Name, settings and the button that measures; returns what is measured on."""
    st.header("Measure it")
    left, right = st.columns([2, 3], gap="medium", vertical_alignment="bottom")
    name = left.text_input("Name in the score list", value=draft.name, key=NAME, max_chars=60).strip() or "My plan"
    draft = replace(draft, name=name)
    with right.expander("What is measured", icon=":material/settings:"):
        wanted = forms.evaluation("pl_ev")
    exported = ["lrc", "evaluate", ref.source, "--plan", export_name(card, keep), *evaluation_words(wanted)]
    if jobs.instead(shlex.join(exported)):
        return wanted
    plan = plan_of(draft, card, keep)
    over = plan_params(card.layers, draft.ranks) > keep * card.params_linear
    problem = editor.why_not(card, over)
    spec = EvaluateSpec(
        model=ref,
        plan=plan.to_dict(),
        calibration=calibration_of(draft),
        evaluation=wanted,
    )
    pressed = st.button(
        "Measure this plan", type="primary", icon=":material/play_arrow:", key="pl_measure", disabled=bool(problem)
    )
    if not problem:
        jobs.price_note(spec)
    if pressed:
        path = save_plan(draft, card, keep)
        if run_id := jobs.submit(spec):
            st.query_params[RUN] = run_id
            st.toast(f"Saved as {escaped(str(path))}", icon=":material/save:")
            st.rerun()
    if problem:
        st.caption(f":material/block: {problem}")
    with st.expander("The same from the command line", icon=":material/terminal:"):
        words_of = ["lrc", "evaluate", ref.source, "--plan", str(plan_file(draft, card, keep))]
        st.code(shlex.join([*words_of, *evaluation_words(wanted)]), language="bash", wrap_lines=True)
        st.caption("The button saves the plan under this name first. To spend what its locks leave, without the page:")
        spend = ["lrc", "plan", ref.source, "--from", words_of[-1], "--keep", str(keep), "--save", words_of[-1]]
        st.code(shlex.join(spend), language="bash", wrap_lines=True)
    return wanted


def watched(ref: ModelRef) -> None:
    """The measurement in the link, else an unfinished one of a plan made by hand."""
    own = archive().runs(EvaluateSpec, ref, samples=False)
    views = [view for view in own if (view.spec.plan or {}).get("method") == HAND]
    named = st.query_params.get(RUN, "")
    shown = next((view for view in views if view.id == named), None)
    shown = shown or next((view for view in views if not view.final), None)
    if shown is not None:
        jobs.panel(shown.id)


def drafted(card: ModelCard, draft: Draft, keep: float) -> take_away.Offer:
    """The plan as it stands; it is saved under its name when it is exported."""
    plan = plan_of(draft, card, keep).to_dict()
    return take_away.Offer(
        draft.name,
        export_name(card, keep) if read_only() else str(plan_file(draft, card, keep)),
        lambda: PlanSource(plan, "", calibration_of(draft)),
        lambda: save_plan(draft, card, keep),
    )


def body(ref: ModelRef) -> None:
    known = archive().newest_card(ref)
    if known is None:
        empty(
            "This model has not been read yet",
            "A plan needs the shapes of the model's layers. Fetch the model and read its spectra first.",
            ":material/cloud_download:",
        )
        cards.fetch_button(ref)
        folders.section(ref)
        return
    card, read = known
    st.markdown(prose("plans"))
    jobs.changed_note(read)
    cards.coverage(card)
    editor.offer_last(card)
    left, right = st.columns(2, gap="medium", vertical_alignment="bottom")
    with left:
        keep = keep_at(forms.rate_slider(st, "The budget: a plan that keeps more than this leaves does not count."))
    draft = editor.current(card) or first_draft(card, keep)
    card = draft.stored(card)
    head(right, ref, card, draft, keep)
    editor.budget(card, draft, keep)
    with guard():
        editor.editor(ref, card, draft, keep)
    with guard():
        wanted = evaluation(ref, card, draft, keep)
        watched(ref)
        editor.score_list(ref, keep, wanted)
    over = plan_params(card.layers, draft.ranks) > keep * card.params_linear
    take_away.section(ref, [] if over else [drafted(card, draft, keep)], "pl")
    folders.section(ref)
    page_link("pages/compare.py", "All measured methods side by side", ":material/balance:")


model_ref = frame("plans")
st.title("Plans")
with guard():
    body(model_ref)
jobs.rerun_if_asked()
