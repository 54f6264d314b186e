"""LLRC's loss on one row of singular values: its gradients are those of the real losses, and what it comes to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lrc_core.allocate.llrc import row
from lrc_core.allocate.llrc.losses import mean_logit, total_variation
from lrc_core.allocate.masks.gumbel import gumbel_sigmoid

Floats = NDArray[np.float64]


@pytest.fixture
def sigma() -> Floats:
    return row.row_of(1 / np.sqrt(np.arange(1.0, 200.0)))


def last(sigma: Floats, **changes: Any) -> row.MaskStep:
    return row.train(sigma, row.Setting(**changes))[-1]


@pytest.mark.parametrize("terms", [*((term,) for term in row.TERMS), row.TERMS])
def test_the_forces_are_the_gradients_of_the_losses_that_layers_are_trained_with(
    sigma: Floats, terms: tuple[str, ...]
) -> None:
    """Of the very functions, by autograd. What a mask loses of a whitened row is the energy of what it drops."""
    setting = row.Setting(terms=terms, target=4)
    generator = np.random.default_rng(1)
    logits, noise = generator.normal(0, 1, len(sigma)), generator.normal(0, 1, len(sigma))
    soft = row.sigmoid((logits + noise) / setting.temperature)
    values = torch.tensor(logits, requires_grad=True)
    mask, _ = gumbel_sigmoid(values, torch.tensor(noise), setting.temperature)
    losses = {
        "compression": row.ALPHA * mean_logit([values]),
        "distillation": row.BETA * ((1 - mask) * torch.tensor(sigma) ** 2).sum(),
        "tv": row.GAMMA * total_variation([mask]),
    }
    for name, force in row.forces(sigma, logits, soft, setting, goal=4).items():
        (gradient,) = torch.autograd.grad(losses[name], values, retain_graph=True)
        np.testing.assert_allclose(force, -gradient.numpy() if name in terms else 0 * force, atol=1e-12)
        assert gradient.any()


def test_training_meets_its_target_and_keeps_the_largest(sigma: Floats) -> None:
    for target in (8, 16, 24):
        end = last(sigma, target=target)
        assert abs(end.kept.sum() - target) <= 2
        assert row.energy(sigma, end.kept) > 0.97 * row.best_energy(sigma, int(end.kept.sum()))


def test_without_distillation_equal_logits_are_decided_by_luck(sigma: Floats) -> None:
    end = last(sigma, terms=("compression", "tv"), ramp=False)
    assert row.energy(sigma, end.kept) < 0.8 * row.best_energy(sigma, int(end.kept.sum()))
    assert row.energy(sigma, last(sigma, ramp=False).kept) > 0.9


def test_without_compression_nothing_goes(sigma: Floats) -> None:
    assert last(sigma, terms=("distillation",)).kept.all()


def test_total_variation_pulls_towards_the_neighbours() -> None:
    sigma, setting = np.ones(3) / np.sqrt(3), row.Setting(terms=("tv",))
    soft = np.array([0.4, 0.6, 0.4])  # only the middle one is kept
    pull = row.forces(sigma, np.zeros(3), soft, setting, goal=3)["tv"]
    assert pull[1] < 0 < pull[0] and pull[2] > 0


def test_the_same_seed_is_the_same_film(sigma: Floats) -> None:
    one, two = row.train(sigma, row.Setting()), row.train(sigma, row.Setting())
    np.testing.assert_array_equal(one[-1].logits, two[-1].logits)
    assert one[0].noise.std() > 0
    assert not row.train(sigma, row.Setting(noise="none"))[0].noise.any()


def test_a_row_is_short_and_its_energies_sum_to_one(sigma: Floats) -> None:
    assert len(sigma) == row.COMPONENTS
    assert (sigma**2).sum() == pytest.approx(1)
    assert len(row.row_of(np.ones(5))) == 5
    assert not row.row_of(np.zeros(50)).any()
