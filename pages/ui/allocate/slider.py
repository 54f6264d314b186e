"""The compression slider that draws while it is dragged: a component of our own, because ``st.slider`` tells nobody
where it stands until it is let go.

The browser gets everything that any rate can show at once, and asks the server nothing. Letting go tells the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import streamlit as st

from lrc_core import words
from lrc_core.budget import keep_at, removed_share, whole_model_ratio
from lrc_core.charts.film import cells_of
from lrc_core.charts.film_html import rank_grid
from lrc_core.quality.footprint import served
from lrc_core.results.series import LARGEST_RATE, PlanSeries, largest_rate
from lrc_core.types import ModelCard
from lrc_core.words import kind_labels
from pages.ui.shared.prose import component

KEY, ECHO = "al_drag", "al_drag_echo"
_SCRIPT, _STYLE = rank_grid()
_COMPONENT = component(
    "lrc_ratedrag",
    "components/ratedrag",
    '<div class="film ratedrag">\n<!-- filled by the script --></div>',
    css=_STYLE,
    js=_SCRIPT,
)


@dataclass(frozen=True)
class SliderPanel:
    """One heatmap under the slider.

    Attributes:
        key: ``learned``, ``uniform`` or ``estimate``; its style says which kind it is.
        title: of whose plans.
        badge: what kind of plans they are: recorded, computed or estimated.
        note: where they come from, or why there are none.
        verb: how a plan came to be, before its rate: "recorded at".
        series: the plans; None where there are none.
        said: what is known of their quality by rate: kind and sentence.
    """

    key: str
    title: str
    badge: str
    note: str
    verb: str = ""
    series: PlanSeries | None = None
    said: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """What the browser gets."""
        series = self.series
        found = {"key": self.key, "title": self.title, "badge": self.badge, "note": self.note, "verb": self.verb}
        if series is None:
            return {**found, "rates": []}
        return {
            **found,
            "rates": series.rates,
            "removed": series.removed,
            "ranks": series.packed,
            "said": [self.said.get(rate) for rate in series.rates],
        }


@lru_cache(maxsize=8)
def figures(card: ModelCard) -> dict[str, Any]:
    """What follows from every rate, as written on the page: exact arithmetic, at the precision of serving."""
    card = served(card)
    rates = range(1, LARGEST_RATE + 1)
    removed = [round(removed_share(keep_at(rate)) * card.params_linear) for rate in rates]
    kept = [whole_model_ratio(keep_at(rate), card) for rate in rates]
    size = words.data_size(card.params_total * card.dtype_bytes)
    return {
        "linear": [words.count(card.params_linear - gone) for gone in removed],
        "of_linear": words.count(card.params_linear),
        "total": [words.count(card.params_total - gone) for gone in removed],
        "of_total": words.count(card.params_total),
        "shrunk": [words.removed(keep) for keep in kept],
        "size": [words.data_size((card.params_total - gone) * card.dtype_bytes) for gone in removed],
        "of_size": f"{size}, {card.dtype}",
    }


def marks_of(card: ModelCard, panels: Sequence[SliderPanel]) -> list[list[Any]]:
    """Rates at which something changes, with a sign and what it means."""
    found: list[list[Any]] = []
    first = next((panel for panel in panels if panel.series is not None and panel.key != "uniform"), None)
    if first is not None and first.series is not None:
        if (free := first.series.none_dense_from) is not None:
            found.append([free, "◆", f"from {free} % on no layer of {first.title} is stored dense"])
        last = min(first.series.rates[-1], LARGEST_RATE)
        if last < LARGEST_RATE and first.key == "learned":
            found.append([last, "▲", f"recorded up to {last} %"])
    limit = largest_rate(card.layers)
    if limit < LARGEST_RATE:
        found.append([limit, "■", f"limit: at {limit} % every layer is at rank 1"])
    return found


def payload(card: ModelCard, rate: int, panels: Sequence[SliderPanel]) -> dict[str, Any]:
    """Everything the browser needs."""
    kinds = card.kinds
    labels = kind_labels(kinds)
    return {
        "rate": rate,
        "echo": st.session_state.get(ECHO, 0),
        "largest": LARGEST_RATE,
        "blocks": card.n_blocks,
        "kinds": [labels[kind] for kind in kinds],
        "cells": cells_of(card.layers, kinds),
        "figures": figures(card),
        "marks": marks_of(card, panels),
        "panels": [panel.to_dict() for panel in panels],
    }


def draw_slider(card: ModelCard, rate: int, panels: Sequence[SliderPanel], released: Callable[[], None]) -> None:
    """Draw the slider with what follows from it.

    Args:
        rate: where the slider stands, in whole percent.
        released: called when it is let go somewhere else; :func:`released_at` says where.
    """
    _COMPONENT(data=payload(card, rate, panels), key=KEY, on_released_change=released, height="content")


def released_at() -> int | None:
    """Where the slider was let go, in whole percent; None when it was not. To be called in the callback."""
    event = getattr(st.session_state.get(KEY), "released", None)
    if not isinstance(event, Mapping) or not isinstance(event.get("rate"), int | float):
        return None
    st.session_state[ECHO] = event.get("n", 0)
    return min(max(int(event["rate"]), 1), LARGEST_RATE)
