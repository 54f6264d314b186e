"""A forecast is only as good as its trials on measured plans, and says so."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lrc_core.quality.forecast import (
    FEWEST_PLANS,
    Forecast,
    MeasuredPlan,
    Prediction,
    TrainingCurve,
    calibrated,
    forecast,
    passed,
)

STEPS = 200


def curve(
    scale: float = 8.0, power: float = 2.0, target: float = 0.3, noise: float = 0.0, seed: int = 0
) -> TrainingCurve:
    """Training that comes to its target in equal steps and loses scale * rate^power."""
    steps = np.arange(1, STEPS + 1)
    rates = target * steps / STEPS
    losses = scale * rates**power * np.exp(noise * np.random.default_rng(seed).standard_normal(STEPS))
    return TrainingCurve(steps, rates, losses)


def plans(of: TrainingCurve, factor: float = 1.5, miss: tuple[float, ...] = (0.0, 0.0, 0.0)) -> list[MeasuredPlan]:
    """Plans at a third, two thirds and the whole way, measured at ``factor`` times the loss, missed by ``miss``."""
    found = []
    for index, off in enumerate(miss):
        step = STEPS * (index + 1) // len(miss)
        increase = factor * of.near(step) * math.exp(off)
        found.append(MeasuredPlan("allocate-a", of, float(of.removed[step - 1]), step, increase))
    return found


@pytest.mark.parametrize("share", [0.4, 0.7, 1.0])
def test_what_follows_a_power_is_foretold(share: float) -> None:
    other = curve(scale=10.0)
    known = other.until(share * 0.3, STEPS)
    found = forecast(known, 0.3, plans(curve(noise=0.05, seed=1)))
    assert found is not None and found.validated
    assert found.increase == pytest.approx(1.5 * other.near(STEPS), rel=0.15)
    assert found.runs == ("allocate-a",) and found.plans == 3


def test_nothing_is_said_of_more_than_any_measured_plan_removes() -> None:
    measured, further = plans(curve()), curve(target=0.4)
    assert forecast(further.until(0.2, STEPS), 0.3, measured) is not None
    assert forecast(further.until(0.2, STEPS), 0.4, measured) is None
    assert passed(further, STEPS * 3 // 4, measured) is not None
    assert passed(further, STEPS, measured) is None


def test_the_error_grows_with_what_the_trials_miss() -> None:
    now = curve()
    exact, off, wild = (
        forecast(now, 0.3, plans(curve(), miss=miss)) for miss in ((0, 0, 0), (0.2, -0.2, 0.1), (1.0, -1.0, 0.8))
    )
    assert exact is not None and off is not None and wild is not None
    assert exact.error == pytest.approx(0, abs=1e-9)
    assert exact.error < off.error < wild.error
    assert off.validated and not wild.validated


def test_each_trial_leaves_its_own_plan_out() -> None:
    """Two plans agree and a third is off by 1: its own trial misses by 1, the two others by a half each."""
    found = forecast(curve(), 0.3, plans(curve(), miss=(1.0, 0.0, 0.0)))
    assert found is not None
    assert found.error == pytest.approx(math.sqrt((1.0 + 0.25 + 0.25) / 2))


def test_early_trials_do_not_see_what_came_later() -> None:
    """Training that bends half way: from before the bend nothing can foretell it, and the trials show that."""
    straight = curve()
    bent = TrainingCurve(straight.steps, straight.removed, np.where(straight.removed > 0.1, 5.0, 1.0) * straight.losses)
    early = forecast(straight.until(0.15, STEPS), 0.3, plans(bent))
    assert early is not None and not early.validated
    late = forecast(straight, 0.3, plans(bent))
    assert late is not None and late.error < early.error


def test_too_little_gives_none() -> None:
    empty = TrainingCurve(np.array([]), np.array([]), np.array([]))
    measured = plans(curve())
    assert forecast(empty, 0.3, measured) is None
    assert forecast(curve(), 0.3, measured[: FEWEST_PLANS - 1]) is None
    assert forecast(curve().until(0.012, STEPS), 0.3, measured) is None  # hardly anything passed
    worthless = [MeasuredPlan("a", curve(), 0.1, 60, 0.0)] * 5  # no measurable loss
    assert forecast(curve(), 0.3, worthless) is None


def test_perplexities_multiply_the_dense_models() -> None:
    middle, low, high = Forecast(0.5, 0.2, 3, ("a",)).perplexity(20.0)
    assert middle == pytest.approx(20 * math.exp(0.5))
    assert low == pytest.approx(20 * math.exp(0.5 * math.exp(-0.2)))
    assert low < middle < high


def test_of_a_plan_that_was_passed_only_the_factor_is_unknown() -> None:
    """The loss at the step, not what a continuation would say, times the factor of the measured plans."""
    bent = curve()
    bent.losses[STEPS // 2 :] *= 3
    found = passed(bent, STEPS * 3 // 4, plans(curve()))
    assert found is not None and found.validated
    assert found.increase == pytest.approx(1.5 * bent.near(STEPS * 3 // 4))
    assert passed(bent, STEPS, plans(curve())[: FEWEST_PLANS - 1]) is None


LAW = [Prediction(f"allocate-{number}", loss, 2.5 * loss) for number, loss in enumerate((0.02, 0.05, 0.1, 0.2, 0.4))]


def test_a_prediction_that_is_always_off_by_one_factor_is_set_right_exactly() -> None:
    found = calibrated(0.15, LAW)
    assert found is not None and found.increase == pytest.approx(2.5 * 0.15)
    assert found.error == pytest.approx(0, abs=1e-9) and found.inside == found.plans == len(LAW)


def test_the_unit_of_a_prediction_does_not_matter() -> None:
    noisy = [replace(one, increase=one.increase * math.exp(0.1 * (-1) ** number)) for number, one in enumerate(LAW)]
    here, there = (
        calibrated(0.15, noisy),
        calibrated(15.0, [replace(one, predicted=100 * one.predicted) for one in noisy]),
    )
    assert here is not None and there is not None
    assert (here.increase, here.error, here.inside) == pytest.approx((there.increase, there.error, there.inside))


def test_the_record_is_that_of_ranges_made_without_the_plan() -> None:
    """Counted anew: for each plan a forecast from the others alone, and whether what was measured lies within it."""
    noise = np.random.default_rng(3).normal(0, 0.2, len(LAW))
    plans = [replace(one, increase=one.increase * math.exp(off)) for one, off in zip(LAW, noise, strict=True)]
    inside = 0
    for index, plan in enumerate(plans):
        others = plans[:index] + plans[index + 1 :]
        made = calibrated(0.1, others)
        assert made is not None
        middle = math.log(plan.predicted * made.increase / 0.1)
        inside += abs(math.log(plan.increase) - middle) <= made.error
    found = calibrated(0.1, plans)
    assert found is not None and found.inside == inside
    assert found.record.startswith(f"{inside} of {len(plans)} ")


def test_a_range_holds_about_as_often_as_its_record_says() -> None:
    """Over many draws both are near the share of a normal error within one standard deviation."""
    random, held, counted, draws = np.random.default_rng(0), 0, 0.0, 400
    for _ in range(draws):
        plans = [replace(one, increase=one.increase * math.exp(random.normal(0, 0.1))) for one in LAW]
        found = calibrated(0.1, plans)
        assert found is not None
        held += abs(math.log(2.5 * 0.1) + random.normal(0, 0.1) - math.log(found.increase)) <= found.error
        counted += found.inside / found.plans
    assert held / draws == pytest.approx(counted / draws, abs=0.06)
    assert 0.55 < held / draws < 0.85


@pytest.mark.parametrize("now", [0.009, 0.43, 0.81])
def test_nothing_is_said_far_from_what_was_measured_or_of_too_few(now: float) -> None:
    assert calibrated(now, LAW) is None
    assert calibrated(0.1, LAW[: FEWEST_PLANS - 1]) is None
