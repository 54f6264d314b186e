"""Spectra of a model that is not loaded: what its headers say, the job that streams it, results as they come."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import numpy as np
import streamlit as st

from lrc_core import words
from lrc_core.budget import break_even, uniform_ranks
from lrc_core.errors import RunError
from lrc_core.files import read_array
from lrc_core.models.outline import LIMIT, Outline, read_outline
from lrc_core.results.archive import AnyRun, archive, card_of, stamp_of
from lrc_core.runs.spec import ModelRef, SpectraSpec
from lrc_core.types import ModelCard
from pages.ui.shared import cards, jobs
from pages.ui.shared.cellgrid import Grid, cell_grid, limits_of
from pages.ui.shared.frame import guard
from pages.ui.shared.prose import prose
from pages.ui.spectra import measures

SHOWN = "effective"
"""Measure of the heatmap that fills while matrices come in: its scale is known before the last one."""


@st.cache_data(max_entries=16, ttl=60, show_spinner="Reading the headers …")
def outline_of(ref: ModelRef) -> Outline:
    """Headers of a model's files."""
    return read_outline(ref)


def offer(ref: ModelRef) -> None:
    """The other way to spectra, for a model that does not fit in memory: its headers, and the button that streams."""
    st.markdown("## :material/hard_drive: Without loading the model")
    st.markdown(prose("streaming"))
    if jobs.instead(spec_for(ref)):
        return
    if ref.source == "starter" and not archive().fetched(ref):
        st.caption("The starter model is fetched first by the button above.")
        return
    with guard():
        outline = outline_of(ref)
        headers(outline)
        if st.button("Stream from disk" if outline.folder else "Stream from the hub", icon=":material/stream:",
                     key="start_stream"):  # fmt: skip
            run_id = jobs.submit(spec_for(ref))
            if run_id:
                st.rerun()
        with st.expander("The same from the command line", icon=":material/terminal:"):
            jobs.command(spec_for(ref))


def spec_for(ref: ModelRef) -> SpectraSpec:
    """The job that streams a model."""
    return SpectraSpec(model=ref, decompositions=("svd",), stream=True)


def headers(outline: Outline) -> None:
    """What is known before a weight is read."""
    card, largest = outline.card, outline.largest
    size = largest.tensor.bytes
    where = "on this disk" if outline.folder else f"on the hub, {len(outline.shard_bytes)} shards, one at a time"
    cards.facts(
        [
            ("Parameters", words.count(card.params_total), f"{card.params_total:,}"),
            ("In block linears", words.count(card.params_linear), f"{len(card.layers)} matrices"),
            ("Weights", words.data_size(card.params_total * card.dtype_bytes), f"{card.dtype}, {where}"),
            ("Blocks", str(card.n_blocks), f"width {card.hidden_size:,}"),
            ("Largest matrix", words.data_size(size), f"block {largest.layer.block}, {largest.layer.kind}"),
            ("Working memory", f"≤ {words.data_size(LIMIT * size)}", f"{LIMIT} × the largest matrix"),
        ]
    )
    st.dataframe(shapes(card), hide_index=True, alt="Shapes, parameters and break-even rank of every kind of layer")


def shapes(card: ModelCard) -> list[dict[str, object]]:
    """One row per kind of layer, in the order of a block."""
    rows = []
    for kind in card.kinds:
        layers = [layer for layer in card.layers if layer.kind == kind]
        first = layers[0]
        rows.append(
            {
                "layer": kind,
                "rows": first.out_features,
                "columns": first.in_features,
                "blocks": len(layers),
                "parameters each": f"{first.params:,}",
                "break-even rank": round(break_even(first)),
                "full rank": first.full_rank,
            }
        )
    return rows


def live(view: AnyRun) -> None:
    """What a job that streams has found so far."""
    if not (view.path / "card.json").is_file() or not getattr(view.spec, "stream", False):
        return
    card = card_of(view)
    sigmas = arrived(view, card)
    memory(view.status.values or {})
    facts = measures.facts_of(card, sigmas, uniform_ranks(card.layers, 0.8))
    values, entry = measures.values_of(SHOWN, facts), measures.MEASURES[SHOWN]
    done = f"{len(values)} of {len(card.layers)} matrices"
    grid = Grid(
        card=card,
        values=values,
        words={
            layer.name: f"Block {layer.block} {layer.kind}\n"
            + (entry.words(facts[layer.name], values[layer.name]) if layer.name in facts else "not read yet")
            for layer in card.layers
        },
        scale=entry.scale,
        limits=limits_of([0.0, 1.0]),
        label=f"{entry.label}, {done} read",
        name=f"{card.name}-so-far",
        pins=False,
    )
    st.markdown(f"**{entry.label}** :small[:gray[plain SVD, {done} so far]]")
    cell_grid(grid, f"sp_live_{view.id}", lambda: None)
    if values:
        lowest = min(values, key=lambda name: values[name])
        layer = next(layer for layer in card.layers if layer.name == lowest)
        st.caption(
            f"Lowest so far: block {layer.block}, {layer.kind}, with {words.percent(values[lowest])} of its directions "
            f"in use; the median is {words.percent(float(np.median(list(values.values()))))}."
        )


def arrived(view: AnyRun, card: ModelCard) -> dict[str, np.ndarray]:
    """Singular values that a streaming job has written, by layer."""
    found = {}
    for number, layer in enumerate(card.layers):
        path = view.path / "parts" / f"{number}.npy"
        if path.is_file():
            with suppress(OSError, ValueError, EOFError, RunError):  # a damaged one is made anew by the job
                found[layer.name] = _part(str(path), stamp_of(path))
    return found


@st.cache_data(max_entries=20_000, show_spinner=False)
def _part(path: str, stamp: tuple[int, int]) -> np.ndarray:
    values: np.ndarray = read_array(Path(path))
    return values


def memory(values: dict[str, object]) -> None:
    """Measured working memory beside its limit; nothing before the first matrix."""
    used, size = _number(values.get("working_bytes")), _number(values.get("largest_bytes"))
    if not (used and size):
        return
    text = (
        f":material/memory: Peak working memory, measured: **{words.data_size(used)}**, {used / size:.1f} × the "
        f"largest matrix ({words.data_size(size)}); the limit is {LIMIT} ×. The process in all: "
        f"{words.data_size(_number(values.get('process_bytes')))}."
    )
    if used > LIMIT * size:
        text += " Matrices of a few megabytes are smaller than the buffers of the libraries that read them."
    st.caption(text)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
