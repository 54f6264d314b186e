"""LLRC's mask, noise and every term of its loss, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lrc_core.allocate.llrc.losses import (
    log_ratio,
    mean_logit,
    oscillating_alpha,
    total_variation,
    weighted_logit,
)
from lrc_core.allocate.masks.gumbel import draw_noise, gumbel_sigmoid, undecided
from lrc_core.allocate.masks.teacher import hidden_distance


def test_the_mask_is_hard_forward_and_soft_backward() -> None:
    logits = torch.tensor([1.0, -1.0, 0.2, 0.0], requires_grad=True)
    noise = torch.tensor([0.0, 0.0, -0.3, 0.1])
    mask, probabilities = gumbel_sigmoid(logits, noise, 0.5)
    assert mask.tolist() == [1.0, 0.0, 0.0, 1.0]
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    (mask * weights).sum().backward()
    # d sigmoid(z / tau) / dw = s (1 - s) / tau
    soft = [1 / (1 + math.exp(-z / 0.5)) for z in (1.0, -1.0, -0.1, 0.1)]
    expected = [w * s * (1 - s) / 0.5 for w, s in zip(weights.tolist(), soft, strict=True)]
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx(expected)
    assert probabilities.tolist() == pytest.approx(soft)
    assert not probabilities.requires_grad


def test_without_noise_the_mask_is_the_sign_of_the_logit() -> None:
    logits = torch.tensor([3.0, 1e-3, 0.0, -1e-3, -3.0])
    assert gumbel_sigmoid(logits, torch.zeros(5), 0.1)[0].tolist() == [1, 1, 0, 0, 0]


def test_the_mask_is_exactly_zero_or_one() -> None:
    mask, _ = gumbel_sigmoid(torch.linspace(-6, 6, 5001), torch.zeros(5001), 0.4)
    assert set(mask.tolist()) == {0.0, 1.0}


def test_components_that_hardly_learn_are_left_out() -> None:
    """The slope p (1 - p) against a thousandth of its largest value, a quarter."""
    probabilities = torch.tensor([0.0, 1e-5, 2.4e-4, 2.6e-4, 0.5, 0.999, 0.99976, 1.0])
    assert undecided(probabilities).tolist() == [False, False, False, True, True, True, False, False]


@pytest.mark.parametrize(("kind", "kept"), [("gumbel", 1 - math.exp(-1)), ("logistic", 0.5)])
def test_noise_has_its_distribution(kind: str, kept: float) -> None:
    noise = draw_noise(kind, 200_000, torch.Generator().manual_seed(0))
    assert float((noise > 0).float().mean()) == pytest.approx(kept, abs=5e-3)
    assert float(noise.mean()) == pytest.approx(0.5772 if kind == "gumbel" else 0.0, abs=2e-2)
    variance = math.pi**2 / (6 if kind == "gumbel" else 3)
    assert float(noise.var()) == pytest.approx(variance, rel=2e-2)
    assert torch.equal(noise, draw_noise(kind, 200_000, torch.Generator().manual_seed(0)))


def test_no_noise_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert not draw_noise("none", 10, generator).any()
    assert torch.equal(generator.get_state(), before)


def test_the_paper_compresses_by_the_mean_logit_of_every_layer() -> None:
    parts = [torch.tensor([1.0, 3.0]), torch.tensor([4.0, 0.0, -1.0, 1.0])]
    assert float(mean_logit(parts)) == pytest.approx((2 + 1) / 2)


def test_one_price_per_parameter() -> None:
    parts = [torch.tensor([1.0, 3.0]), torch.tensor([4.0, 0.0, -1.0, 1.0])]
    assert float(weighted_logit(parts, [10, 5])) == pytest.approx((10 * 4 + 5 * 4) / (10 * 2 + 5 * 4))


def test_the_log_ratio_is_flat_below_its_floor() -> None:
    kept = torch.tensor(0.9, requires_grad=True)
    found = log_ratio(kept, 0.8)
    assert found.item() == pytest.approx(math.log(0.9 / (0.4 * 0.8)))
    found.backward()
    assert float(kept.grad or 0) == pytest.approx(1 / 0.9)
    low = torch.tensor(0.1, requires_grad=True)
    found = log_ratio(low, 0.8)
    found.backward()
    assert (found.item(), float(low.grad or 0)) == (0.0, 0.0)


def test_total_variation_counts_the_steps_of_a_mask() -> None:
    masks = [torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0, 1.0])]
    assert float(total_variation(masks)) == pytest.approx(2 / 3 + 1 + 0)


def test_hidden_distance_is_relative_to_the_teacher() -> None:
    teacher = [torch.tensor([3.0, 4.0]), torch.tensor([1.0, 1.0])]
    student = [torch.tensor([3.0, 5.0]), torch.tensor([1.0, 1.0])]
    assert float(hidden_distance(student, teacher)) == pytest.approx((1 / 25 + 0) / 2)


def test_alpha_swings_between_its_bounds() -> None:
    values = [oscillating_alpha(step, 0.1, 1.0, 200) for step in range(401)]
    assert (values[0], values[200], values[400]) == pytest.approx((1.0, 1.0, 1.0))
    assert values[100] == pytest.approx(0.1)
    assert values[50] == pytest.approx(0.55)
    assert 0.1 - 1e-9 <= min(values) <= max(values) <= 1.0 + 1e-9
    assert oscillating_alpha(37, 3.0, 3.0, 200) == 3.0
