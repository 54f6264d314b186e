"""One step for a whole room: its picture as large as the screen, without sidebar, settings and small print."""

from __future__ import annotations

import streamlit as st

from lrc_core.runs.spec import ModelRef
from pages.ui.learn import progress
from pages.ui.learn.lesson_text import lesson_text
from pages.ui.learn.steps import STEPS
from pages.ui.shared.frame import guard
from pages.ui.shared.prose import component

SHOW = "learn_show"


def on() -> bool:
    """Whether the link asks for it."""
    return str(st.query_params.get(SHOW, "")) == "1"


def begin() -> None:
    """Show the current step to a room."""
    st.query_params[SHOW] = "1"


def leave() -> None:
    """Back to the page with everything."""
    st.query_params.pop(SHOW, None)


def draw(current: int, ref: ModelRef) -> None:
    """The step, and a bar that turns to the others; so do Page Up and Page Down, which presentation clickers send."""
    entry = STEPS[current - 1]
    text = lesson_text(entry.text)
    with st.container(key="learn_presented"):
        with st.container(horizontal=True, vertical_alignment="center", key="learn_turns"):
            st.button(
                "Back", icon=":material/arrow_back:", key="learn_show_back", shortcut="PageUp", disabled=current == 1,
                on_click=progress.go_to, args=(current - 1,),
            )  # fmt: skip
            st.markdown(f"{current} / {progress.COUNT}", width="content")
            st.button(
                "On", icon=":material/arrow_forward:", key="learn_show_on", shortcut="PageDown",
                disabled=current == progress.COUNT, on_click=progress.go_to, args=(current + 1,),
            )  # fmt: skip
            st.space("stretch")
            _full_screen()
            st.button("Leave", icon=":material/close:", key="learn_show_leave", shortcut="Escape", on_click=leave)
        st.title(text.title)
        with guard():
            entry.draw(ref)


def _full_screen() -> None:
    """The browser alone may fill the screen, and only when its own button is pressed."""
    button = component("lrc_full_screen", "learn/fullscreen", '<button type="button">Full screen</button>')
    button(key="learn_full_screen", width=130, height="content")
