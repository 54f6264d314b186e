"""SVD-LLM V2: removed shares in proportion to 1/log L, kind by kind."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from lrc_core.allocate.svdllm2.method import SvdLlm2Settings, allocate, logarithms, removed_shares
from lrc_core.budget import break_even
from tests.factories.tiny_methods import context_for, grid_of_shapes, shape
from tests.factories.tiny_models import tiny_model

PAIR = grid_of_shapes([(48, 48)], blocks=2)


def test_two_matrices_by_hand() -> None:
    """Logarithms 2 and 4: the first loses twice as much as the second, and 20 % on average."""
    removed = removed_shares(PAIR, {PAIR[0].name: math.exp(2), PAIR[1].name: math.exp(4)}, 0.8)
    assert removed[PAIR[0].name] == pytest.approx(0.4 * 2 / 3)
    assert removed[PAIR[1].name] == pytest.approx(0.4 / 3)


def test_each_kind_loses_the_same_share() -> None:
    layers = grid_of_shapes([(48, 48), (16, 48)], blocks=5)
    rng = np.random.default_rng(0)
    losses = {layer.name: float(np.exp(rng.uniform(3, 12))) for layer in layers}
    removed = removed_shares(layers, losses, 0.7)
    for kind in {layer.kind for layer in layers}:
        group = [layer for layer in layers if layer.kind == kind]
        weights = [1 / math.log(losses[layer.name]) for layer in group]
        for layer, weight in zip(group, weights, strict=True):
            assert removed[layer.name] == pytest.approx(len(group) * 0.3 * weight / sum(weights))


def test_the_square_of_the_losses_gives_the_same() -> None:
    losses = {PAIR[0].name: 40.0, PAIR[1].name: 900.0}
    squares = {name: loss**2 for name, loss in losses.items()}
    assert removed_shares(PAIR, losses, 0.6) == pytest.approx(removed_shares(PAIR, squares, 0.6))


def test_what_one_matrix_cannot_lose_the_others_do() -> None:
    layers = grid_of_shapes([(4, 4)], blocks=3)  # rank 1 leaves half of a 4 x 4
    losses = {layer.name: math.exp(1 if layer.block == 0 else 10) for layer in layers}
    removed = removed_shares(layers, losses, 0.7)
    assert removed[layers[0].name] == pytest.approx(0.5)
    assert removed[layers[1].name] == removed[layers[2].name] == pytest.approx(0.2)


@pytest.mark.parametrize("smallest", [math.e, 1.5, 1.0, 0.3, 1e-9])
def test_losses_without_a_positive_logarithm(smallest: float) -> None:
    """The smallest counts as e; what a loss is above it keeps its factor, and the order decides as ever."""
    logs = logarithms(np.array([smallest, smallest * math.e, smallest * math.exp(3)]))
    np.testing.assert_allclose(logs, [1, 2, 4])
    removed = removed_shares(PAIR, {PAIR[0].name: smallest, PAIR[1].name: smallest * 5}, 0.8)
    assert 0 < removed[PAIR[1].name] < removed[PAIR[0].name] < 1


def test_nothing_jumps_as_the_smallest_loss_passes_e() -> None:
    below, above = (logarithms(np.array([math.e * factor, 100.0])) for factor in (1 - 1e-9, 1 + 1e-9))
    np.testing.assert_allclose(below, above, rtol=1e-8)
    np.testing.assert_allclose(logarithms(np.array([3.0, 100.0])), np.log([3.0, 100.0]))


def test_a_loss_of_nothing() -> None:
    assert logarithms(np.zeros(3)).tolist() == [1, 1, 1]
    logs = logarithms(np.array([0.0, 1.0]))
    assert logs[0] == pytest.approx(1)
    assert np.isfinite(logs).all()
    single = (shape("a", 1, 9),)  # a matrix that no rank makes smaller
    assert removed_shares(single, {"a": 0.0}, 0.9) == {"a": 0.0}


def test_losses_are_those_of_the_uniform_plan(tmp_path: Path) -> None:
    given = context_for(tiny_model("llama"), tmp_path, keep=0.6)
    found = allocate(given, SvdLlm2Settings(tokens=1000))
    details = dict(found.details or {})
    for layer in given.layers:
        sigma = given.source.sigma(layer.name, layer.block).double()
        rank = math.floor(0.6 * break_even(layer))
        assert details["losses"][layer.name] == pytest.approx(float((1000 * sigma[rank:].square().sum()).sqrt()))
        removed = details["removed_shares"][layer.name]
        assert -1 <= found.ranks[layer.name] - (1 - removed) * break_even(layer) <= 2  # the remainder is spent


def test_more_tokens_make_the_plan_more_uniform(tmp_path: Path) -> None:
    given = context_for(tiny_model("llama"), tmp_path, keep=0.6)
    spread = []
    for tokens in (10, 10**6, 10**12):
        removed = dict(allocate(given, SvdLlm2Settings(tokens=tokens)).details or {})["removed_shares"]
        spread.append(max(removed.values()) - min(removed.values()))
    assert spread[0] > spread[1] > spread[2]
