"""The Talk page's parts: answers as they are written, the blind vote, the votes so far, the worker's state."""

from __future__ import annotations

import html
import math
import time

import pandas as pd
import streamlit as st

from lrc_core import words
from lrc_core.errors import LrcError
from lrc_core.escape import escaped
from lrc_core.formats.grids import BF16
from lrc_core.jobs import generator
from lrc_core.names import model_label
from lrc_core.quality.votes import SKIPPED, TIE, Vote, keep_vote, tally, votes_csv, votes_path, votes_sentence
from lrc_core.results import answers as talk
from lrc_core.results.archive import AnyRun, RunView, asks_for
from lrc_core.runs.spec import GenerateSpec, ModelRef
from lrc_core.runs.store import RunStore
from lrc_core.runs.transcript import Answer, read_answers
from pages.ui.compare.cards import who
from pages.ui.shared.frame import guard
from pages.ui.shared.naming import download, file_name

_ONE_ROW = 4
"""More answers than these stand in two rows of the same length."""
SCROLLS = 'tabindex="0" role="group"'
"""Of what is cut to a height: who has no mouse scrolls it once it has the focus."""


def quoted(prompt: str) -> str:
    """What was asked, as HTML."""
    return f'<div class="lrc-quote" {SCROLLS} aria-label="Prompt">{html.escape(prompt)}</div>'


def answers(view: AnyRun) -> None:
    """What every model has written so far, side by side; in a blind comparison all at once, and unnamed."""
    if not asks_for(view, GenerateSpec):
        return
    written, secret = read_answers(view.run), talk.hidden(view)
    names = [talk.name_of(answer) for answer in view.spec.answers]
    chosen = talk.vote_on(view)
    together = secret and not view.done
    columns = len(names) if len(names) <= _ONE_ROW else math.ceil(len(names) / 2)
    with st.grid(columns, min_column_width=150):
        for number, name in enumerate(names):
            answer = Answer() if together else written.get(number, Answer())
            with st.container(border=True, height="stretch", gap="small"):
                _head(number, name, secret, chosen)
                _text(answer, view, together)
                if not secret:
                    _figures(answer)
                if secret and view.done:
                    _vote_button(view, number, names)
    if secret and view.done:
        _other_votes(view, names)
    elif secret and not view.final:
        complete = sum(answer.done for answer in written.values())
        st.caption(
            f":material/visibility_off: {complete} of {len(names)} answers are written. They appear together and in "
            "random order, so that neither speed nor place gives them away."
        )


def _head(number: int, name: str, secret: bool, chosen: Vote | None) -> None:
    label = talk.letter(number) if secret else talk.label_of(name)
    color = "" if secret else talk.color_of(name)
    who(label, color, "your choice" if chosen is not None and chosen.place == number else "")


def _text(answer: Answer, view: RunView[GenerateSpec], together: bool) -> None:
    """The text with its line breaks, or what is there instead."""
    if answer.text.strip():
        cursor = "" if answer.done or view.final else '<span class="lrc-cursor">▍</span>'
        said = f"{html.escape(answer.text.strip())}{cursor}"
        st.html(f'<div class="lrc-answer" {SCROLLS} aria-label="Answer">{said}</div>')
    elif answer.done:
        st.caption(talk.NOTHING)
    elif view.final:
        st.caption("Not written.")
    else:
        st.caption("Hidden until all are written." if together else "Waiting for its turn.")


def _figures(answer: Answer) -> None:
    """Speed and size under an answer: measured while it was written, and counted as the model would be served."""
    if not answer.tokens and not answer.done:
        return
    speed = f"{words.figure(answer.tokens_per_s, 2)} tokens/s" if answer.tokens_per_s else "not timed"
    size = f"{words.data_size(BF16.block_bytes * answer.params)} in 16 bits" if answer.params else ""
    count = f"{answer.tokens} token{'s' if answer.tokens != 1 else ''}"
    cut = " (longest allowed)" if answer.ended == "length" else ""
    st.html(
        f'<div class="lrc-measured"><b>{speed}</b>{f"<b>{size}</b>" if size else ""}<span>{count}{cut}</span></div>'
    )


# ---- votes


def _vote_button(view: RunView[GenerateSpec], number: int, names: list[str]) -> None:
    st.button(
        f"{talk.letter(number)} is best",
        icon=":material/thumb_up:",
        key=f"vote_{view.id}_{number}",
        width="stretch",
        on_click=_vote,
        args=(view, names, names[number], number),
    )


def _other_votes(view: RunView[GenerateSpec], names: list[str]) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "No difference", icon=":material/balance:", key=f"tie_{view.id}", on_click=_vote, args=(view, names, TIE)
        )
        st.button(
            "Reveal without voting",
            icon=":material/visibility:",
            key=f"skip_{view.id}",
            on_click=_vote,
            args=(view, names, SKIPPED),
        )
        st.caption("Which answer is best? Names, speed and size are shown afterwards.")


def _vote(view: RunView[GenerateSpec], names: list[str], chosen: str, place: int = -1) -> None:
    vote = Vote(time.time(), view.id, view.spec.model.source, view.spec.prompt, tuple(names), chosen, place)
    try:
        keep_vote(votes_path(RunStore().root), vote)
    except LrcError as error:
        st.toast(escaped(str(error)), icon=":material/error:", duration="long")
    st.session_state["rerun_page"] = True


def votes() -> None:
    """The votes so far: one sentence, counts, the file."""
    found = talk.votes()
    labels = {name: talk.label_of(name) for vote in found for name in vote.answers}
    st.markdown(escaped(votes_sentence(found, labels)))
    rows = tally(found)
    if rows:
        st.dataframe(
            pd.DataFrame(
                {
                    "Who": [labels[row.who] for row in rows],
                    "Judged": [row.shown for row in rows],
                    "Chosen as best": [row.chosen for row in rows],
                    "By guessing": [f"{row.expected:.1f}" for row in rows],
                    "No favourite": [row.ties for row in rows],
                }
            ),
            hide_index=True,
            alt="Votes by model",
        )
    if found:
        with st.container(horizontal=True, vertical_alignment="center"):
            download(
                "Votes (CSV)",
                votes_csv(found),
                file_name("votes of blind comparisons", ending="csv"),
                key="ta_votes_csv",
            )
            st.caption(f"Kept on this computer only: `{votes_path(RunStore().root)}`")


# ---- the worker


@st.fragment(run_every=2.0)
def worker() -> None:
    """Where the one generation process stands, and a button that sends it away."""
    with guard():
        found = generator.find(RunStore())
        if found is None:
            st.caption(
                ":material/power_settings_new: The generation worker is not running; the first question starts it."
            )
            return
        held = f" with **{escaped(model_label(ModelRef(found.model)))}** in memory" if found.model else ""
        with st.container(horizontal=True, vertical_alignment="center"):
            if found.state == "idle":
                left = words.duration(generator.seconds_left(found))
                st.badge("Idle", icon=":material/bedtime:", color="gray")
                st.caption(f"The generation worker waits{held}. Released in {left}.")
                st.button("Release now", icon=":material/eject:", key="ta_release", on_click=_release)
            else:
                icon, color, said = _STATES.get(found.state, _STATES["starting"])
                st.badge(said, icon=icon, color=color)  # type: ignore[arg-type]
                st.caption(f"The generation worker{held}.")


_STATES = {
    "starting": (":material/rocket_launch:", "orange", "Starting"),
    "waiting": (":material/schedule:", "orange", "Waiting for the device"),
    "busy": (":material/sync:", "green", "At work"),
}


def _release() -> None:
    generator.release(RunStore())
