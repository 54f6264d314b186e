"""The film of a training run in the page: one browser component for live, replay and scrubbing.

The browser gets the whole film at once and plays it without the server. A tick of a run under way hands it a longer
one, which is drawn in place, so that zoom, speed and the place where the user has stopped stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st

from lrc_core.charts.film import Film, is_tick, make_film
from lrc_core.charts.film import film_of as whole_film
from lrc_core.charts.film_gif import film_gif
from lrc_core.charts.film_html import film_html, player
from lrc_core.kinds import title_of
from lrc_core.names import model_label
from lrc_core.results.archive import AnyRun, RunView, card_of, stamp_of
from lrc_core.results.forecasts import has_film
from lrc_core.runs.spec import AllocateSpec
from lrc_core.runs.store import Run
from pages.ui.shared.naming import download, file_name

_KEPT = "film_records"
_HTML = '<div class="film"></div>\n<!-- filled by the player -->'
_SCRIPT, _STYLE = player()
_PLAYER = st.components.v2.component("lrc_film", html=_HTML, css=_STYLE, js=_SCRIPT)


def records_of(view: AnyRun) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All events and rank snapshots of a run; a tick reads only what was added since the last one."""
    kept = st.session_state.setdefault(_KEPT, {})
    which = (view.id, view.status.created_at)  # a run that was deleted and asked for again has its old id
    if kept.get("id") != which:
        kept.clear()
        kept.update(id=which, events=[], events_to=0, ranks=[], ranks_to=0)
    for name, read in (("events", view.run.read_events), ("ranks", view.run.read_ranks)):
        fresh, kept[f"{name}_to"] = read(kept[f"{name}_to"])
        kept[name] += fresh
    return kept["events"], kept["ranks"]


def film_of(view: RunView[AllocateSpec]) -> Film | None:
    """The film of a run so far; None before its first step. Whoever watches a finished run shares one film."""
    if not has_film(view):
        return None
    if view.final:
        return as_recorded(view)
    events, ranks = records_of(view)
    if not any(is_tick(event) for event in events):
        return None
    return make_film(view.id, view.spec, card_of(view), events, ranks, live=True)


def as_recorded(view: RunView[AllocateSpec]) -> Film | None:
    """The film of a run, read again only when its records change; None before its first step."""
    records = [stamp_of(view.path / name) for name in ("events.jsonl", "ranks.jsonl")]
    return _read(str(view.path), tuple(records), live=not view.final)


@lru_cache(maxsize=8)
def _read(path: str, stamps: tuple[tuple[int, int], ...], *, live: bool) -> Film | None:
    run = Run(Path(path))
    return whole_film(run, live=live) if any(map(is_tick, run.events())) else None


def show(film: Film, over: Film | None = None) -> None:
    """Draw the player, with a second run over the first where there is one."""
    _PLAYER(data=replace(film, over=over).to_dict(), key=f"film_{film.run}")


def downloads(view: AnyRun) -> None:
    """The film as files, and the command lines that make the same."""
    with st.container(horizontal=True, vertical_alignment="center"):
        for word, icon in (("HTML", ":material/movie:"), ("GIF", ":material/gif_box:")):
            download(
                f"Film as {word}",
                _maker(view, word),
                file_name("film", model_label(view.spec.model), title_of(view.spec), ending=word.lower()),
                key=f"film_{word.lower()}_{view.id}",
                icon=icon,
                help="One file that plays with no network and nothing installed."
                if word == "HTML"
                else "Moving pictures for slides and mails.",
            )
    st.code(f"lrc runs film {view.id} --html film.html --gif film.gif", language="bash", wrap_lines=True)


def _maker(view: AnyRun, word: str) -> Any:
    """Makes the file when it is asked for; session state is not at hand then, so the records are read anew."""

    def make() -> bytes:
        film = whole_film(view.run)
        return film_html(film).encode() if word == "HTML" else film_gif(film)

    return make
