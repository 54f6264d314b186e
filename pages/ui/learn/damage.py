"""From lost energy to damage: what a share removed takes from all layers, and what that did to the model."""

from __future__ import annotations

import numpy as np

from lrc_core import words
from lrc_core.budget import break_even, kept_share, removed_share
from lrc_core.decompose.measures import energy_kept
from lrc_core.escape import escaped
from lrc_core.quality.rows import dense_row
from lrc_core.results import comparisons
from lrc_core.results.spectra import Spectra
from lrc_core.texts.label import text_label


def losses(spectra: Spectra, decomposition: str, removed: float) -> list[float]:
    """Share of its energy that every layer loses where the same share of parameters is removed from each."""
    lost = []
    for layer in spectra.card.layers:
        rank = max(1, int(kept_share(removed) * break_even(layer)))
        lost.append(1 - energy_kept(spectra.values[decomposition][layer.name], rank))
    return lost


def damage_sentence(spectra: Spectra, decomposition: str, removed: float, group: comparisons.Group | None) -> str:
    """How a layer's loss compares with the others', and what all of them together did to the model.

    Args:
        decomposition: whose energy is meant.
        removed: share of the parameters removed from the layer.
        group: measured rows; None where there are none, and nothing is said of damage then.
    """
    lost = losses(spectra, decomposition, removed)
    said = (
        f"This is one layer. By two factors, removing {words.percent(removed, 0)} from each of the {len(lost)} takes "
        f"{words.percent(float(np.median(lost)))} of a layer's energy in the middle (median) and "
        f"{words.percent(max(lost))} from the worst"
    )
    found = _nearest(group, removed)
    if found is None:
        return f"{said}."
    at, text, factor = found
    return (
        f"{said}. **A small loss of energy is no small damage**, because every layer passes its error on: with "
        f"{words.percent(at, 0)} removed from every layer the model's perplexity on {escaped(text_label(text))} is "
        f"{words.times(factor)} times the dense model's, as measured in step 6."
    )


def _nearest(group: comparisons.Group | None, removed: float) -> tuple[float, str, float] | None:
    """Share removed, text and factor of perplexity of the measured uniform plan that is nearest."""
    if group is None:
        return None
    dense = dense_row(group.rows)
    rows = [row for row in group.at("whitened", None) if row["method"] == "uniform"]
    if dense is None or not rows:
        return None
    row = min(rows, key=lambda row: abs(removed_share(float(row["keep_target"])) - removed))
    text = next((text for text in row["perplexity"] if text in dense["perplexity"]), None)
    if text is None:
        return None
    factor = row["perplexity"][text]["value"] / dense["perplexity"][text]["value"]
    return removed_share(float(row["keep_target"])), text, factor
