"""The closed-form update of one layer: least squares solved another way, and what it never does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lrc_core.decompose.update import (
    PairedMoments,
    component_sizes,
    damped,
    output_error,
    update_both,
    update_left,
)
from lrc_core.errors import NumericalError
from lrc_core.updates import UpdateSettings
from tests.factories.tiny_methods import random_windows

WINDOWS = random_windows(6, 40)
EXACT = UpdateSettings(damping=0.0)


def inputs_of_two_models(n: int, tokens: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """[tokens, n] inputs in the dense model, badly scaled, and what became of them behind truncated layers."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(tokens, n, generator=generator, dtype=torch.float64) * torch.logspace(1.5, -1.5, n).double()
    mixed = 0.3 * torch.randn(n, n, generator=generator, dtype=torch.float64) / n**0.5
    return dense, dense + dense @ mixed + 0.01 * torch.randn(tokens, n, generator=generator, dtype=torch.float64)


def moments_of(dense: Tensor, small: Tensor) -> PairedMoments:
    return PairedMoments(small.T @ small / len(small), dense.T @ small / len(small), len(small))


def a_weight(m: int, n: int, seed: int = 1) -> Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def error_of(weight: Tensor, left: Tensor, right: Tensor, dense: Tensor, small: Tensor) -> float:
    return float((dense @ weight.T - small @ right.T.double() @ left.T.double()).square().sum(1).mean())


@pytest.mark.parametrize(("m", "n"), [(24, 16), (16, 24), (20, 20)])
def test_left_is_the_least_squares_solution(m: int, n: int) -> None:
    dense, small = inputs_of_two_models(n)
    weight, right = a_weight(m, n), a_weight(6, n, seed=2) * torch.logspace(0, -6, 6).double()[:, None]
    left = update_left(weight, right, damped(moments_of(dense, small), 0.0))
    expected = torch.linalg.lstsq(small @ right.T, dense @ weight.T).solution.T
    torch.testing.assert_close(left, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize(("m", "n"), [(24, 16), (16, 24), (20, 20)])
@pytest.mark.parametrize("two_sided", [False, True])
def test_both_is_the_best_pair_of_its_rank(m: int, n: int, two_sided: bool) -> None:
    """Against alternating least squares from many starts, and the pseudo-inverse's regression truncated by hand."""
    dense, small = inputs_of_two_models(n)
    weight = a_weight(m, n)
    root = (
        torch.linalg.cholesky(a_weight(m, m, seed=3) @ a_weight(m, m, seed=3).T + torch.eye(m)) if two_sided else None
    )
    metric = torch.eye(m, dtype=torch.float64) if root is None else root

    def weighted(left: Tensor, right: Tensor) -> float:
        return float(((dense @ weight.T - small @ right.T @ left.T) @ metric).square().sum())

    left, right = update_both(weight, 5, damped(moments_of(dense, small), 0.0), root)
    fitted = small @ torch.linalg.lstsq(small, dense @ weight.T).solution @ metric  # [tokens, m]
    u, s, v = torch.linalg.svd(fitted, full_matrices=False)
    best = float((dense @ weight.T @ metric - (u[:, :5] * s[:5]) @ v[:5]).square().sum())
    assert weighted(left, right) == pytest.approx(best, rel=1e-8)
    generator = torch.Generator().manual_seed(7)
    for _ in range(3):
        other = torch.randn(5, n, generator=generator, dtype=torch.float64)
        for _ in range(20):
            columns = update_left(weight, other, damped(moments_of(dense, small), 0.0))
            other = (metric.T @ columns).pinverse() @ metric.T @ weight @ dense.T @ small @ (small.T @ small).inverse()
        assert weighted(left, right) <= weighted(columns, other) * (1 + 1e-9)


@pytest.mark.parametrize("damping", [0.0, 1e-6, 1e-2])
def test_equal_inputs_give_the_whitened_factors_back(damping: float) -> None:
    """Where nothing was compressed before, truncation in whitened space was already the best that can be done."""
    dense, _ = inputs_of_two_models(16)
    weight, moments = a_weight(24, 16), damped(moments_of(dense, dense), damping)
    left, right = update_both(weight, 16, moments)
    torch.testing.assert_close(left @ right, weight, rtol=1e-7, atol=1e-7)
    left, right = update_both(weight, 7, moments)
    torch.testing.assert_close(update_left(weight, right, moments), left, rtol=1e-6, atol=1e-6)
    full = a_weight(16, 16, seed=5)
    torch.testing.assert_close(update_left(weight, full, moments) @ full, weight, rtol=1e-6, atol=1e-6)


def test_error_by_moments_is_the_error_by_tokens() -> None:
    dense, small = inputs_of_two_models(16)
    weight, left, right = a_weight(24, 16), a_weight(24, 5, 3), a_weight(5, 16, 4)
    energy = float((dense @ weight.T).square().sum(1).mean())
    found = output_error(weight, left, right, moments_of(dense, small), energy)
    assert found == pytest.approx(error_of(weight, left, right, dense, small), rel=1e-9)


def test_fewer_tokens_than_inputs_are_damped_until_they_can_be_solved() -> None:
    dense, small = inputs_of_two_models(16, tokens=9)
    safe = damped(moments_of(dense, small), 0.0)
    assert safe.damping > 0
    left, right = update_both(a_weight(24, 16), 5, safe)
    assert torch.isfinite(left).all()
    assert torch.isfinite(right).all()
    assert damped(moments_of(dense, small), 0.5).damping == 0.5


def test_directions_that_the_text_does_not_show_stay_those_of_the_dense_weight() -> None:
    dense, _ = inputs_of_two_models(16)
    dense[:, 9] = 0
    weight = a_weight(24, 16)
    left, right = update_both(weight, 16, damped(moments_of(dense, dense), 1e-3))
    torch.testing.assert_close((left @ right)[:, 9], weight[:, 9], rtol=1e-6, atol=1e-6)


def test_dependent_and_empty_components_do_no_harm() -> None:
    dense, small = inputs_of_two_models(16)
    weight, right = a_weight(24, 16), a_weight(6, 16, seed=2)
    right[4], right[5] = right[0], 0
    moments = moments_of(dense, small)
    left = update_left(weight, right, damped(moments, 0.0))
    alone = update_left(weight, right[:4], damped(moments, 0.0))
    torch.testing.assert_close(left @ right, alone @ right[:4], rtol=1e-6, atol=1e-6)
    assert float(left.abs().max()) < 10 * float(alone.abs().max())
    more = update_left(weight, a_weight(20, 16, seed=6), damped(moments, 0.0))  # more components than inputs
    assert torch.isfinite(more).all()


def test_moments_that_say_nothing_are_refused() -> None:
    zero = torch.zeros(4, 4)
    with pytest.raises(NumericalError, match="all zero"):
        damped(PairedMoments(zero, zero, 3), 0.0)
    with pytest.raises(NumericalError, match="not finite"):
        damped(PairedMoments(torch.eye(4), zero + float("nan"), 3), 0.0)


def test_sizes_are_singular_values_of_the_product() -> None:
    left, right = a_weight(24, 5), a_weight(5, 16)
    expected = torch.linalg.svdvals(left @ right)[:5].float()
    torch.testing.assert_close(component_sizes(left, right), expected, rtol=1e-5, atol=1e-5)
