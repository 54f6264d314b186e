"""Two sets of questions (``quiz*.md``); answers are remembered, explanations come at the end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import streamlit as st

from pages.ui.learn import progress
from pages.ui.learn.lesson_text import FOLDER
from pages.ui.learn.quiz import tally
from pages.ui.learn.quiz.figures import FIGURES
from pages.ui.shared.pictures import draw_picture

SETS = ("quiz", "quiz-2")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        words: what is asked.
        options: the answers.
        right: index of the right one.
        why: the explanation.
        step: the step that answers it.
        figure: name of the figure that it asks to read, "" where there is none.
    """

    words: str
    options: tuple[str, ...]
    right: int
    why: str
    step: int
    figure: str = ""


@cache
def questions(number: int = 0) -> tuple[Question, ...]:
    """The questions of a set: ``## question``, ``! figure``, ``- [x] right``, ``- [ ] wrong``, ``> step: explanation``.

    Placeholders in braces stand for what the figure's numbers say.

    Raises:
        ValueError: a question without exactly one right answer, or without its step (a mistake in the file).
    """
    text = (FOLDER / f"{SETS[number]}.md").read_text(encoding="utf-8")
    return tuple(_question(part) for part in text.split("\n## ")[1:])


def _question(part: str) -> Question:
    lines = [line.strip() for line in part.strip().splitlines()]
    figure = next((line[2:] for line in lines if line.startswith("! ")), "")
    facts = FIGURES[figure]().facts if figure else {}
    lines = [line.format(**facts) if figure else line for line in lines]
    options = [line for line in lines if line.startswith("- [")]
    (right,) = [number for number, line in enumerate(options) if line[3] == "x"]
    step, _, why = " ".join(line[2:] for line in lines if line.startswith("> ")).partition(": ")
    return Question(lines[0], tuple(line[6:] for line in options), right, why, int(step), figure)


def current() -> int:
    """The set that is asked."""
    found = progress.remembered().get("set")
    return found if isinstance(found, int) and 0 <= found < len(SETS) else 0


def place(number: int) -> str:
    """Where an answer of the current set is remembered: ``0``, in the second set ``1-0``."""
    chosen = current()
    return f"{chosen}-{number}" if chosen else str(number)


def draw_quiz() -> None:
    """The questions, and once all are answered and checked, what was right and why."""
    listed = questions(current())
    st.header(("Five questions", "Five more questions")[current()])
    known = progress.remembered().get("answers")
    answers = known if isinstance(known, dict) else {}
    chosen = [_ask(number, question, answers.get(place(number))) for number, question in enumerate(listed)]
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
        st.button(
            ("Another five questions", "The first five again")[current()],
            icon=":material/shuffle:",
            key="learn_other_set",
            on_click=_other_set,
        )
    if complete and progress.remembered().get("finished") is True:
        with st.container(key=progress.VERDICT):
            explain(listed, answered)


def _other_set() -> None:
    """The other questions; the answers of these are kept."""
    progress.remember(set=(current() + 1) % len(SETS), finished=False)


def _ask(number: int, question: Question, known: object) -> int | None:
    """One question; what was chosen."""
    first = known if isinstance(known, int) and 0 <= known < len(question.options) else None
    key = f"learn_answer_{place(number)}"
    st.session_state.setdefault(key, first)
    st.markdown(f"**{number + 1}.** {question.words}")
    if question.figure:
        draw_picture(FIGURES[question.figure]().drawing, f"learn_figure_{question.figure}")
    return st.radio(
        question.words,
        range(len(question.options)),
        index=None,
        format_func=lambda option: question.options[option],
        key=key,
        label_visibility="collapsed",
        on_change=_remember,
        args=(number,),
    )


def _remember(number: int) -> None:
    known = progress.remembered().get("answers")
    answers = dict(known) if isinstance(known, dict) else {}
    answers[place(number)] = st.session_state[f"learn_answer_{place(number)}"]
    progress.remember(answers=answers, finished=False)


def _check() -> None:
    chosen = [st.session_state.get(f"learn_answer_{place(index)}") for index in range(len(questions(current())))]
    tally.keep(current(), chosen)
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
            if said := tally.class_words(current(), number, question.options):
                st.caption(f":material/groups: {said}")
            if not good:
                st.button(
                    f"Look at step {question.step} again",
                    key=f"learn_again_{number}",
                    icon=":material/undo:",
                    on_click=progress.go_to,
                    args=(question.step,),
                )
