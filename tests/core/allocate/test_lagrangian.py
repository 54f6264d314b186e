"""The closed-form plan against brute force over all plans."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lrc_core.allocate.curves.loss_curves import cheapest_ranks, component_prices, ranks_at_price
from lrc_core.allocate.curves.predicted import Measuring, predicted_losses
from lrc_core.allocate.lagrangian.method import LagrangianSettings, allocate
from lrc_core.budget import keep_ratio, layer_params, plan_params
from lrc_core.models.blocks.linears import block_linears
from lrc_core.types import LinearShape
from tests.factories.tiny_methods import MemoryFactors, context_for, random_windows, same_state, shape, state_of
from tests.factories.tiny_models import tiny_model

LAYERS = (shape("a", 12, 12), shape("b", 8, 24), shape("c", 30, 10))
TOTAL = sum(layer.params for layer in LAYERS)


def falling(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {layer.name: np.sort(rng.exponential(size=layer.full_rank) ** 3)[::-1] for layer in LAYERS}


def loss_of(losses: dict[str, np.ndarray], ranks: dict[str, int]) -> float:
    """A layer that is stored dense loses nothing."""
    return sum(
        0.0 if layer_params(layer, ranks[layer.name]) == layer.params else losses[layer.name][ranks[layer.name] :].sum()
        for layer in LAYERS
    )


def best_of_all(losses: dict[str, np.ndarray], allowed: int) -> float:
    plans = itertools.product(*(range(1, layer.full_rank + 1) for layer in LAYERS))
    named = (dict(zip(("a", "b", "c"), plan, strict=True)) for plan in plans)
    return min(loss_of(losses, ranks) for ranks in named if plan_params(LAYERS, ranks) <= allowed)


@pytest.mark.parametrize("seed", range(6))
def test_no_plan_of_that_size_is_better_where_a_multiplier_meets_the_budget(seed: int) -> None:
    losses = falling(seed)
    prices = {layer.name: component_prices(layer, losses[layer.name]) for layer in LAYERS}
    every = np.unique(np.concatenate(list(prices.values())))
    met = 0
    for price in every[:: max(1, len(every) // 6)]:
        ranks = {name: max(1, rank) for name, rank in ranks_at_price(LAYERS, prices, price).items()}
        allowed = plan_params(LAYERS, ranks)
        if min(ranks_at_price(LAYERS, prices, price).values()) < 1 or allowed >= TOTAL:
            continue
        found = cheapest_ranks(LAYERS, losses, allowed / TOTAL)
        assert plan_params(LAYERS, found) <= allowed
        assert loss_of(losses, found) == pytest.approx(best_of_all(losses, allowed))
        met += 1
    assert met >= 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("keep", [0.35, 0.6, 0.75, 0.9])
def test_between_two_multipliers_it_is_never_worse_than_the_larger(seed: int, keep: float) -> None:
    """What a multiplier leaves over is spent, never wasted."""
    losses = falling(seed)
    found = cheapest_ranks(LAYERS, losses, keep)
    prices = {layer.name: component_prices(layer, losses[layer.name]) for layer in LAYERS}
    fitting = []
    for price in np.unique(np.concatenate(list(prices.values()))):
        ranks = {name: max(1, rank) for name, rank in ranks_at_price(LAYERS, prices, price).items()}
        if plan_params(LAYERS, ranks) <= keep * TOTAL:
            fitting.append(loss_of(losses, ranks))
    assert keep_ratio(LAYERS, found) <= keep
    assert loss_of(losses, found) <= min(fitting) + 1e-12
    assert loss_of(losses, found) >= best_of_all(losses, int(keep * TOTAL)) - 1e-12


def test_the_loss_is_half_the_discarded_energy_on_the_two_sided_decomposition_only(tmp_path: Path) -> None:
    model = tiny_model("llama")
    layers: tuple[LinearShape, ...] = block_linears(model)
    source = MemoryFactors(model, random_windows(8, 32, seed=1), "kfac")
    given = context_for(model, tmp_path, source=source, decomposition="kfac")
    settings = LagrangianSettings(batches=2, batch=2, window=16)
    measuring = Measuring(settings.batches, settings.batch, settings.window)
    losses = predicted_losses(given, settings.curve, measuring)
    for layer in layers:
        sigma = source.sigma(layer.name, layer.block).double()
        np.testing.assert_allclose(losses[layer.name], 0.5 * sigma.square().numpy())
    found = allocate(given, settings)
    low = [layer for layer in layers if found.ranks[layer.name] < layer.full_rank]
    expected = sum(losses[layer.name][found.ranks[layer.name] :].sum() for layer in low)
    assert (found.details or {})["predicted_loss_increase"] == pytest.approx(expected)
    state = state_of(model)
    measured = predicted_losses(context_for(model, tmp_path), settings.curve, measuring)  # whitened
    assert same_state(model, state)
    assert all((measured[layer.name] >= 0).all() and measured[layer.name].any() for layer in layers)
    again = predicted_losses(context_for(model, tmp_path), settings.curve, measuring)
    assert all(np.array_equal(measured[name], again[name]) for name in measured)


def test_what_a_rank_multiple_costs_is_the_difference_of_two_plans(tmp_path: Path) -> None:
    model = tiny_model()
    free = context_for(model, tmp_path, keep=0.6)
    multiples = replace(free, layers=tuple(replace(layer, rank_multiple=8) for layer in free.layers))
    settings = LagrangianSettings(batches=4, batch=2, window=12)
    bound, unbound = (dict(allocate(context, settings).details or {}) for context in (multiples, free))
    assert bound["predicted_loss_at_any_rank"] == unbound["predicted_loss_increase"]
    assert bound["predicted_loss_increase"] >= unbound["predicted_loss_increase"]
    assert "predicted_loss_at_any_rank" not in unbound
