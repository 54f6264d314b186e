"""Ranks, parameters and ratios: the one place where they are counted."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from lrc_core.budget import (
    break_even,
    check_target,
    dense_ranks,
    fit_budget,
    is_dense,
    keep_at,
    keep_ratio,
    kept_share,
    largest_low_rank,
    layer_params,
    layer_ratio,
    normalised,
    plan_params,
    removed_percent,
    removed_share,
    same_percent,
    same_size,
    size_key,
    uniform_ranks,
    whole_model_ratio,
    whole_percent,
    within,
)
from lrc_core.errors import BudgetError
from tests.factories.tiny_methods import grid_of_shapes, shape

SQUARE, WIDE, TALL, ROW = shape("a", 64, 64), shape("b", 48, 144), shape("c", 160, 32), shape("d", 1, 8)
LAYERS = grid_of_shapes([(576, 576), (192, 576), (1536, 576), (576, 1536)], blocks=3)


@pytest.mark.parametrize("layer", [SQUARE, WIDE, TALL, ROW])
def test_every_rank_costs_the_smaller_of_factors_and_dense(layer) -> None:
    for rank in range(layer.full_rank + 1):
        factors = rank * (layer.out_features + layer.in_features)
        assert is_dense(layer, rank) == (factors >= layer.params)
        assert layer_params(layer, rank) == min(factors, layer.params)
        assert layer_ratio(layer, rank) == min(factors, layer.params) / layer.params
        assert is_dense(layer, rank) == (rank >= Fraction(layer.params, layer.out_features + layer.in_features))


@pytest.mark.parametrize("layer", [SQUARE, WIDE, TALL, ROW])
def test_the_largest_low_rank_is_the_last_that_saves(layer) -> None:
    last = largest_low_rank(layer)
    assert not is_dense(layer, last)
    assert is_dense(layer, last + 1)
    assert last < break_even(layer) <= last + 1


def test_a_rank_at_the_break_even_itself_is_dense() -> None:
    # 64 x 64 breaks even at exactly 32: the factors would cost what the matrix costs.
    assert break_even(SQUARE) == 32
    assert is_dense(SQUARE, 32)
    assert not is_dense(SQUARE, 31)


def sized(linear: int, total: int) -> Any:
    """As much of a card as counts."""
    return SimpleNamespace(params_linear=linear, params_total=total)


def test_ratios_of_a_whole_model() -> None:
    layers = (SQUARE, WIDE)
    ranks = {"a": 16, "b": 48}
    kept = 16 * 128 + WIDE.params
    assert plan_params(layers, ranks) == kept
    assert keep_ratio(layers, ranks) == kept / (SQUARE.params + WIDE.params)
    linear, total = SQUARE.params + WIDE.params, SQUARE.params + WIDE.params + 5000
    expected = (kept + 5000) / total
    assert whole_model_ratio(keep_ratio(layers, ranks), sized(linear, total)) == pytest.approx(expected)


def test_the_published_example_of_llama_2_7b() -> None:
    # 0.80 of the block linears is 0.8078 of the model with its embeddings and head.
    linear = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    total = linear + 2 * 32000 * 4096 + 65 * 4096
    assert whole_model_ratio(0.8, sized(linear, total)) == pytest.approx(0.8078, abs=1e-4)


def test_normalised_ranks_write_dense_as_full_and_nothing_as_one() -> None:
    assert normalised((SQUARE, WIDE), {"a": 40, "b": 0}) == {"a": 64, "b": 1}
    with pytest.raises(BudgetError, match="layer b"):
        normalised((SQUARE, WIDE), {"a": 1})
    with pytest.raises(BudgetError, match="Rank 65 of a"):
        normalised((SQUARE,), {"a": 65})
    with pytest.raises(BudgetError, match="Rank -1 of a"):
        normalised((SQUARE,), {"a": -1})


@pytest.mark.parametrize("keep", [0, -0.1, 1.0001, 80, float("nan"), float("inf"), "0.8", None])
def test_a_target_that_is_no_share_is_refused(keep) -> None:
    with pytest.raises(BudgetError, match="at most 1"):
        check_target(LAYERS, keep)


def test_a_target_below_rank_one_everywhere_says_what_is_possible() -> None:
    smallest = plan_params(LAYERS, {layer.name: 1 for layer in LAYERS}) / sum(layer.params for layer in LAYERS)
    with pytest.raises(BudgetError, match=f"at least {smallest:.4f}"):
        check_target(LAYERS, smallest * 0.99)
    ranks = fit_budget(LAYERS, dense_ranks(LAYERS), smallest + 1e-12)
    assert set(ranks.values()) == {1}


def test_a_rank_multiple_that_makes_a_target_impossible_is_named_among_the_remedies() -> None:
    with pytest.raises(BudgetError, match="rank multiple"):
        check_target([replace(layer, rank_multiple=64) for layer in LAYERS], 0.01)
    with pytest.raises(BudgetError) as caught:
        check_target(LAYERS, 1e-6)
    assert "multiple" not in str(caught.value)


def test_uniform_is_the_papers_formula() -> None:
    ranks = uniform_ranks(LAYERS, 0.8)
    # 0.8 * 576 * 576 / 1152 = 230.4, 0.8 * 144 = 115.2, 0.8 * 418.9 = 335.1
    assert [ranks[f"blocks.0.linear_{i}"] for i in range(4)] == [230, 115, 335, 335]
    assert uniform_ranks(LAYERS, 1.0) == dense_ranks(LAYERS)
    # 0.7 * 80 is 56 but 55.99999... in floating point.
    assert uniform_ranks((shape("x", 160, 160),), 0.7) == {"x": 56}


def nearly_used(layers, ranks, keep):
    """Never above the budget; at least 99.5 % of it or all but one rank of the largest layer."""
    total = sum(layer.params for layer in layers)
    used, allowed = plan_params(layers, ranks), keep * total + 1e-6
    one_rank = max(layer.out_features + layer.in_features for layer in layers)
    return used <= allowed and (used >= 0.995 * allowed or allowed - used < one_rank)


def random_layers(rng):
    count = rng.randint(1, 12)
    return tuple(shape(f"l{i}", rng.choice([1, 3, 16, 48, 96]), rng.choice([2, 16, 33, 64])) for i in range(count))


def test_fitting_meets_the_budget_whatever_is_asked() -> None:
    rng = random.Random(0)
    for _ in range(300):
        layers = random_layers(rng)
        keep = rng.choice([rng.uniform(0.05, 1), 0.99, 0.999, 1.0])
        ranks = {layer.name: rng.randint(0, layer.full_rank) for layer in layers}
        priority = {layer.name: rng.random() for layer in layers} if rng.random() < 0.5 else None
        try:
            allowed = check_target(layers, keep)
        except BudgetError:
            with pytest.raises(BudgetError):
                fit_budget(layers, ranks, keep, priority)
            continue
        fitted = fit_budget(layers, ranks, keep, priority)
        assert plan_params(layers, fitted) <= allowed
        assert nearly_used(layers, fitted, keep), (layers, ranks, keep, fitted)
        assert fitted == normalised(layers, fitted)
        assert all(1 <= fitted[layer.name] <= layer.full_rank for layer in layers)
        assert fit_budget(layers, fitted, keep, priority) == fitted


def test_fitting_shrinks_low_rank_layers_before_dense_ones() -> None:
    ranks = {**dense_ranks(LAYERS), "blocks.1.linear_0": 250, "blocks.1.linear_2": 400, "blocks.2.linear_3": 400}
    allowed_by_them = keep_ratio(LAYERS, {**ranks, "blocks.1.linear_0": 200, "blocks.1.linear_2": 300})
    fitted = fit_budget(LAYERS, ranks, allowed_by_them)
    assert {name for name, rank in fitted.items() if rank != ranks[name]} == {
        "blocks.1.linear_0",
        "blocks.1.linear_2",
        "blocks.2.linear_3",
    }
    assert nearly_used(LAYERS, fit_budget(LAYERS, dense_ranks(LAYERS), 0.5), 0.5)


def test_what_is_left_over_goes_where_the_priority_says() -> None:
    layers = (shape("a", 64, 64), shape("b", 64, 64))
    ranks = {"a": 10, "b": 10}
    keep = (20 * 128 + 128) / (2 * 4096)
    assert fit_budget(layers, ranks, keep, {"a": 0.0, "b": 1.0}) == {"a": 10, "b": 11}
    assert fit_budget(layers, ranks, keep, {"a": 1.0, "b": 0.0}) == {"a": 11, "b": 10}


def test_keep_one_is_the_dense_model() -> None:
    assert fit_budget(LAYERS, {layer.name: 3 for layer in LAYERS}, 1.0) == dense_ranks(LAYERS)
    assert keep_ratio(LAYERS, dense_ranks(LAYERS)) == 1.0


@pytest.mark.parametrize("percent", range(1, 100))
def test_a_whole_percent_is_the_same_size_in_every_word_for_it(percent: int) -> None:
    """Sliders, file names and plans meet in the very numbers that a user types: 7 % removed is 0.93, not 1 - 0.07."""
    keep = keep_at(percent)
    assert keep == float(f"0.{100 - percent:02d}")
    assert whole_percent(keep) == removed_percent(keep) == percent
    assert kept_share(removed_share(keep)) == pytest.approx(keep, abs=1e-15)
    assert size_key(1 - percent / 100) == keep and same_size(1 - percent / 100, keep)


def test_a_plan_of_a_whole_percent_stands_for_targets_that_round_to_it() -> None:
    for keep in (0.8049, 0.8, 0.7951):
        assert same_percent(keep_at(whole_percent(keep)), keep)
    assert not same_percent(0.8, 0.79) and not same_size(0.8, 0.80001)
    assert within(0.8, 0.8) and within(0.8 + 1e-9, 0.8) and not within(0.801, 0.8)
