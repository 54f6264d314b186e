"""The words of the steps, ``assets/text/learn/<name>.md``: plain words first, then what to try, formula and sources."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import streamlit as st

from pages.ui.shared.prose import ASSETS

FOLDER = ASSETS / "text" / "learn"


@dataclass(frozen=True)
class LessonText:
    """What a step says.

    Attributes:
        title: its heading.
        body: plain words, above the picture.
        notice: what to try, below the picture.
        formula: the same in symbols.
        sources: papers.
    """

    title: str
    body: str
    notice: str
    formula: str
    sources: str


@cache
def lesson_text(name: str) -> LessonText:
    """The text of a step.

    Raises:
        KeyError: a section is missing (a mistake in the file).
    """
    head, *rest = (FOLDER / f"{name}.md").read_text(encoding="utf-8").strip().split("\n## ")
    title, _, body = head.partition("\n")
    sections = {}
    for part in rest:
        section, _, content = part.partition("\n")
        sections[section.strip()] = content.strip()
    return LessonText(
        title.removeprefix("# ").strip(), body.strip(), sections["Try"], sections["Formula"], sections["Sources"]
    )


def folds(text: LessonText) -> None:
    """The formula and the papers, closed until wanted."""
    with st.expander("The formula", icon=":material/function:"):
        st.markdown(text.formula)
    with st.expander("Where this comes from", icon=":material/menu_book:"):
        st.markdown(text.sources)
