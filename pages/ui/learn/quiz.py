"""Five questions; answers are remembered, explanations come at the end. The questions are in ``quiz.md``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import streamlit as st

from pages.ui.learn import progress
from pages.ui.learn.lesson_text import FOLDER


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        words: what is asked.
        options: the answers.
        right: index of the right one.
        why: the explanation.
        step: the step that answers it.
    """

    words: str
    options: tuple[str, ...]
    right: int
    why: str
    step: int


@cache
def questions() -> tuple[Question, ...]:
    """The questions of the file: ``## question``, ``- [x] right`` or ``- [ ] wrong``, ``> step: explanation``.

    Raises:
        ValueError: a question without exactly one right answer, or without its step (a mistake in the file).
    """
    found = []
    for part in (FOLDER / "quiz.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        lines = [line.strip() for line in part.strip().splitlines()]
        options = [line[6:] for line in lines if line.startswith("- [")]
        (right,) = [
            number for number, line in enumerate(line for line in lines if line.startswith("- [")) if line[3] == "x"
        ]
        step, _, why = " ".join(line[2:] for line in lines if line.startswith("> ")).partition(": ")
        found.append(Question(lines[0], tuple(options), right, why, int(step)))
    return tuple(found)


def draw() -> None:
    """The questions, and once all are answered and checked, what was right and why."""
    st.header("Five questions")
    listed = questions()
    known = progress.remembered().get("answers")
    answers = known if isinstance(known, dict) else {}
    chosen = [_ask(number, question, answers.get(str(number))) for number, question in enumerate(listed)]
    answered = [answer for answer in chosen if answer is not None]
    complete = len(answered) == len(listed)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Check my answers",
            type="primary",
            icon=":material/fact_check:",
            key="learn_check",
            disabled=not complete,
            on_click=_check,
        )
        if not complete:
            st.caption(f"{len(answered)} of {len(listed)} answered.")
    if complete and progress.remembered().get("finished") is True:
        explain(listed, answered)


def _ask(number: int, question: Question, known: object) -> int | None:
    """One question; what was chosen."""
    first = known if isinstance(known, int) and 0 <= known < len(question.options) else None
    key = f"learn_answer_{number}"
    st.session_state.setdefault(key, first)
    return st.radio(
        f"**{number + 1}.** {question.words}",
        range(len(question.options)),
        index=None,
        format_func=lambda option: question.options[option],
        key=key,
        on_change=_remember,
        args=(number,),
    )


def _remember(number: int) -> None:
    known = progress.remembered().get("answers")
    answers = dict(known) if isinstance(known, dict) else {}
    answers[str(number)] = st.session_state[f"learn_answer_{number}"]
    progress.remember(answers=answers, finished=False)


def _check() -> None:
    progress.remember(finished=True, done=sorted(progress.done() | {progress.COUNT}))


def verdict(question: Question, answer: int) -> str:
    """Whether an answer is right, and which one would be."""
    said, right = question.options[answer], question.options[question.right]
    if answer == question.right:
        return f":green[:material/check_circle:] **Right.** You said **{said}**."
    return f":red[:material/cancel:] **Not quite.** You said *{said}*; it is **{right}**."


def explain(listed: tuple[Question, ...], chosen: list[int]) -> None:
    """The score, and every question's explanation."""
    right = sum(answer == question.right for answer, question in zip(chosen, listed, strict=True))
    everything = right == len(listed)
    box = st.success if everything else st.info
    box(
        "You could teach this now." if everything else "Every explanation is below.",
        title=f"{right} of {len(listed)} right",
        icon=":material/school:",
    )
    for number, (question, answer) in enumerate(zip(listed, chosen, strict=True)):
        good = answer == question.right
        with st.container(border=True):
            st.markdown(f"**{number + 1}.** {verdict(question, answer)}")
            st.markdown(question.why)
            if not good:
                st.button(
                    f"Look at step {question.step} again",
                    key=f"learn_again_{number}",
                    icon=":material/undo:",
                    on_click=progress.go_to,
                    args=(question.step,),
                )
