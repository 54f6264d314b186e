"""The exact knapsack against all plans there are, and against another way of solving it."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from lrc_core.allocate.curves.knapsack import best_plan, gains
from lrc_core.budget import largest_low_rank, layer_params, plan_params
from lrc_core.errors import BudgetError, NumericalError
from lrc_core.types import LinearShape
from tests.factories.tiny_methods import grid_of_shapes

LAYERS = grid_of_shapes([(48, 48), (16, 48), (96, 40)], blocks=2)


def random_choices(layers: tuple[LinearShape, ...], seed: int, ranks: int) -> dict[str, dict[int, float]]:
    """Errors that mostly fall with the rank, some negative, the dense layer one of the choices."""
    rng = random.Random(seed)
    found = {}
    for layer in layers:
        low = rng.sample(range(1, largest_low_rank(layer) + 1), ranks - 1)
        found[layer.name] = {rank: rng.uniform(-0.1, 1) / rank for rank in low} | {layer.full_rank: 0.0}
    return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_no_plan_within_the_budget_is_better(seed: int, share: float) -> None:
    choices = random_choices(LAYERS, seed, 4)
    plans = [
        dict(zip(choices, ranks, strict=True)) for ranks in itertools.product(*(choices[name] for name in choices))
    ]
    costs = [plan_params(LAYERS, plan) for plan in plans]
    allowed = int(min(costs) + share * (max(costs) - min(costs)))
    best = min(
        sum(choices[name][rank] for name, rank in plan.items())
        for plan, cost in zip(plans, costs, strict=True)
        if cost <= allowed
    )
    found = best_plan(LAYERS, choices, allowed)
    assert found.proven
    assert found.error == pytest.approx(best, abs=1e-12)
    assert sum(choices[name][rank] for name, rank in found.ranks.items()) == pytest.approx(found.error)
    assert plan_params(LAYERS, found.ranks) <= allowed


@pytest.mark.parametrize("seed", range(4))
def test_many_layers_agree_with_a_table_over_every_budget(seed: int) -> None:
    layers = grid_of_shapes([(48, 48), (16, 48), (48, 96)], blocks=8)
    choices = random_choices(layers, seed, 7)
    unit = 16
    allowed = int(0.6 * sum(layer.params for layer in layers))
    table = np.full(allowed // unit + 1, 0.0)  # least error of the layers so far, by what they may cost
    for layer in layers:
        rows = [np.full(len(table), np.inf)]
        for rank, error in choices[layer.name].items():
            cost = layer_params(layer, rank) // unit
            assert layer_params(layer, rank) % unit == 0
            rows.append(np.concatenate([np.full(cost, np.inf), table])[: len(table)] + error)
        table = np.min(rows, axis=0)
    assert best_plan(layers, choices, allowed).error == pytest.approx(float(table[-1]), abs=1e-12)


def test_errors_of_any_size_are_told_apart() -> None:
    """The solver stops at an absolute gap; what is scaled by a billionth still has one best plan."""
    for scale in (1e-12, 1.0, 1e12):
        choices = {
            name: {r: e * scale for r, e in found.items()} for name, found in random_choices(LAYERS, 3, 4).items()
        }
        found = best_plan(LAYERS, choices, 6000)
        assert found.ranks == best_plan(LAYERS, random_choices(LAYERS, 3, 4), 6000).ranks


def test_equal_errors_still_meet_the_budget() -> None:
    choices = {layer.name: {2: 0.0, 4: 0.0, layer.full_rank: 0.0} for layer in LAYERS}
    allowed = plan_params(LAYERS, {layer.name: 2 for layer in LAYERS})
    assert set(best_plan(LAYERS, choices, allowed).ranks.values()) == {2}
    with pytest.raises(BudgetError, match="smaller ranks"):
        best_plan(LAYERS, choices, allowed - 1)


def test_an_error_that_is_not_finite_is_refused() -> None:
    choices = {layer.name: {2: float("nan"), layer.full_rank: 0.0} for layer in LAYERS}
    with pytest.raises(NumericalError):
        best_plan(LAYERS, choices, 10**6)


def test_gains_are_slopes_to_the_next_choice() -> None:
    first, second = LAYERS[:2]
    choices = {first.name: {2: 5.0, 7: 1.0, 48: 0.0}, second.name: {3: 1.0}}
    found = gains((first, second), choices, {first.name: 2, second.name: 3})
    assert found == {first.name: pytest.approx(4.0 / (5 * 96)), second.name: 0.0}
    found = gains((first, second), choices, {first.name: 7, second.name: 3})
    assert found[first.name] == pytest.approx(1.0 / (48 * 48 - 7 * 96))
