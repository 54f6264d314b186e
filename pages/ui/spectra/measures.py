"""The measures that the Spectra heatmap can show: one figure per layer, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lrc_core.budget import Ranks, break_even
from lrc_core.decompose import IN_NATS
from lrc_core.decompose.measures import (
    condition_number,
    effective_rank,
    energy_kept,
    energy_rank,
    half_square,
    power_law,
    stable_rank,
)
from lrc_core.figures.common import Scale
from lrc_core.types import LinearShape, ModelCard
from lrc_core.words import percent

OUTPUT_ENERGY = ("whitened",)
"""Decompositions whose discarded energy is the output's."""


@dataclass(frozen=True)
class LayerFacts:
    """What is known of one layer.

    Attributes:
        sigma: singular values, descending.
        rank: what the current cut leaves; the full rank where it stays dense.
        loss: predicted loss of this cut over all layers, in nats per token.
        overlap: with the neighbouring blocks, as the spectra job stores it; empty where it did not.
    """

    layer: LinearShape
    sigma: np.ndarray
    rank: int
    loss: float = math.nan
    overlap: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        label: on the control.
        scale: of the colours.
        value: of a layer; nan where it has none.
        words: one line or more on a layer and its figure.
        log: colours by ratio.
        decompositions: where it means something; () for all.
        subspaces: needs what the spectra job stores of subspaces.
        cuts: depends on the current cut.
        doubt: why the figure of a layer should not be trusted, "" where nothing speaks against it.
    """

    label: str
    scale: Scale
    value: Callable[[LayerFacts], float]
    words: Callable[[LayerFacts, float], str]
    log: bool = False
    decompositions: tuple[str, ...] = ()
    subspaces: bool = False
    cuts: bool = False
    doubt: Callable[[LayerFacts], str] = lambda _: ""


def _energy_measure(share: float) -> Measure:
    return Measure(
        f"Rank for {percent(share)} of the energy",
        Scale("share of break-even", ".0%", even=1.0),
        lambda facts: energy_rank(facts.sigma, share) / break_even(facts.layer),
        lambda facts, value: (
            f"{energy_rank(facts.sigma, share)} directions hold {percent(share)}\n{percent(value)} of break-even "
            f"{break_even(facts.layer):.0f}"
        ),
    )


def _layer_loss(facts: LayerFacts) -> float:
    return float(half_square(facts.sigma[facts.rank :]).sum())


def _alpha_words(facts: LayerFacts, value: float) -> str:
    fit = power_law(facts.sigma)
    if not math.isfinite(fit.alpha):
        return f"no power law: {fit.warning}"
    words = f"exponent {fit.alpha:.2f} ± {fit.error:.2f}\n{fit.tail} values in the tail, distance {fit.distance:.3f}"
    return words + (f"\nPoor fit: {fit.warning}" if fit.warning else "\nThe fit is plausible")


def _overlap_measure(side: str, what: str) -> Measure:
    return Measure(
        f"Overlap with neighbours, {side}",
        Scale("overlap", ".0%"),
        lambda facts: facts.overlap.get(side, math.nan),
        lambda facts, value: (
            f"its leading {facts.overlap['directions']:.0f} directions of {what} overlap {percent(value)} with those "
            f"of the blocks beside it\nby chance {percent(facts.overlap['chance_' + side])}"
            if facts.overlap
            else "no neighbour of this shape"
        ),
        subspaces=True,
    )


MEASURES: dict[str, Measure] = {
    "effective": Measure(
        "Effective rank",
        Scale("share of full rank", ".0%"),
        lambda facts: effective_rank(facts.sigma) / facts.layer.full_rank,
        lambda facts, value: (
            f"effective rank {effective_rank(facts.sigma):.0f} of {facts.layer.full_rank} ({percent(value)})"
        ),
    ),
    "stable": Measure(
        "Stable rank",
        Scale("stable rank"),
        lambda facts: stable_rank(facts.sigma),
        lambda facts, value: f"stable rank {value:.1f}",
    ),
    "r90": _energy_measure(0.90),
    "r95": _energy_measure(0.95),
    "r99": _energy_measure(0.99),
    "kept": Measure(
        "Energy kept at this compression",
        Scale("energy kept", ".1%"),
        lambda facts: energy_kept(facts.sigma, facts.rank),
        lambda facts, value: f"rank {facts.rank} keeps {percent(value, 2)} of the energy",
        cuts=True,
    ),
    "discarded": Measure(
        "Output energy discarded at this compression",
        Scale("of the output energy", ".1%"),
        lambda facts: 1 - energy_kept(facts.sigma, facts.rank),
        lambda facts, value: f"rank {facts.rank} discards {percent(value, 2)} of the output's energy",
        decompositions=OUTPUT_ENERGY,
        cuts=True,
    ),
    "loss_share": Measure(
        "Share of the predicted loss (K-FAC)",
        Scale("of the loss", ".1%"),
        lambda facts: _layer_loss(facts) / facts.loss if facts.loss > 0 else 0.0,
        lambda facts, value: (
            f"rank {facts.rank}: {percent(value, 2)} of the predicted loss, {_layer_loss(facts):.3g} nats per token"
        ),
        decompositions=IN_NATS,
        cuts=True,
    ),
    "alpha": Measure(
        "Power-law exponent",
        Scale("exponent"),
        lambda facts: power_law(facts.sigma).alpha,
        _alpha_words,
        doubt=lambda facts: power_law(facts.sigma).warning,
    ),
    "condition": Measure(
        "Condition number",
        Scale("largest / smallest"),
        lambda facts: condition_number(facts.sigma),
        lambda facts, value: (
            f"stretches its strongest direction {value:,.3g} times as much as its weakest"
            if math.isfinite(value)
            else "the smallest singular value is 0"
        ),
        log=True,
    ),
    "inputs": _overlap_measure("inputs", "what it reads"),
    "outputs": _overlap_measure("outputs", "what it writes"),
}


def facts_of(
    card: ModelCard, sigmas: Mapping[str, np.ndarray], ranks: Ranks, overlaps: Mapping[str, Any] | None = None
) -> dict[str, LayerFacts]:
    """What the measures need of every layer that has singular values.

    Args:
        sigmas: singular values by layer; layers may be missing while they are read.
        overlaps: by layer, as ``subspaces.json`` has them.
    """
    found = {
        layer.name: LayerFacts(
            layer, sigmas[layer.name], ranks[layer.name], overlap=(overlaps or {}).get(layer.name, {})
        )
        for layer in card.layers
        if layer.name in sigmas
    }
    loss = sum(_layer_loss(facts) for facts in found.values())
    return {name: replace(facts, loss=loss) for name, facts in found.items()}


def values_of(measure: str, facts: Mapping[str, LayerFacts]) -> dict[str, float]:
    """One measure of every layer."""
    return {name: float(MEASURES[measure].value(found)) for name, found in facts.items()}


def doubts_of(measure: str, facts: Mapping[str, LayerFacts]) -> dict[str, str]:
    """Layers whose figure should not be trusted, and why."""
    doubts = {name: MEASURES[measure].doubt(found) for name, found in facts.items()}
    return {name: doubt for name, doubt in doubts.items() if doubt}


def spectrum_sentence(layer: LinearShape, sigma: np.ndarray, label: str) -> str:
    """One sentence on what a spectrum says, computed from it.

    Args:
        sigma: its singular values, descending.
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
