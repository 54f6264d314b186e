"""Present: slides of what was measured, full screen, turned by keys. No sidebar and no settings."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict

import streamlit as st

from lrc_core.budget import USUAL_KEEP, keep_at
from lrc_core.charts.film_html import player
from lrc_core.errors import LrcError
from lrc_core.results.series import LARGEST_RATE
from lrc_core.runs.spec import ModelRef
from pages.ui.present.slides import slides_of
from pages.ui.present.story import Story, story_of
from pages.ui.shared import pictures, state
from pages.ui.shared.frame import PAGES, empty, frame, guard, page_link
from pages.ui.shared.prose import component
from pages.ui.watch import film

RATE, FROM = "pr_rate", "pr_from"
_HTML = '<section class="deck pic" aria-label="Presentation"></section>'


def keep() -> float:
    """Share kept by the models of the slides; in the URL whole percent removed."""
    try:
        rate = int(st.query_params.get(RATE, ""))
    except ValueError:
        return USUAL_KEEP
    return keep_at(min(max(rate, 1), LARGEST_RATE))


def came_from() -> str:
    """Key of the page to go back to."""
    found = st.query_params.get(FROM, "")
    return found if found in PAGES and found != "present" else "home"


def leave() -> None:
    """Back to where the presentation was started."""
    chosen = state.chosen_before()
    st.session_state.pop(state.PRESENTED, None)
    st.switch_page(PAGES[came_from()].file, query_params=chosen)


def deck(story: Story) -> None:
    """Hand everything to the browser, which turns the pages itself."""
    slides = slides_of(story)
    learned = story.learned()
    shown = None
    with suppress(LrcError):  # a damaged run has no film
        shown = film.film_of(learned) if learned is not None else None
    script, style = player()
    film_js = script.replace("export default function mount", "function mountFilm") + "\n"
    gone = component("lrc_present", "present/present", _HTML, f"{pictures.CSS}\n{style}\n", film_js)(
        data={
            "slides": [asdict(slide) for slide in slides],
            "film": shown.to_dict() if shown is not None else None,
        },
        key="present",
        on_left_change=lambda: None,
    )
    if gone.left:
        leave()


def body(ref: ModelRef) -> None:
    story = story_of(ref, keep())
    if story is None:
        st.title("Present")
        empty(
            "Nothing to present yet",
            "Slides are made from runs: read the spectra of a model, learn ranks, compare.",
            ":material/slideshow:",
        )
        page_link(PAGES["home"].file, "Begin on Home", PAGES["home"].icon)
        return
    with st.container(key="presentation"):
        deck(story)


model_ref = frame("present")
state.remember_presented(came_from())
with guard():
    body(model_ref)
