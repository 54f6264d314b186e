"""Which step is shown, and what is remembered of the reader: in a cookie of the reader's own browser.

A file on the server would be shared by everyone who opens the app. A cookie comes with the connection, so the first
drawing of a page knows it already; without one (no browser, cookies switched off) the session's own memory remains.

The URL decides (``?learn_step=3``), so that a teacher can start anywhere and a link is a place; without it the page
goes on where the reader was last.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, unquote

import streamlit as st

from pages.ui.shared.prose import component

STEP, COUNT = "learn_step", 8
COOKIE = "lrc_learn"
VERDICT = "learn_verdict"
"""Key of the place where the quiz says what was right."""
_SESSION = "learn_memory"


def remembered() -> dict[str, Any]:
    """``{"step": 3, "done": [1, 2], "answers": {"0": 2}, "finished": false}``, whatever of it is there."""
    if _SESSION not in st.session_state:
        st.session_state[_SESSION] = unpacked(in_browser())
    found = st.session_state[_SESSION]
    return found if isinstance(found, dict) else {}


def in_browser() -> str:
    """The cookie as the browser sent it when it connected; empty when there is none."""
    cookies: dict[str, str] = st.context.cookies.to_dict()
    return cookies.get(COOKIE, "")


def packed(memory: dict[str, Any]) -> str:
    """A memory as the value of a cookie."""
    return quote(json.dumps(memory, separators=(",", ":")), safe="")


def unpacked(value: str) -> dict[str, Any]:
    """The memory in a cookie's value; empty when it is damaged: the browser's owner can write anything there."""
    try:
        found = json.loads(unquote(value))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def keep(shown: str) -> None:
    """Have the browser keep the memory, and show the top of a view (of a step) that was not shown before.

    Once the quiz is checked, the browser shows what was right.
    """
    keeper = component("lrc_learn_keeper", "learn/keeper")
    known = remembered()
    verdict = VERDICT if known.get("finished") is True else ""
    keeper(data={"cookie": f"{COOKIE}={packed(known)}", "step": shown, "verdict": verdict}, key="learn_keeper")


def remember(**changes: Any) -> None:
    """Change some of it."""
    st.session_state[_SESSION] = {**remembered(), **changes}


def forget() -> None:
    """Start over: the memory, and the answers in this tab."""
    st.session_state[_SESSION] = {}
    for key in [key for key in st.session_state if str(key).startswith("learn_answer_")]:
        del st.session_state[key]


def current_step() -> int:
    """The step of the URL, else the one last shown, else the first; written into the URL and remembered."""
    step = _valid(st.query_params.get(STEP)) or _valid(remembered().get("step")) or 1
    if st.query_params.get(STEP) != str(step):
        st.query_params[STEP] = str(step)
    remember(step=step)
    return step


def go_to(step: int) -> None:
    """Show another step."""
    st.query_params[STEP] = str(step)


def go_on(step: int) -> None:
    """This step is done: mark it and show the next."""
    remember(done=sorted(done() | {step}))
    go_to(min(step + 1, COUNT))


def done() -> set[int]:
    """Steps that were finished with the button below them; the last one with its quiz."""
    listed = remembered().get("done")
    return {step for step in map(_valid, listed if isinstance(listed, list) else []) if step}


def _valid(value: Any) -> int | None:
    """A step's number, None for anything else."""
    try:
        step = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return step if 1 <= step <= COUNT else None
