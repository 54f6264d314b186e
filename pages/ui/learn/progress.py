"""Which step is shown, and what is remembered: in the small settings file beside the run folders.

The URL decides (``?learn_step=3``), so that a teacher can start anywhere and a link is a place; without it the page
goes on where the reader was last.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.ui import state

STEP, COUNT = "learn_step", 8
_SETTING = "learn"


def remembered() -> dict[str, Any]:
    """``{"step": 3, "done": [1, 2], "answers": {"0": 2}, "finished": false}``, whatever of it is there."""
    found = read_setting()
    return found if isinstance(found, dict) else {}


def read_setting() -> Any:
    return state.read_settings().get(_SETTING)


def remember(**changes: Any) -> None:
    """Change some of it; nothing is written when nothing changes."""
    before = remembered()
    after = {**before, **changes}
    if after != before:
        state.write_settings(**{_SETTING: after})


def forget() -> None:
    """Start over: the file's part, and the answers in this tab."""
    state.write_settings(**{_SETTING: {}})
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
    except (TypeError, ValueError):
        return None
    return step if 1 <= step <= COUNT else None
