"""What perplexity a run that is still learning will reach, from its training loss; only as good as it has been before.

The loss of training, a KL divergence, is not the loss of a report: masks are noisy, the text is another. Measured plans
of runs of the same kind give the factor between the two. And the loss at the target is not known before training gets
there: it is continued along a power of the share removed. Both steps are tried on the measured plans themselves, each
left out in turn and its training hidden beyond the same share of the way; how far they miss is the forecast's error.
There is no forecast where fewer than three plans were measured or where the trials miss by too much.

What a closed form predicts from spectra is calibrated in the same way, by :func:`calibrated`. The record of a forecast,
how many of the measured plans fell inside the range, is counted on ranges that are made without the plan in question:
its value enters neither the factor nor the width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_PLANS = 3
LARGEST_ERROR = 0.4
"""In log units of the increase: with 0.4 the trials miss by a factor of 1.5, and nothing useful would be said."""
_BELOW = 2.0
"""How far below the smallest measured plan something is said."""
MARGIN = 0.05
"""By what share a forecast may exceed the largest measured plan: losses grow faster than what is predicted of them, so
that a factor from smaller ones would soon say too little."""
_ROUNDING = 1e-9
_NEAR = 10  # steps on either side of a plan over which its noisy loss is averaged
_FEWEST_STEPS = 8
_SMALLEST_SHARE = 0.01
_SMALLEST_INCREASE = 0.01  # of log-perplexity: less is within the error of any measurement


@dataclass(frozen=True)
class TrainingCurve:
    """Training as far as it went.

    Attributes:
        steps: [n] ascending.
        removed: [n] share of parameters removed.
        losses: [n] KL divergence in nats per token.
    """

    steps: np.ndarray
    removed: np.ndarray
    losses: np.ndarray

    def near(self, step: int) -> float:
        """Mean loss around a step."""
        close = np.abs(self.steps - step) <= _NEAR
        return float(self.losses[close].mean()) if close.any() else math.nan

    def until(self, removed: float, step: int) -> TrainingCurve:
        """What was known when training had removed a share on its way to the plan of a step."""
        known = (self.steps <= step) & (self.removed <= removed)
        return TrainingCurve(self.steps[known], self.removed[known], self.losses[known])

    def continued(self, removed: float) -> float:
        """The loss at a size not reached yet: c * removed^p through the upper half of those passed; NaN if too few."""
        passed = float(self.removed.max(initial=0.0))
        used = (self.removed > max(_SMALLEST_SHARE, passed / 2)) & (self.losses > 0)
        if used.sum() < _FEWEST_STEPS:
            return math.nan
        power, offset = np.polyfit(np.log(self.removed[used]), np.log(self.losses[used]), 1)
        return float(np.exp(offset + power * math.log(removed)))


@dataclass(frozen=True)
class MeasuredPlan:
    """A plan that a finished run passed, and what it was measured to cost.

    Attributes:
        run: its id.
        curve: training of that run.
        removed: share that the plan removes.
        step: at which it was recorded.
        increase: of the log-perplexity over the dense model's.
    """

    run: str
    curve: TrainingCurve
    removed: float
    step: int
    increase: float


@dataclass(frozen=True)
class Forecast:
    """An expected increase of log-perplexity.

    Attributes:
        increase: in nats per token.
        error: spread of the trials' misses, in log units of the increase.
        plans: measured plans that it rests on.
        runs: whose they are.
        inside: how many of the plans fell inside the range that the others give for them.
    """

    increase: float
    error: float
    plans: int
    runs: tuple[str, ...]
    inside: int = 0

    @property
    def record(self) -> str:
        """``6 of 7 measured plans fell inside their range``."""
        return f"{self.inside} of {self.plans} measured plans fell inside their range"

    @property
    def validated(self) -> bool:
        """Whether the trials came close enough for it to be shown."""
        return self.plans >= FEWEST_PLANS and self.error <= LARGEST_ERROR

    def perplexity(self, dense: float) -> tuple[float, float, float]:
        """Expected, lowest and highest perplexity, given the dense model's."""
        low, high = self.increase * math.exp(-self.error), self.increase * math.exp(self.error)
        return dense * math.exp(self.increase), dense * math.exp(low), dense * math.exp(high)


def forecast(curve: TrainingCurve, removed: float, measured: Sequence[MeasuredPlan]) -> Forecast | None:
    """What a run will have cost when it ends at its target.

    Args:
        curve: its training so far.
        removed: share that it is to remove.
        measured: plans of comparable runs, not of this one.

    Returns:
        A forecast, whether its trials came close or not; None where there are too few plans or steps to try it, or
        where no measured plan removes as much.
    """
    if not len(curve.removed):
        return None
    share = min(1.0, float(curve.removed.max()) / removed)
    if share >= 1 - 1e-3:
        return passed(curve, int(curve.steps[-1]), measured)
    return _scaled(
        curve.continued(removed),
        removed,
        measured,
        lambda plan: plan.curve.until(share * plan.removed, plan.step).continued(plan.removed),
    )


def passed(curve: TrainingCurve, step: int, measured: Sequence[MeasuredPlan]) -> Forecast | None:
    """What the plan costs that a run recorded at a step: its loss there is known, only the factor is not.

    Args:
        curve: training of that run.
        step: at which the plan was recorded.
        measured: plans of this run and of comparable ones, not the plan itself.
    """
    removed = float(curve.removed[curve.steps <= step].max(initial=0.0))
    return _scaled(curve.near(step), removed, measured, lambda plan: plan.curve.near(plan.step))


def _scaled(
    now: float, removed: float, measured: Sequence[MeasuredPlan], known_of: Callable[[MeasuredPlan], float]
) -> Forecast | None:
    """A loss, scaled by the factor of measured plans, each of which is tried from what ``known_of`` says of it."""
    plans = [plan for plan in measured if plan.increase > _SMALLEST_INCREASE and plan.curve.near(plan.step) > 0]
    if len(plans) < FEWEST_PLANS or removed > (1 + MARGIN) * max(plan.removed for plan in plans):
        return None
    bases = [plan.curve.near(plan.step) for plan in plans]
    runs = tuple(dict.fromkeys(plan.run for plan in plans))
    return _made(now, np.array(bases), np.array([known_of(plan) for plan in plans]), plans, runs)


@dataclass(frozen=True)
class Prediction:
    """A plan with what was predicted of it and what was measured.

    Attributes:
        run: whose plan it is.
        predicted: loss, in whatever unit, above 0.
        increase: of the log-perplexity over the dense model's, measured.
    """

    run: str
    predicted: float
    increase: float


def calibrated(now: float, measured: Sequence[Prediction]) -> Forecast | None:
    """What a predicted loss comes to, from plans of which the same was predicted and what it came to was measured.

    The factor between the two is the geometric mean over the plans. Nothing is said of a prediction beyond the largest
    (by more than MARGIN) or of less than half the smallest of them: there is nothing to calibrate on.
    """
    used = [one for one in measured if one.increase > _SMALLEST_INCREASE and one.predicted > 0]
    if len(used) < FEWEST_PLANS:
        return None
    known = np.array([one.predicted for one in used])
    if not known.min() / _BELOW <= now <= known.max() * (1 + MARGIN):
        return None
    return _made(now, known, known, used, tuple(dict.fromkeys(one.run for one in used)))


def _made(
    now: float,
    bases: np.ndarray,
    known: np.ndarray,
    plans: Sequence[MeasuredPlan] | Sequence[Prediction],
    runs: tuple[str, ...],
) -> Forecast | None:
    """A loss scaled by the plans' factors.

    Args:
        bases: [plans] losses that give the factors.
        known: [plans] losses that a trial of each knows.
    """
    increases = np.array([plan.increase for plan in plans])
    if not (math.isfinite(now) and now > 0 and np.all(known > 0)):  # NaN is not above 0
        return None
    factors, wanted = np.log(increases / bases), np.log(increases / known)
    misses = _misses(factors, wanted)
    inside = 0
    for index, miss in enumerate(misses):
        others = np.delete(factors, index), np.delete(wanted, index)
        inside += bool(abs(miss) <= _spread(_misses(*others)) + _ROUNDING)
    return Forecast(now * math.exp(float(factors.mean())), _spread(misses), len(plans), runs, inside)


def _misses(factors: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """[n] of each plan by how much its own log factor misses the mean of the others'."""
    return wanted - (factors.sum() - factors) / (len(factors) - 1)


def _spread(misses: np.ndarray) -> float:
    """Their size, one factor having been fitted to them."""
    return math.sqrt(float(np.sum(np.square(misses))) / (len(misses) - 1))
