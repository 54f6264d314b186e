"""Learn: a guided path of eight short steps, each one picture to touch."""

from __future__ import annotations

from urllib.parse import urlencode

import streamlit as st

from lrc_core.paths import start_command
from lrc_core.runs.spec import ModelRef
from pages.ui import classroom
from pages.ui.learn import presenting, progress
from pages.ui.learn.lesson_text import folds, lesson_text
from pages.ui.learn.steps import STEPS
from pages.ui.shared import jobs, state
from pages.ui.shared.frame import frame, guard
from pages.ui.shared.pictures import draw_picture
from pages.ui.shared.prose import prose


def stepper(current: int) -> None:
    """All steps: any of them can be the next."""
    done = progress.done()
    with st.container(horizontal=True, gap="xsmall", key="learn_steps"):
        for number, entry in enumerate(STEPS, start=1):
            st.button(
                f"{number} · {entry.short}",
                key=f"learn_step_{number}",
                type="primary" if number == current else "secondary",
                icon=":material/check:" if number in done else None,
                on_click=progress.go_to,
                args=(number,),
            )


def step(current: int, ref: ModelRef) -> None:
    """One step: words, picture, what to try, folds."""
    entry = STEPS[current - 1]
    text = lesson_text(entry.text)
    st.header(f"{current} · {text.title}")
    st.markdown(text.body)
    with guard():
        entry.draw(ref)
    if text.notice:
        with st.container(border=True):
            st.markdown(f":material/touch_app: **Try.** {text.notice}")
    folds(text)


def onward(current: int) -> None:
    """Back, on, the link to this step, and starting over."""
    with st.container(horizontal=True, vertical_alignment="center"):
        if current > 1:
            st.button(
                "Back", icon=":material/arrow_back:", key="learn_back", on_click=progress.go_to, args=(current - 1,)
            )
        if current < progress.COUNT:
            st.button(
                f"On: {STEPS[current].short.lower()}",
                type="primary",
                icon=":material/arrow_forward:",
                key="learn_on",
                on_click=progress.go_on,
                args=(current,),
            )
        st.space("stretch")
        st.button("Present this step", icon=":material/slideshow:", key="learn_show_step", on_click=presenting.begin)
        with st.popover("Link to this step", icon=":material/link:"):
            share(link_to(current))
        with st.popover("Start over", icon=":material/restart_alt:"):
            st.markdown("Forget which steps are done, and the answers of the quiz?")
            counted = " Answers that were checked stay in the counts of the class, without a name."
            known = "Only this browser remembers them; nobody else sees them."
            st.caption(known + (counted if classroom.address() else ""))
            st.button("Forget them", key="learn_forget", on_click=_start_over)


def share(link: str) -> None:
    """A link to show or to send; with its QR code where other devices can open it, else how they could."""
    st.code(link, language=None, wrap_lines=True)
    if classroom.reachable(link):
        st.caption("Opens exactly here on every device in this network.")
        draw_picture(classroom.qr_picture(link), "learn_qr")
    else:
        st.caption(
            "Opens exactly here, on this computer only. For others in the room, start it with "
            f"`{start_command('class')}`."
        )


def link_to(step: int) -> str:
    """A step as a link that names its model: what somebody else chose last does not change what it shows."""
    chosen = {key: str(st.query_params[key]) for key in (state.MODEL, state.REVISION) if key in st.query_params}
    query = {progress.STEP: str(step), **chosen}
    return classroom.link("learn", **query) or f"{base_url()}?{urlencode(query)}"


def base_url() -> str:
    """This page's address without its query."""
    return str(st.context.url or "/learn").partition("?")[0]


def _start_over() -> None:
    progress.forget()
    progress.go_to(1)


def body(ref: ModelRef) -> None:
    current = progress.current_step()
    progress.keep(f"{current} before a room" if presenting.on() else str(current))
    if presenting.on():
        presenting.draw(current, ref)
        return
    st.title("Learn")
    st.caption(prose("learn"))
    stepper(current)
    step(current, ref)
    onward(current)


model_ref = frame("learn")
with guard():
    body(model_ref)
jobs.rerun_if_asked()
