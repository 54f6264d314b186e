"""D-Rank: the closed form minimises its Lagrangian, within the limits; query and key give to value."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from lrc_core.allocate.drank.method import DrankSettings, allocate, density_costs, rebalanced
from lrc_core.budget import is_dense, layer_params
from lrc_core.types import LinearShape
from tests.factories.tiny_methods import context_for, grid_of_shapes, shape
from tests.factories.tiny_models import tiny_model

LAYERS = grid_of_shapes([(48, 48), (16, 48), (96, 48)], blocks=4)


def densities(seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    return {layer.name: float(rng.uniform(1, layer.full_rank)) for layer in LAYERS}


def per_rank(layer: LinearShape) -> int:
    return layer.out_features + layer.in_features


def test_without_limits_it_is_the_formula() -> None:
    """Densities within a factor of each other and a low target: no layer meets a limit."""
    density = {layer.name: 10.0 + number for number, layer in enumerate(LAYERS)}
    budget = 0.2 * sum(layer.params for layer in LAYERS)
    total = sum(math.sqrt(density[layer.name] * per_rank(layer)) for layer in LAYERS)
    costs = density_costs(LAYERS, density, 0.2, scope="model")
    for layer in LAYERS:
        rank = math.sqrt(density[layer.name] / per_rank(layer)) * budget / total
        assert costs[layer.name] == pytest.approx(rank * per_rank(layer))


@pytest.mark.parametrize("scope", ["kind", "model"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("seed", range(3))
def test_it_minimises_density_over_rank(seed: int, keep: float, scope: str) -> None:
    """Moving parameters from any layer to any other that shares its budget never lowers sum e/k."""
    density = densities(seed)
    costs = density_costs(LAYERS, density, keep, scope=scope)
    assert sum(costs.values()) == pytest.approx(keep * sum(layer.params for layer in LAYERS))

    def objective(layer: LinearShape, cost: float) -> float:
        return density[layer.name] * per_rank(layer) / cost

    tried = 0
    for giver in LAYERS:
        for taker in LAYERS:
            if giver is taker or (scope == "kind" and giver.kind != taker.kind):
                continue
            most = min(costs[giver.name] - layer_params(giver, 1), taker.params - costs[taker.name])
            for moved in [share * most for share in (1e-4, 0.1, 1.0) if most > 1e-6]:
                now = objective(giver, costs[giver.name]) + objective(taker, costs[taker.name])
                then = objective(giver, costs[giver.name] - moved) + objective(taker, costs[taker.name] + moved)
                assert then >= now * (1 - 1e-9)
                tried += 1
    assert tried > 10


def test_a_layer_above_break_even_is_dense_and_its_surplus_goes_to_the_others() -> None:
    density = {layer.name: 100.0 if layer.block == 0 else 1.0 for layer in LAYERS}
    costs = density_costs(LAYERS, density, 0.6)
    for layer in LAYERS:
        if layer.block == 0:
            assert costs[layer.name] == layer.params
        else:  # (4 * 0.6 - 1) / 3 of the matrix for each of the other three blocks
            assert costs[layer.name] == pytest.approx(layer.params * 1.4 / 3)


def test_query_and_key_give_to_value() -> None:
    layers = tuple(
        shape(f"{block}.attn.{name}", 40, 40, block) for block in (0, 1) for name in ("q_proj", "k_proj", "v_proj")
    )
    costs = {layer.name: 800.0 for layer in layers} | {"1.attn.v_proj": 1500.0}
    found = rebalanced(layers, costs, 0.1)
    # 4 x 80 are given; the second value layer takes 100 to be dense, the first the other 220.
    assert found["1.attn.v_proj"] == pytest.approx(1600)
    assert found["0.attn.v_proj"] == pytest.approx(1020)
    assert all(value == pytest.approx(720) for name, value in found.items() if "v_proj" not in name)
    # 4 x 400 are given and only 900 taken: each giver gets back what was not needed of it.
    found = rebalanced(layers, costs, 0.5)
    assert found["0.attn.v_proj"] == found["1.attn.v_proj"] == pytest.approx(1600)
    assert found["0.attn.q_proj"] == pytest.approx(800 - 900 / 4)
    assert sum(found.values()) == pytest.approx(sum(costs.values()))
    assert rebalanced(layers, costs, 0.0) == costs


def test_there_is_nothing_to_rebalance_where_the_three_are_one() -> None:
    costs = {layer.name: 100.0 for layer in LAYERS}
    assert rebalanced(LAYERS, costs, 0.2) == costs


def test_density_is_the_effective_rank_of_the_energy(tmp_path: Path) -> None:
    given = context_for(tiny_model("llama"), tmp_path, keep=0.5)
    found = allocate(given, DrankSettings(rebalance=0.0))
    details = dict(found.details or {})["effective_ranks"]
    for layer in given.layers:
        energy = given.source.sigma(layer.name, layer.block).double().numpy() ** 2
        shares = energy / energy.sum()
        assert details[layer.name] == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))


def test_a_denser_block_gets_more_rank(tmp_path: Path) -> None:
    given = context_for(tiny_model("llama"), tmp_path, keep=0.6)
    found = allocate(given, DrankSettings(rebalance=0.0))
    density = dict(found.details or {})["effective_ranks"]
    for layer in given.layers:
        for other in given.layers:
            if layer.kind == other.kind and density[layer.name] > density[other.name]:
                assert found.ranks[layer.name] >= found.ranks[other.name] - 1  # within the rounding


def test_value_layers_gain_from_the_rebalancing(tmp_path: Path) -> None:
    given = context_for(tiny_model("llama"), tmp_path, keep=0.5)
    before, after = (allocate(given, DrankSettings(rebalance=share)).ranks for share in (0.0, 0.3))
    for layer in given.layers:
        name = layer.kind.split(".")[-1]
        if name == "v_proj":
            assert after[layer.name] > before[layer.name] or is_dense(layer, after[layer.name])
        if name in ("q_proj", "k_proj"):
            assert after[layer.name] < before[layer.name]
