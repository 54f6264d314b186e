"""From lost energy to damage: what a share removed takes from all layers, and what that did to the model."""

from __future__ import annotations

import numpy as np

from lrc_core import words
from lrc_core.budget import kept_share, removed_share, storage_law, stored, uniform_ranks
from lrc_core.decompose.measures import energy_kept
from lrc_core.escape import escaped
from lrc_core.plan import PAIR
from lrc_core.quality.rows import allocated_by, dense_row
from lrc_core.results.spectra import Spectra
from lrc_core.texts.label import text_label
from lrc_core.types import Storage
from pages.ui.learn.methods import Trio


def losses(spectra: Spectra, decomposition: str, removed: float, storage: Storage) -> list[float]:
    """Share of its energy that every layer loses where the same share of parameters is removed from each."""
    layers = stored(spectra.card.layers, storage)
    ranks = uniform_ranks(layers, kept_share(removed))
    return [1 - energy_kept(spectra.values[decomposition][layer.name], ranks[layer.name]) for layer in layers]


def damage_sentence(spectra: Spectra, decomposition: str, removed: float, trio: Trio | None) -> str:
    """How a layer's loss compares with the others', and what all of them together did to the model.

    Args:
        decomposition: whose energy is meant.
        removed: share of the parameters removed from the layer.
        trio: measured rows, of layers stored under one law; None where there are none, and nothing is said of damage
            then.
    """
    law = storage_law(trio.storage if trio is not None else PAIR)
    lost = losses(spectra, decomposition, removed, law.name)
    said = (
        f"This is one layer. Stored as {law.label.lower()}, removing {words.percent(removed, 0)} from each of the "
        f"{len(lost)} takes {words.percent(float(np.median(lost)))} of a layer's energy in the middle (median) and "
        f"{words.percent(max(lost))} from the worst"
    )
    found = None if trio is None else _nearest(trio, removed)
    if found is None:
        return f"{said}."
    at, text, factor = found
    return (
        f"{said}. **A small loss of energy is no small damage**, because every layer passes its error on: with "
        f"{words.percent(at, 0)} removed from every layer the model's perplexity on {escaped(text_label(text))} is "
        f"{words.times(factor)} times the dense model's, as measured."
    )


def _nearest(trio: Trio, removed: float) -> tuple[float, str, float] | None:
    """Share removed, text and factor of perplexity of the measured uniform plan that is nearest."""
    measured = trio.rows(None)
    dense, rows = dense_row(measured), [row for row in measured if allocated_by(row, ("uniform",))]
    if dense is None or not rows:
        return None
    row = min(rows, key=lambda row: abs(removed_share(float(row["keep_target"])) - removed))
    text = next((text for text in row["perplexity"] if text in dense["perplexity"]), None)
    if text is None:
        return None
    factor = row["perplexity"][text]["value"] / dense["perplexity"][text]["value"]
    return removed_share(float(row["keep_target"])), text, factor
