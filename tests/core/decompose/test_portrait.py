"""Pictures and errors of truncated layers: identities, and that no weight can be read off."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lrc_core.decompose import NoSettings, WhitenedSettings
from lrc_core.decompose.factorise import InputStatistics, Transform, factorise, plain, whitened
from lrc_core.decompose.portrait import portrait, rank_steps, truncation_errors


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(24, 40, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def moment() -> torch.Tensor:
    """Of inputs that lie mostly in a few directions."""
    rows = torch.randn(400, 40, generator=torch.Generator().manual_seed(1)) * torch.linspace(4, 0.1, 40)
    return rows.T @ rows / len(rows)


def test_steps_go_from_one_to_full_rank_without_repeats() -> None:
    for full in (1, 2, 7, 576):
        steps = rank_steps(full, 18)
        assert steps[0] == 1 and steps[-1] == full
        assert list(steps) == sorted(set(steps))
        assert len(steps) <= 18


def test_energies_of_the_pictures_are_those_of_the_matrices(weight: torch.Tensor) -> None:
    factors = factorise(weight, Transform())
    drawn = portrait(weight, factors, [3, 24], cells=8)
    for picture, matrix in (
        (drawn.weight, weight),
        (drawn.kept[0], factors.left[:, :3] @ factors.right[:3]),
        (drawn.missing[0], weight - factors.left[:, :3] @ factors.right[:3]),
    ):
        found = np.square(picture / 255 * drawn.brightest).mean()
        assert found == pytest.approx(float(matrix.square().mean()), rel=0.05)
    assert drawn.missing[1].max() == 0
    np.testing.assert_array_equal(drawn.kept[1], drawn.weight)


def test_a_picture_is_no_larger_than_the_matrix_and_mixes_its_entries(weight: torch.Tensor) -> None:
    factors = factorise(weight, Transform())
    assert portrait(weight, factors, [1], cells=64).weight.shape == (24, 40)
    flipped = portrait(-weight, factorise(-weight, Transform()), [1], cells=8)
    np.testing.assert_array_equal(flipped.weight, portrait(weight, factors, [1], cells=8).weight)


def test_errors_are_the_discarded_spectrum_and_whitening_is_best_at_the_output(
    weight: torch.Tensor, moment: torch.Tensor
) -> None:
    inputs = InputStatistics(moment, moment.diagonal().sqrt(), 400)
    ranks = [2, 6, 12, 24]
    found = {}
    for name, transform in (("svd", plain(None, NoSettings())), ("whitened", whitened(inputs, WhitenedSettings()))):
        factors = factorise(weight, transform)
        found[name] = truncation_errors(weight, factors, moment, ranks)
        energy = factors.sigma.square()
        expected = [float((energy[rank:].sum() / energy.sum()).sqrt()) for rank in ranks]
        own = found[name].weight if name == "svd" else found[name].output
        assert own == pytest.approx(expected, abs=2e-3)
    for index, _ in enumerate(ranks[:-1]):
        assert found["whitened"].output[index] < found["svd"].output[index]
        assert found["svd"].weight[index] < found["whitened"].weight[index]


def test_a_zero_matrix_has_no_error() -> None:
    zero = torch.zeros(6, 5)
    factors = factorise(zero, Transform())
    assert truncation_errors(zero, factors, torch.eye(5), [1, 5]).output == (0.0, 0.0)
    assert portrait(zero, factors, [1], cells=4).weight.max() == 0
