"""Convex hulls of loss curves, prices, and the order in which components go."""

from __future__ import annotations

import numpy as np
import pytest

from lrc_core.allocate.curves.loss_curves import (
    cheapest_plans,
    cheapest_ranks,
    component_prices,
    dropping_order,
    lower_hull,
    params_by_price,
    ranks_at_price,
)
from lrc_core.budget import dense_ranks, is_dense, keep_ratio, layer_params, plan_params
from tests.factories.tiny_methods import shape

LAYERS = (shape("a", 12, 12), shape("b", 8, 24), shape("c", 30, 10), shape("d", 1, 9))


def random_losses(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {layer.name: rng.exponential(size=layer.full_rank) ** 3 for layer in LAYERS}


@pytest.mark.parametrize("seed", range(20))
def test_the_hull_is_the_brute_force_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.uniform(0.1, 2, size=15))
    y = rng.normal(size=15)
    hull = lower_hull(x, y)
    assert (hull[0], hull[-1]) == (0, 14)
    # A point is on the lower hull where no chord between two others passes at or below it.
    expected = [
        i
        for i in range(15)
        if all(y[i] < y[a] + (y[b] - y[a]) * (x[i] - x[a]) / (x[b] - x[a]) for a in range(i) for b in range(i + 1, 15))
    ]
    assert hull == expected


def test_points_on_a_line_are_one_segment() -> None:
    assert lower_hull(np.arange(5.0), 2 - 0.5 * np.arange(5.0)) == [0, 4]
    assert lower_hull(np.arange(2.0), np.array([3.0, 5.0])) == [0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_a_price_decides_as_brute_force_does(seed: int) -> None:
    """At any price the chosen rank minimises loss + price * parameters over all ranks and the dense layer."""
    losses = random_losses(seed)
    prices = {layer.name: component_prices(layer, losses[layer.name]) for layer in LAYERS}
    for price in [0.0, *np.random.default_rng(seed).exponential(size=30) * 0.1, 100.0]:
        ranks = ranks_at_price(LAYERS, prices, float(price))
        for layer in LAYERS:
            tail = [losses[layer.name][k:].sum() for k in range(layer.full_rank + 1)]

            def total(rank: int) -> float:
                loss = 0.0 if is_dense(layer, rank) else tail[rank]  # noqa: B023 - used within the loop
                return float(loss + price * layer_params(layer, rank))  # noqa: B023

            best = min(total(rank) for rank in range(layer.full_rank + 1))
            assert total(ranks[layer.name]) == pytest.approx(best, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_prices_fall_along_a_spectrum_and_never_below_zero(seed: int) -> None:
    for layer in LAYERS:
        prices = component_prices(layer, random_losses(seed)[layer.name])
        assert prices.shape == (layer.full_rank,)
        assert (np.diff(prices) <= 1e-15).all()
        assert (prices >= 0).all()


def test_what_lies_above_break_even_is_only_worth_dropping_together() -> None:
    layer = LAYERS[0]  # 12 x 12: break-even at 6
    prices = component_prices(layer, np.geomspace(100, 0.01, 12))
    assert len(set(prices[6:])) == 1
    assert prices[0] > prices[5]


@pytest.mark.parametrize("seed", range(5))
def test_components_go_in_the_order_of_their_price(seed: int) -> None:
    prices = {
        layer.name: component_prices(layer, loss)
        for layer, loss in zip(LAYERS, random_losses(seed).values(), strict=True)
    }
    rates = dropping_order(LAYERS, prices)
    flat_prices = np.concatenate([prices[layer.name] for layer in LAYERS])
    flat_rates = np.concatenate([rates[layer.name] for layer in LAYERS])
    order = np.argsort(flat_prices)
    assert (np.diff(flat_rates[order]) >= -1e-12).all()
    assert all((np.diff(rates[layer.name]) <= 1e-12).all() for layer in LAYERS)
    assert flat_rates.max() == pytest.approx(1)
    # The rate of a component is what is saved when it and everything cheaper is dropped.
    for price in np.unique(flat_prices):
        saved = 1 - keep_ratio(LAYERS, ranks_at_price(LAYERS, prices, float(price)))
        assert flat_rates[flat_prices == price] == pytest.approx(saved)


def test_nothing_is_dropped_below_the_lowest_price() -> None:
    prices = {layer.name: component_prices(layer, np.ones(layer.full_rank)) for layer in LAYERS}
    assert ranks_at_price(LAYERS, prices, 0.0) == dense_ranks(LAYERS)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_at_a_price_is_what_its_ranks_cost(seed: int) -> None:
    prices = {
        name: component_prices(layer, loss)
        for layer, (name, loss) in zip(LAYERS, random_losses(seed).items(), strict=True)
    }
    every, left = params_by_price(LAYERS, prices)
    assert every.tolist() == np.unique(np.concatenate(list(prices.values()))).tolist()
    for price, found in zip(every, left, strict=True):
        ranks = {name: max(1, rank) for name, rank in ranks_at_price(LAYERS, prices, float(price)).items()}
        assert found == plan_params(LAYERS, ranks)


def test_several_targets_at_once_are_the_same_plans() -> None:
    losses, keeps = random_losses(3), (1.0, 0.9, 0.61, 0.5)
    assert cheapest_plans(LAYERS, losses, keeps) == [cheapest_ranks(LAYERS, losses, keep) for keep in keeps]
