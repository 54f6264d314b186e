"""Talk: one prompt, the dense model and up to five compressed ones answer, side by side."""

from __future__ import annotations

import random
from textwrap import shorten

import streamlit as st

from lrc_core.errors import LrcError
from lrc_core.kinds.generate import MOST_ANSWERS, asked_of
from lrc_core.names import decomposition_label
from lrc_core.paths import read_only
from lrc_core.results import answers as talk
from lrc_core.results.archive import RunView, archive, asks_for
from lrc_core.runs.spec import AnswerSpec, GenerateSpec, ModelRef, SamplingSpec
from lrc_core.settings import fields_of
from pages.ui.compare import cards as card_views
from pages.ui.shared import forms, jobs
from pages.ui.shared.frame import empty, frame, guard, page_link, sample_note, show_error
from pages.ui.shared.naming import told_apart, when
from pages.ui.shared.prose import prose
from pages.ui.talk import views

PLANS, RUN, BLIND, PROMPT = "ta_plans", "ta_run", "ta_blind", "ta_prompt"
MOST = MOST_ANSWERS - 1
_FEW = 12
"""So many questions stand side by side; more are a list."""
FIRST_PROMPT = "Explain in two sentences why the sky is blue."


def question(ref: ModelRef) -> None:
    """The form: what is asked, and of whom."""
    found = {choice.key: choice for choice in talk.choices(ref)}
    labels = told_apart({key: choice.label for key, choice in found.items()})
    if jobs.instead(_first_question(ref, found)):
        return
    with st.form("ta_form", enter_to_submit=False):
        prompt = st.text_area("Prompt", FIRST_PROMPT, height=90, max_chars=20_000, key=PROMPT)
        chosen = forms.some_of(
            st,
            "Compressed models, beside the dense one",
            labels,
            PLANS,
            first=talk.usual(list(found.values())),
            max_selections=MOST,
            placeholder=f"Choose up to {MOST} plans" if found else "No plans yet: allocate first",
            bind="query-params",
        )
        with st.expander("Sampling", icon=":material/tune:"):
            sampling = _sampling()
        with st.container(horizontal=True, vertical_alignment="center"):
            asked = st.form_submit_button("Ask", type="primary", icon=":material/forum:")
            blind = st.toggle(
                "Blind",
                key=BLIND,
                bind="query-params",
                help="Answers come in random order and without names. Vote, and they are revealed; the vote is kept.",
            )
    with guard():
        _factors_note([talk.answer_of(found[key]) for key in chosen if key in found])
    if asked:
        _ask(ref, prompt, [found[key] for key in chosen if key in found][:MOST], sampling, blind)


def _first_question(ref: ModelRef, found: dict[str, talk.PlanChoice]) -> GenerateSpec:
    """What the form asks when nothing in it is changed."""
    usual = talk.usual(list(found.values()))
    return GenerateSpec(ref, FIRST_PROMPT, (AnswerSpec(), *(talk.answer_of(found[key]) for key in usual)))


def _sampling() -> SamplingSpec:
    """Widgets for every field of the sampling."""
    infos = fields_of(SamplingSpec)
    columns = st.columns(3)
    values = {}
    for index, info in enumerate(infos):
        with columns[index % 3]:
            values[info.name] = forms.widget(info, info.default, f"ta_{info.name}", None)
    return SamplingSpec(**values)


def _factors_note(answers: list[AnswerSpec]) -> None:
    lacking = talk.without_factors(answers)
    if lacking:
        named = ", ".join(map(decomposition_label, lacking))
        st.caption(
            f":material/hourglass_empty: The factors of these plans ({named}) are not on this computer yet. They are "
            "computed before the first answer, which takes minutes, and kept for all later ones."
        )


def _ask(ref: ModelRef, prompt: str, chosen: list[talk.PlanChoice], sampling: SamplingSpec, blind: bool) -> None:
    """Put the question to the worker and watch it; the same question with the same settings is not asked twice."""
    try:
        answers = [AnswerSpec(), *(talk.answer_of(choice) for choice in chosen)]
    except LrcError as error:
        show_error(error)
        return
    if blind and not chosen:
        st.warning("Choose at least one compressed model: one answer alone cannot be compared.")
        return
    if blind:
        random.shuffle(answers)
    run_id = jobs.submit(GenerateSpec(ref, prompt, tuple(answers), sampling))
    if run_id is None:
        return
    if blind:
        talk.mark_blind(run_id)
    st.query_params[RUN] = run_id
    st.rerun()


def conversation(ref: ModelRef) -> None:
    """The question that is looked at, its answers, its command, its cards."""
    asked = talk.questions(ref)
    run_id = str(st.query_params.get(RUN, ""))[:80] or (asked[0].id if asked else "")
    if not run_id:
        empty(
            "Ask, and compare what they write",
            "The dense model and the plans you choose answer the same prompt, one after the other, from one process "
            "that swaps their factors. Speed and size are measured while they write.",
            ":material/forum:",
        )
        return
    view = archive().open(run_id)
    if view is None:
        jobs.panel(run_id)
        return
    if not asks_for(view, GenerateSpec):
        st.warning(f"`{run_id}` is a run of another kind.")
        return
    st.html(views.quoted(view.spec.prompt))
    jobs.panel(run_id, live=views.answers, every=0.5)
    if talk.hidden(view):
        return
    jobs.command(view.spec)
    sample_note(view.sample, view.id)
    with guard():
        card_views.under_answers(view, ref)


def _words_of(view: RunView[GenerateSpec]) -> tuple[str, str, str]:
    """What was asked, of whom where that is one method, and when."""
    whose = "" if talk.hidden(view) else asked_of(view.spec)
    return shorten(view.spec.prompt, 80, placeholder=" …"), whose, when(view)


def earlier(ref: ModelRef) -> None:
    """Questions asked before, to look at again."""
    asked = talk.questions(ref)
    if len(asked) < 2:
        return
    by_id = {view.id: view for view in asked[:50]}
    labels = told_apart({view.id: " · ".join(filter(None, _words_of(view))) for view in by_id.values()})
    if len(by_id) <= _FEW:
        shown = str(st.query_params.get(RUN, "")) or asked[0].id
        st.pills(
            "Questions that were answered",
            list(by_id),
            default=shown if shown in by_id else None,
            format_func=labels.__getitem__,
            key="ta_earlier",
            on_change=_look_at,
        )
        if read_only():
            page_link(
                "pages/compare.py", "One prompt to every measured plan", ":material/balance:", query={"co_view": "Text"}
            )
        return
    st.selectbox(
        "Earlier questions",
        list(by_id),
        index=None,
        format_func=labels.__getitem__,
        placeholder="Look at an earlier question",
        key="ta_earlier",
        on_change=_look_at,
        label_visibility="collapsed",
    )


def _look_at() -> None:
    if chosen := st.session_state.get("ta_earlier"):
        st.query_params[RUN] = chosen


model_ref = frame("talk")
st.title("Talk")
st.caption(prose("talk"))
if not read_only():
    views.worker()
with guard():
    question(model_ref)
with guard():
    earlier(model_ref)
    conversation(model_ref)
with st.expander("Votes", icon=":material/how_to_vote:"), guard():
    views.votes()
jobs.rerun_if_asked()
