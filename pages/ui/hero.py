"""The layer that pictures show as an example."""

from __future__ import annotations

from lrc_core.budget import break_even
from lrc_core.decompose.measures import energy_rank
from lrc_core.types import LinearShape
from pages.ui.data import Spectra

SHARE = 0.9
"""Energy that counts as a layer's information."""


def example_layer(spectra: Spectra, decomposition: str) -> LinearShape:
    """A layer worth showing: the one that needs the smallest part of its break-even rank among the middle blocks."""
    card = spectra.card
    middle = [layer for layer in card.layers if layer.block == card.n_blocks // 2] or list(card.layers)
    return min(
        middle, key=lambda layer: energy_rank(spectra.values[decomposition][layer.name], SHARE) / break_even(layer)
    )
