"""From a predicted loss per discarded component to the price of every component. numpy only; shared by allocators."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lrc_core.budget import (
    check_target,
    dense_ranks,
    factor_params,
    fit_budget,
    is_dense,
    largest_low_rank,
    layer_params,
    next_rank,
    params_per_rank,
    plan_params,
    snapped_rank,
)
from lrc_core.types import LinearShape

Array = NDArray[np.float64]


def component_prices(layer: LinearShape, losses: Array) -> Array:
    """Loss per saved parameter at which each component of a layer is worth dropping.

    The points (parameters, loss of dropping everything beyond k) of all ranks that save anything, and the dense layer
    (mn, 0), have a lower convex hull; a component costs the slope of the segment that it lies on. All components
    between the dense layer and the first hull vertex cost the same: they are only worth dropping together, because a
    rank at or above break-even saves nothing.

    Args:
        losses: [r] predicted loss of dropping each component, in the order of the spectrum, not negative.

    Returns:
        [r] prices, not increasing.
    """
    tail = np.concatenate([np.cumsum(losses[::-1])[::-1], [0.0]])  # tail[k]: loss of keeping the first k
    ranks = np.arange(0, largest_low_rank(layer) + 1, layer.rank_multiple)
    costs = np.append(factor_params(layer, ranks), layer.params).astype(np.float64)
    values = np.append(tail[ranks], 0.0)
    hull = lower_hull(costs, values)
    prices = np.empty(layer.full_rank)
    for start, end in pairwise(hull):
        slope = (values[start] - values[end]) / (costs[end] - costs[start])
        last = layer.full_rank if end == len(costs) - 1 else int(ranks[end])
        prices[int(ranks[start]) : last] = slope
    return prices


def lower_hull(x: Array, y: Array) -> list[int]:
    """Indices of the lower convex hull of points with increasing x, first and last included (monotone chain)."""
    hull: list[int] = []
    for i in range(len(x)):
        while len(hull) >= 2:
            a, b = hull[-2], hull[-1]
            if (y[b] - y[a]) * (x[i] - x[a]) < (y[i] - y[a]) * (x[b] - x[a]):
                break
            hull.pop()
        hull.append(i)
    return hull


def ranks_at_price(layers: Sequence[LinearShape], prices: Mapping[str, Array], price: float) -> dict[str, int]:
    """Keep every component that costs more than ``price`` (prices do not increase along a spectrum)."""
    return {layer.name: int(np.searchsorted(-prices[layer.name], -price, side="left")) for layer in layers}


def predicted_loss(layers: Sequence[LinearShape], ranks: Mapping[str, int], losses: Mapping[str, Array]) -> float:
    """Predicted loss of a plan: that of every component dropped, added up; a dense layer drops none."""
    dropping = (layer for layer in layers if not is_dense(layer, ranks[layer.name]))
    return sum(float(losses[layer.name][ranks[layer.name] :].sum()) for layer in dropping)


def cheapest_ranks(layers: Sequence[LinearShape], losses: Mapping[str, Array], keep: float) -> dict[str, int]:
    """The plan of least predicted loss within a budget: the Lagrangian optimum on the convex hulls.

    Everything cheaper than one price goes; prices are sorted once, so any target takes milliseconds. What the
    last step on a hull leaves over is spent where a rank saves most loss.

    Args:
        losses: for every layer [r], predicted loss of dropping each component.

    Raises:
        BudgetError: the target is impossible.
    """
    return cheapest_plans(layers, losses, (keep,))[0]


def cheapest_plans(
    layers: Sequence[LinearShape], losses: Mapping[str, Array], keeps: Sequence[float]
) -> list[dict[str, int]]:
    """:func:`cheapest_ranks` at several targets; the hulls, most of the work, are found once.

    Raises:
        BudgetError: one of the targets is impossible.
    """
    allowed = [check_target(layers, keep) for keep in keeps]
    prices = {layer.name: component_prices(layer, losses[layer.name]) for layer in layers}
    every, left = params_by_price(layers, prices)
    plans = []
    for keep, most in zip(keeps, allowed, strict=True):
        if keep >= 1:
            plans.append(dense_ranks(layers))
            continue
        # The lowest price that brings the plan within the budget; at the highest only what cannot be dropped is kept.
        fitting = min(int(np.searchsorted(-left, -most, side="left")), len(every) - 1)
        ranks = ranks_at_price(layers, prices, every[fitting])
        ranks = {layer.name: snapped_rank(layer, ranks[layer.name]) for layer in layers}
        _spend(layers, losses, ranks, most)
        plans.append(fit_budget(layers, ranks, keep))
    return plans


def params_by_price(layers: Sequence[LinearShape], prices: Mapping[str, Array]) -> tuple[Array, NDArray[np.int64]]:
    """Every price at which anything goes, and the parameters that are left when all up to that price has gone.

    Each component takes with it what its layer shrinks by when it is the last one kept; a layer keeps at least one.
    Returns [p] prices, rising; [p] parameters of all layers, not rising.
    """
    gone = []
    for layer in layers:
        kept = np.maximum(np.arange(layer.full_rank + 1), 1)
        gone.append(np.diff(np.minimum(factor_params(layer, kept), layer.params)))
    every = np.concatenate([prices[layer.name] for layer in layers])
    order = np.argsort(every)
    whole = sum(layer_params(layer, layer.full_rank) for layer in layers)
    left = whole - np.cumsum(np.concatenate(gone)[order])
    last = np.append(np.flatnonzero(np.diff(every[order])), len(every) - 1)  # of each run of equal prices
    return every[order][last], left[last]


def _spend(layers: Sequence[LinearShape], losses: Mapping[str, Array], ranks: dict[str, int], allowed: int) -> None:
    """Add ranks in place, the one that saves most loss per parameter first, while any fits."""
    left = allowed - plan_params(layers, ranks)
    heap = [(-_gain(layer, losses, ranks), number) for number, layer in enumerate(layers)]
    heapq.heapify(heap)
    while heap:
        _, number = heapq.heappop(heap)
        layer = layers[number]
        if is_dense(layer, ranks[layer.name]):
            continue
        rank = next_rank(layer, ranks[layer.name])
        step = layer_params(layer, rank) - layer_params(layer, ranks[layer.name])
        if step <= left:  # a layer whose next rank does not fit now never will
            ranks[layer.name] = rank
            left -= step
            heapq.heappush(heap, (-_gain(layer, losses, ranks), number))


def _gain(layer: LinearShape, losses: Mapping[str, Array], ranks: Mapping[str, int]) -> float:
    """Predicted loss saved per parameter by one more rank."""
    rank = min(ranks[layer.name], layer.full_rank - 1)
    return float(losses[layer.name][rank]) / params_per_rank(layer, float(rank))


def dropping_order(layers: Sequence[LinearShape], prices: Mapping[str, Array]) -> dict[str, Array]:
    """Compression rate at which each component goes when components go in the order of their price.

    Returns:
        For every layer [r] values in [0, 1]: the share of all parameters saved by dropping everything at most as
        expensive.
    """
    total = sum(layer.params for layer in layers)
    flat, saved = [], []
    for layer in layers:
        kept = np.minimum(factor_params(layer, np.arange(layer.full_rank + 1)), layer.params)
        flat.append(prices[layer.name])
        # Parameters freed by dropping component i after all later ones; none while the layer stays above break-even.
        saved.append(np.diff(kept).astype(np.float64))
    every, freed = np.concatenate(flat), np.concatenate(saved)
    order = np.argsort(every, kind="stable")
    cumulative = np.cumsum(freed[order]) / total
    # Components of one price go together: they all get the rate reached after the last of them.
    sorted_prices = every[order]
    last = np.searchsorted(sorted_prices, sorted_prices, side="right") - 1
    rates = np.empty_like(cumulative)
    rates[order] = cumulative[last]
    sizes = np.cumsum([layer.full_rank for layer in layers])[:-1]
    return {layer.name: part for layer, part in zip(layers, np.split(rates, sizes), strict=True)}
