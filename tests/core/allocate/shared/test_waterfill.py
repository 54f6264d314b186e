"""Dividing an amount in proportion to weights within limits."""

from __future__ import annotations

import numpy as np
import pytest

from lrc_core.allocate.curves.waterfill import by_kind, filled
from tests.factories.tiny_methods import grid_of_shapes


def test_without_limits_it_is_a_proportion() -> None:
    found = filled(np.array([1.0, 2.0, 5.0]), 16.0, np.zeros(3), np.full(3, 100.0))
    np.testing.assert_allclose(found, [2, 4, 10])


def test_a_clipped_share_leaves_its_surplus_to_the_others() -> None:
    # 2, 4 and 10 at first; 10 is held at 4, and its 6 are divided 1 : 2.
    found = filled(np.array([1.0, 2.0, 5.0]), 16.0, np.zeros(3), np.array([100.0, 100.0, 4.0]))
    np.testing.assert_allclose(found, [4, 8, 4])
    # The first is held up at 3, so the others get 13 in the proportion 2 : 5.
    found = filled(np.array([1.0, 2.0, 5.0]), 16.0, np.array([3.0, 0, 0]), np.full(3, 100.0))
    np.testing.assert_allclose(found, [3, 26 / 7, 65 / 7])


@pytest.mark.parametrize("seed", range(10))
def test_it_meets_the_amount_within_the_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights, lower = rng.exponential(size=9), rng.uniform(0, 1, size=9)
    upper = lower + rng.uniform(0, 3, size=9)
    for amount in np.linspace(lower.sum(), upper.sum(), 7):
        found = filled(weights, float(amount), lower, upper)
        assert ((lower <= found) & (found <= upper)).all()
        assert found.sum() <= amount + 1e-9
        assert found.sum() == pytest.approx(amount)
        free = (found > lower * (1 + 1e-9)) & (found < upper * (1 - 1e-9))
        assert np.ptp(found[free] / weights[free]) < 1e-9 if free.sum() > 1 else True


def test_what_cannot_be_met() -> None:
    lower, upper = np.array([1.0, 2.0]), np.array([3.0, 5.0])
    assert filled(np.ones(2), 0.5, lower, upper).tolist() == [1, 2]
    assert filled(np.ones(2), 50.0, lower, upper).tolist() == [3, 5]
    assert filled(np.array([0.0, 1.0]), 8.0, lower, upper).tolist() == [1, 5]
    np.testing.assert_allclose(filled(np.zeros(2), 6.0, lower, upper), [2.25, 3.75])
    assert filled(np.zeros(2), 6.0, np.zeros(2), np.zeros(2)).tolist() == [0, 0]


def test_layers_by_kind() -> None:
    layers = grid_of_shapes([(4, 4), (8, 4)], blocks=2)
    assert list(by_kind(layers).values()) == [[layers[0], layers[2]], [layers[1], layers[3]]]
