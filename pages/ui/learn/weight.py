"""Step 2: the same slider on a weight matrix of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from lrc_core import words
from lrc_core.budget import break_even, factor_params
from lrc_core.decompose.measures import cumulative_energy
from lrc_core.results.archive import archive
from lrc_core.runs.spec import LessonSpec, ModelRef
from lrc_core.types import LinearShape
from pages.ui.learn import lessons
from pages.ui.learn.flipbook import Book, Frame, flipbook
from pages.ui.learn.spectrum_svg import SpectrumPanel
from pages.ui.shared import charting, forms, svg
from pages.ui.shared.frame import sample_note

KEY, LAYER = "learn_weight", "learn_layer"


def draw(ref: ModelRef) -> None:
    """W, W_k and what is missing, under one slider."""
    found = lessons.lessons(ref, "layers")
    if not found:
        lessons.nothing_recorded("matrices")
    else:
        lesson, entry = choose(found, LAYER)
        layer = lesson.layer(entry["name"])
        flipbook(book(lesson, entry, layer), KEY)
        comparison(entry, layer)
        sample_note(lesson.view.sample, lesson.view.id)
        weight_table(entry, layer)
    with lessons.live_fold(ref, "Try another matrix of your model"):
        another(ref)


def choose(found: list[lessons.Lesson], key: str) -> tuple[lessons.Lesson, dict[str, Any]]:
    """One of the layers that lessons looked at closely."""
    entries: dict[str, tuple[lessons.Lesson, dict[str, Any]]] = {}
    for lesson in found:
        for entry in lesson.content["layers"]:
            entries.setdefault(entry["name"], (lesson, entry))
    labels = {name: lessons.layer_label(lesson.layer(name)) for name, (lesson, _) in entries.items()}
    chosen = forms.one_of(st, "Matrix", labels, key, bind="query-params")
    return entries[chosen if chosen in entries else next(iter(entries))]


def book(lesson: lessons.Lesson, entry: dict[str, Any], layer: LinearShape) -> Book:
    """All recorded ranks of one weight matrix."""
    drawn, name = lessons.pictures(lesson), layer.name
    sigma, even = np.asarray(entry["sigma"]["svd"], dtype=float), break_even(layer)
    panel = SpectrumPanel(sigma, even, 40, 302, 820, 104)
    pictures = [
        (30, f"W, {layer.out_features} × {layer.in_features}"),
        (330, "W at this rank"),
        (630, "what is missing"),
    ]
    base = "".join(svg.text(x + 120, 16, label) for x, label in pictures)
    base += svg.image(svg.coloured(drawn[f"{name}/weight"]), (30, 26, 240, 240))
    base += panel.base()
    frames = []
    for number, rank in enumerate(entry["ranks"]):
        kept, missing = drawn[f"{name}/kept"][number], drawn[f"{name}/missing"][number]
        drawing = svg.image(svg.coloured(kept), (330, 26, 240, 240)) + svg.image(
            svg.coloured(missing), (630, 26, 240, 240)
        )
        words_of = weight_sentence(rank, sigma, layer)
        frames.append(Frame(f"{rank} of {layer.full_rank}", drawing + panel.cut(rank), words_of, panel.share(rank)))
    start = int(np.searchsorted(entry["ranks"], even / 4))
    return Book("Rank", (900, 450), base, frames, start=min(start, len(frames) - 1))


def weight_sentence(rank: int, sigma: np.ndarray, layer: LinearShape) -> str:
    """One sentence on a rank of this matrix."""
    share = rank / break_even(layer)
    energy = words.percent(cumulative_energy(sigma)[rank - 1], 1)
    cost = "the two factors cost more than W" if share >= 1 else f"for {words.percent(share, 0)} of the parameters"
    return f"Rank {rank}: {energy} of the energy of W, {cost}. The layer would compute with what is in the middle."


def comparison(entry: dict[str, Any], layer: LinearShape) -> None:
    """The sentence that sets the matrix beside the image of step 1."""
    sigma = np.asarray(entry["sigma"]["svd"], dtype=float)
    energy = cumulative_energy(sigma)
    tenth = energy[max(1, layer.full_rank // 10) - 1]
    half = energy[max(1, int(break_even(layer))) - 1]
    st.caption(
        f"A tenth of this matrix's directions hold {words.percent(tenth, 0)} of its energy; at break-even, rank "
        f"{break_even(layer):.0f}, {words.percent(1 - half, 0)} are still missing. Every cell shows how large the "
        "entries are there on average (root mean square); no single weight can be read off."
    )


def weight_table(entry: dict[str, Any], layer: LinearShape) -> None:
    """Every recorded rank in numbers."""
    energy = cumulative_energy(np.asarray(entry["sigma"]["svd"], dtype=float))
    charting.folded(
        {
            "Rank": entry["ranks"],
            "Parameters of the factors": [factor_params(layer, k) for k in entry["ranks"]],
            "Share of the layer's": [words.percent(k / break_even(layer), 0) for k in entry["ranks"]],
            "Energy kept": [words.percent(energy[k - 1], 1) for k in entry["ranks"]],
            "Error of W": [words.percent(error, 1) for error in entry["weight_error"]["svd"]],
        },
        "Cost, energy and error of every rank shown",
    )


def another(ref: ModelRef) -> None:
    """The form that has another matrix looked at."""
    known = archive().newest_card(ref)
    if known is None:
        st.caption("Fetch this model on Home first; its layers are then listed here.")
        return
    layers = {layer.name: layer for layer in known[0].layers}
    labels = {key: lessons.layer_label(layer) for key, layer in layers.items()}
    name = forms.one_of(st, "Any layer of this model", labels, "learn_any_layer", first=len(layers) // 3)
    spec = LessonSpec(model=ref, layers=(name,), parts=("layers",))
    if lessons.live(ref, spec, "Draw this matrix", "learn_draw"):
        st.rerun()
