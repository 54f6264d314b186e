"""Power laws against spectra of known exponent; condition numbers; angles between subspaces."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lrc_core.decompose.measures import condition_number, power_law, principal_angles, subspace_overlap
from lrc_core.errors import NumericalError


def pareto(alpha: float, count: int, seed: int) -> np.ndarray:
    """Singular values whose squares are drawn from a power law that begins at 1."""
    uniform = np.random.default_rng(seed).uniform(size=count)
    return np.sort(np.sqrt((1 - uniform) ** (-1 / (alpha - 1))))[::-1]


def orthonormal(rows: int, columns: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(rows, columns)))[0]


@pytest.mark.parametrize("alpha", [1.8, 2.5, 4.0, 5.5])
@pytest.mark.parametrize("seed", range(3))
def test_the_exponent_of_a_power_law(alpha: float, seed: int) -> None:
    found = power_law(pareto(alpha, 1000, seed))
    assert abs(found.alpha - alpha) < 4 * found.error
    assert found.error == pytest.approx((found.alpha - 1) / math.sqrt(found.tail))
    assert found.distance < 0.06
    assert found.warning in ("", "no heavy tail")


def test_the_estimate_is_the_most_likely_one_and_the_distance_the_one_by_hand() -> None:
    sigma = pareto(2.5, 200, 1)
    found = power_law(sigma)
    tail = np.sort(sigma**2)[-found.tail :]

    def likelihood(alpha: float) -> float:
        return float((np.log((alpha - 1) / tail[0]) - alpha * np.log(tail / tail[0])).sum())

    assert likelihood(found.alpha) > max(likelihood(found.alpha + step) for step in (-0.01, 0.01))
    model = 1 - (tail / tail[0]) ** (1 - found.alpha)
    steps = np.arange(found.tail) / found.tail
    by_hand = max(np.abs(model - steps).max(), np.abs(steps + 1 / found.tail - model).max())
    assert found.distance == pytest.approx(by_hand)


def test_the_best_beginning_is_the_one_of_smallest_distance() -> None:
    sigma = pareto(3.0, 80, 2)
    found = power_law(sigma)
    for count in range(10, 81):  # fitting each tail on its own, its beginning forced
        assert power_law(sigma[:count], shortest_tail=count).distance >= found.distance - 1e-12


def test_the_beginning_of_a_tail_is_found() -> None:
    """Half of the values lie evenly below 1 and do not belong to the law above it."""
    body = np.sqrt(np.random.default_rng(0).uniform(0.05, 1, size=1500))
    found = power_law(np.concatenate([pareto(2.5, 1500, 3), body]))
    assert found.tail == pytest.approx(1500, rel=0.3)
    assert found.alpha == pytest.approx(2.5, abs=0.15)
    assert not found.warning


def test_scale_and_order_do_not_matter() -> None:
    sigma = pareto(3.0, 300, 4)
    found, scaled = power_law(sigma), power_law(1e-3 * sigma[::-1])
    assert (found.alpha, found.tail, found.distance) == pytest.approx((scaled.alpha, scaled.tail, scaled.distance))
    assert power_law(np.append(sigma, [0.0, 0.0])) == found


@pytest.mark.parametrize(
    "sigma",
    [
        np.linalg.svd(np.random.default_rng(0).normal(size=(300, 600)), compute_uv=False),
        np.random.default_rng(1).uniform(1, 2, size=500),
        np.geomspace(1, 0.5, 400),
    ],
    ids=["random matrix", "uniform", "geometric"],
)
def test_what_has_no_heavy_tail_is_flagged(sigma: np.ndarray) -> None:
    assert power_law(sigma).warning


def test_a_bent_tail_is_flagged() -> None:
    """With no beginning to choose, values that are spread evenly are plainly no power law."""
    sigma = np.sqrt(np.random.default_rng(2).uniform(1, 4, size=400))
    found = power_law(sigma, shortest_tail=400)
    assert "no power law" in found.warning


def test_the_flag_is_rarely_wrong_on_true_power_laws() -> None:
    wrong = sum(bool(power_law(pareto(3.0, 300, seed), shortest_tail=300).warning) for seed in range(200))
    assert wrong <= 20  # 5 % of 200 are expected with the beginning given


def test_few_values_are_flagged_and_none_is_no_error() -> None:
    assert "only" in power_law(pareto(2.5, 30, 0)).warning
    for sigma in (np.zeros(5), np.ones(100), np.array([]), np.array([3.0, 2.0])):
        found = power_law(sigma)
        assert math.isnan(found.alpha)
        assert found.warning


def test_condition_number() -> None:
    assert condition_number(np.array([6.0, 3.0, 2.0])) == 3
    assert condition_number(np.array([6.0, 0.0])) == math.inf
    assert condition_number(np.zeros(3)) == condition_number(np.array([])) == math.inf


def test_angles_of_a_rotated_plane() -> None:
    """Columns turned by known angles out of the space of the first."""
    angles = np.array([0.0, 1e-9, 0.3, 1.2])
    whole = orthonormal(12, 8, 0)
    first, outside = whole[:, :4], whole[:, 4:]
    second = first * np.cos(angles) + outside * np.sin(angles)
    mixed = second @ orthonormal(4, 4, 1)  # another basis of the same space
    np.testing.assert_allclose(principal_angles(first, mixed), angles, atol=1e-14, rtol=1e-6)
    np.testing.assert_allclose(principal_angles(mixed, first), angles, atol=1e-14, rtol=1e-6)
    assert subspace_overlap(first, mixed) == pytest.approx((np.cos(angles) ** 2).mean())


def test_overlap_of_spaces_inside_across_and_at_random() -> None:
    whole = orthonormal(40, 20, 0)
    assert subspace_overlap(whole[:, :5], whole) == pytest.approx(1)
    assert subspace_overlap(whole[:, :5], whole[:, 5:]) == pytest.approx(0)
    found = [subspace_overlap(orthonormal(40, 4, seed), orthonormal(40, 10, seed + 100)) for seed in range(100)]
    assert np.mean(found) == pytest.approx(10 / 40, abs=0.02)
    projections = whole[:, :5] @ whole[:, :5].T, orthonormal(40, 7, 3) @ orthonormal(40, 7, 3).T
    by_projection = np.trace(projections[0] @ projections[1]) / 5
    assert subspace_overlap(whole[:, :5], orthonormal(40, 7, 3)) == pytest.approx(by_projection)


def test_bases_that_do_not_fit_are_refused() -> None:
    with pytest.raises(NumericalError, match="rows"):
        subspace_overlap(orthonormal(8, 2, 0), orthonormal(9, 2, 0))
    with pytest.raises(NumericalError, match="orthonormal"):
        subspace_overlap(2 * orthonormal(8, 2, 0), orthonormal(8, 2, 0))
    with pytest.raises(NumericalError, match="columns"):
        principal_angles(np.ones((2, 3)), orthonormal(2, 2, 0))
