"""The measures that the Spectra heatmap can show: one figure a layer, and the words for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lrc_core.budget import break_even, uniform_ranks
from lrc_core.decompose.measures import cumulative_energy, effective_rank, energy_kept, energy_rank, stable_rank
from lrc_core.types import LinearShape, ModelCard
from pages.ui.figures import Scale
from pages.ui.words import percent


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        label: on the control.
        scale: of the colours.
        value: (layer, sigma, rank of the uniform cut) -> figure.
        words: (layer, sigma, figure) -> one line of hover text.
    """

    label: str
    scale: Scale
    value: Callable[[LinearShape, np.ndarray, int], float]
    words: Callable[[LinearShape, np.ndarray, float], str]


def _energy_measure(share: float) -> Measure:
    return Measure(
        f"Rank for {percent(share)} of the energy",
        Scale("share of break-even", ".0%"),
        lambda layer, sigma, cut: energy_rank(sigma, share) / break_even(layer),
        lambda layer, sigma, value: (
            f"{energy_rank(sigma, share)} directions hold {percent(share)}<br>{percent(value)} of break-even "
            f"{break_even(layer):.0f}"
        ),
    )


MEASURES: dict[str, Measure] = {
    "effective": Measure(
        "Effective rank",
        Scale("share of full rank", ".0%"),
        lambda layer, sigma, cut: effective_rank(sigma) / layer.full_rank,
        lambda layer, sigma, value: (
            f"effective rank {effective_rank(sigma):.0f} of {layer.full_rank} ({percent(value)})"
        ),
    ),
    "stable": Measure(
        "Stable rank",
        Scale("stable rank"),
        lambda layer, sigma, cut: stable_rank(sigma),
        lambda layer, sigma, value: f"stable rank {value:.1f}",
    ),
    "r90": _energy_measure(0.90),
    "r95": _energy_measure(0.95),
    "r99": _energy_measure(0.99),
    "kept": Measure(
        "Energy kept at this compression",
        Scale("energy kept", ".1%"),
        lambda layer, sigma, cut: energy_kept(sigma, cut),
        lambda layer, sigma, value: f"a uniform cut keeps {percent(value, 2)} of the energy",
    ),
}


def table(card: ModelCard, sigmas: dict[str, np.ndarray], compression: float) -> dict[str, dict[str, float]]:
    """Every measure of every layer: ``{measure: {layer name: figure}}``."""
    cuts = uniform_ranks(card.layers, 1 - compression)
    return {
        key: {layer.name: measure.value(layer, sigmas[layer.name], cuts[layer.name]) for layer in card.layers}
        for key, measure in MEASURES.items()
    }


def reading(layer: LinearShape, sigma: np.ndarray, label: str) -> str:
    """One sentence on what a spectrum says, computed from it.

    Args:
        layer: whose spectrum it is.
        sigma: its singular values, descending.
        label: of the decomposition.
    """
    rank, even = energy_rank(sigma, 0.95), break_even(layer)
    start = (
        f"Block {layer.block}, `{layer.kind}`, {label}: 95 % of the energy lies in the first **{rank}** of "
        f"{len(sigma)} directions, "
    )
    if rank >= even:
        return start + (
            f"beyond the break-even rank of {even:.0f}, so factors that keep this much cost more than the dense layer."
        )
    return start + (
        f"below the break-even rank of {even:.0f}, so factors keeping this much need {percent(rank / even, 0)} of the "
        "dense layer's parameters."
    )


def energy_at(sigma: np.ndarray, rank: int) -> float:
    """Share of the energy in the first ``rank`` directions."""
    return float(cumulative_energy(sigma)[min(max(rank, 1), len(sigma)) - 1])
