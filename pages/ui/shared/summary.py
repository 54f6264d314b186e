"""A model at a glance: where its information lives, and the layer that pictures show as an example."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lrc_core import words
from lrc_core.budget import break_even
from lrc_core.decompose.measures import energy_rank
from lrc_core.results.archive import RunView, archive
from lrc_core.results.spectra import Spectra, spectra_of
from lrc_core.runs.spec import ModelRef, SpectraSpec
from lrc_core.types import LinearShape
from pages.ui.shared import pictures

SHARE = 0.9
"""Energy that counts as a layer's information."""


@dataclass(frozen=True)
class ShownSpectra:
    """Spectra of one run under one decomposition."""

    view: RunView[SpectraSpec]
    spectra: Spectra
    decomposition: str

    @property
    def sigmas(self) -> dict[str, np.ndarray]:
        return self.spectra.values[self.decomposition]

    @cached_property
    def need(self) -> dict[str, float]:
        """Of every layer, the rank for 90 % of its energy as a share of its break-even rank."""
        return {
            layer.name: energy_rank(self.sigmas[layer.name], SHARE) / break_even(layer)
            for layer in self.spectra.card.layers
        }


def shown_spectra(ref: ModelRef) -> ShownSpectra | None:
    """The spectra that stand for a model: its own, or else the sample's; None where there are none."""
    view = archive().best_spectra(ref) or archive().best_spectra(ModelRef())
    if view is None:
        return None
    spectra = spectra_of(view)
    return ShownSpectra(
        view, spectra, "whitened" if "whitened" in spectra.decompositions else spectra.decompositions[0]
    )


def example_of(shown: ShownSpectra) -> LinearShape:
    """A layer worth showing: the one that needs the smallest part of its break-even rank among the middle blocks."""
    card = shown.spectra.card
    middle = [layer for layer in card.layers if layer.block == card.n_blocks // 2] or list(card.layers)
    return min(middle, key=lambda layer: shown.need[layer.name])


def information_heatmap(shown: ShownSpectra) -> str:
    """The heatmap of where a model's information lives."""
    values = shown.need
    return pictures.heat(
        pictures.LayerHeatmap(
            card=shown.spectra.card,
            values=values,
            ends=(0.0, max(1.0, *values.values())),
            write=lambda value: words.percent(value, 0),
            unit="of the break-even rank",
            label=f"Rank that holds {words.percent(SHARE)} of each layer's energy, as a share of its break-even rank, "
            f"in {shown.spectra.card.name}",
        ),
    )


def heat_words(shown: ShownSpectra) -> str:
    """What the heatmap says, computed from it."""
    values = shown.need
    card = shown.spectra.card
    below = sum(value < 1 for value in values.values())
    kinds: dict[str, list[float]] = {}
    for layer in card.layers:
        kinds.setdefault(layer.kind, []).append(values[layer.name])
    medians = {kind: float(np.median(found)) for kind, found in kinds.items()}
    low, high = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    labels = words.kind_labels(tuple(kinds))
    return (
        f"{below} of {len(values)} layers hold {words.percent(SHARE)} of their energy below break-even, where two thin "
        f"factors are smaller than the layer. Least is needed by {labels[low]} (median "
        f"{words.percent(medians[low], 0)} of break-even), most by {labels[high]} ({words.percent(medians[high], 0)})."
    )
