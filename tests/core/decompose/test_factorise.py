"""Transforms, factors and figures of spectra; what every decomposition has in common is in the contract tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lrc_core.decompose import AsvdSettings, KfacSettings, NoSettings, WhitenedSettings
from lrc_core.decompose.factorise import (
    InputStatistics,
    Transform,
    activation_scaled,
    factorise,
    in_parallel,
    plain,
    singular_values,
    two_sided,
    whitened,
)
from lrc_core.decompose.measures import cumulative_energy, effective_rank, energy_kept, energy_rank, stable_rank
from lrc_core.errors import NumericalError


def gaussian(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def statistics(features: int, tokens: int = 400, seed: int = 1) -> InputStatistics:
    inputs = gaussian(tokens, features, seed=seed) @ gaussian(features, features, seed=seed + 1)
    return InputStatistics(inputs.T @ inputs / tokens, inputs.abs().mean(0), tokens)


TRANSFORMS = {
    "identity": Transform(),
    "diagonal": activation_scaled(statistics(24), AsvdSettings()),
    "triangular": whitened(statistics(24), WhitenedSettings()),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_is_undone(name: str) -> None:
    transform, weight = TRANSFORMS[name], gaussian(5, 24).double()
    torch.testing.assert_close(transform.undo(transform.apply(weight)), weight)
    torch.testing.assert_close(transform.times(weight.T), _dense(transform) @ weight.T)
    torch.testing.assert_close(transform.apply(weight), weight @ _dense(transform))


def _dense(transform: Transform) -> torch.Tensor:
    if transform.matrix is None:
        return torch.eye(24, dtype=torch.float64)
    return transform.matrix.diag() if transform.matrix.ndim == 1 else transform.matrix


def test_asvd_scales_by_a_power_of_the_mean_absolute_input() -> None:
    found = statistics(6)
    transform = activation_scaled(found, AsvdSettings(alpha=0.5))
    torch.testing.assert_close(transform.matrix, (found.abs_mean.double() + 1e-6).sqrt())
    flat = activation_scaled(found, AsvdSettings(alpha=0.0))
    torch.testing.assert_close(singular_values(gaussian(4, 6), flat), singular_values(gaussian(4, 6), Transform()))
    assert plain(None, NoSettings()) == Transform()


def test_whitening_is_a_root_of_the_second_moment() -> None:
    found = statistics(16)
    transform = whitened(found, WhitenedSettings())
    assert transform.damping == 0
    assert transform.matrix is not None
    torch.testing.assert_close(transform.matrix @ transform.matrix.T, found.second_moment.double())


def test_a_moment_of_fewer_tokens_than_features_is_damped_as_little_as_works() -> None:
    found = statistics(16, tokens=5)
    transform = whitened(found, WhitenedSettings(damping=1e-6))
    assert 0 < transform.damping < 1e-3
    scale = float(found.second_moment.diagonal().mean())
    assert transform.matrix is not None
    damped = found.second_moment.double() + transform.damping * scale * torch.eye(16, dtype=torch.float64)
    torch.testing.assert_close(transform.matrix @ transform.matrix.T, damped)
    weight = gaussian(40, 16)
    factors = factorise(weight, transform)
    torch.testing.assert_close(factors.left @ factors.right, weight, rtol=1e-3, atol=1e-3)


def test_a_setting_of_no_damping_still_ends() -> None:
    assert whitened(statistics(16, tokens=5), WhitenedSettings(damping=0.0)).damping > 0


@pytest.mark.parametrize("gradient", [None, torch.zeros(6, 6), torch.eye(6)])
def test_what_is_not_used_costs_nothing_to_cut_and_has_factors_all_the_same(gradient: torch.Tensor | None) -> None:
    """A layer whose inputs are zero, one whose outputs nobody feels: added blocks start like that."""
    zero = gradient is None or bool(gradient.any())
    moment = torch.zeros(4, 4) if zero else torch.eye(4)
    found = InputStatistics(moment, torch.zeros(4), 10, gradient)
    transform = whitened(found, WhitenedSettings()) if gradient is None else two_sided(found, KfacSettings())
    assert transform.unused
    weight = gaussian(6, 4)
    factors = factorise(weight, transform)
    torch.testing.assert_close(factors.left @ factors.right, weight, rtol=1e-4, atol=1e-4)
    assert float(factors.sigma.max()) < 1e-6


def test_moments_that_are_no_numbers_are_refused() -> None:
    broken = InputStatistics(torch.full((4, 4), math.nan), torch.zeros(4), 10)
    with pytest.raises(NumericalError, match="not finite"):
        whitened(broken, WhitenedSettings())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_of_any_precision_give_float32_factors(dtype: torch.dtype) -> None:
    weight = gaussian(12, 24).to(dtype)
    factors = factorise(weight, TRANSFORMS["triangular"])
    assert {factors.left.dtype, factors.right.dtype, factors.sigma.dtype} == {torch.float32}
    torch.testing.assert_close(factors.left @ factors.right, weight.float(), rtol=1e-4, atol=1e-4)


def test_a_weight_of_low_rank_is_found_so() -> None:
    weight = gaussian(20, 3) @ gaussian(3, 24, seed=5)
    factors = factorise(weight, TRANSFORMS["triangular"])
    torch.testing.assert_close(factors.left[:, :3] @ factors.right[:3], weight, rtol=1e-4, atol=1e-4)
    assert float(factors.sigma[3]) < 1e-4 * float(factors.sigma[0])


def test_a_weight_of_zeros_is_no_trouble() -> None:
    factors = factorise(torch.zeros(8, 24), TRANSFORMS["triangular"])
    assert not (factors.left @ factors.right).any()
    assert not factors.sigma.any()


def test_layers_in_parallel_keep_their_order_and_the_thread_count() -> None:
    before = torch.get_num_threads()
    assert in_parallel(lambda x: x * x, range(50)) == [x * x for x in range(50)]
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda x: 1 // x, [1, 0])
    assert torch.get_num_threads() == before


def test_measures_of_a_flat_and_of_a_single_spectrum() -> None:
    flat, single = np.full(8, 2.0), np.array([3.0, 0.0, 0.0, 0.0])
    assert effective_rank(flat) == pytest.approx(8)
    assert stable_rank(flat) == pytest.approx(8)
    assert effective_rank(single) == pytest.approx(1)
    assert stable_rank(single) == pytest.approx(1)
    assert [energy_kept(flat, rank) for rank in (0, 2, 8, 99)] == pytest.approx([0, 0.25, 1, 1])
    assert [energy_rank(flat, share) for share in (0.25, 0.2501, 1.0)] == [2, 3, 8]
    assert energy_rank(single, 1.0) == 1


def test_energy_rank_is_the_smallest_that_holds_the_share() -> None:
    sigma = np.sort(np.random.default_rng(0).exponential(size=30))[::-1]
    for share in (0.5, 0.9, 0.95, 0.99):
        rank = energy_rank(sigma, share)
        assert energy_kept(sigma, rank) >= share > energy_kept(sigma, rank - 1)
    energy = cumulative_energy(sigma)
    assert energy[-1] == pytest.approx(1)
    assert (np.diff(energy) >= 0).all()


def test_measures_of_a_dead_layer() -> None:
    zeros = np.zeros(5)
    assert (effective_rank(zeros), stable_rank(zeros)) == (0.0, 0.0)
    assert cumulative_energy(zeros).tolist() == [1.0] * 5
    assert energy_rank(zeros, 0.9) == 1
