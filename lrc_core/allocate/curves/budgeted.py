"""The plan of least loss within any budget: of parameters, of bytes or of time.

Losses of components may be predicted or measured. What the budget is counted in decides what a layer may choose among
and what each choice costs; the share of it is that of the dense layers' cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lrc_core.allocate.curves.latency import require_time, timed_ways
from lrc_core.allocate.curves.loss_curves import cheapest_ranks
from lrc_core.allocate.curves.mixtures import Curves, Mixture, Option, best_mixture, on_hull, smallest_cost, ways
from lrc_core.allocate.protocol import Bytes, Context, Latency
from lrc_core.budget import check_target, is_dense, keep_at, plan_params, removed_percent
from lrc_core.formats.budgets import require_reach
from lrc_core.formats.sizes import whole_bytes

Losses = Mapping[str, NDArray[np.float64]]
"""For every layer [r], loss of dropping each component, in nats per token."""


class Budget(Protocol):
    """What a plan may cost.

    Attributes:
        target: share of the dense layers' cost that is allowed.
    """

    target: float

    def curve(self, asked: str) -> str:
        """The kind of predicted losses to start from, which is the one asked for where this budget leaves a choice."""

    def solve(self, losses: Losses, share: float) -> Mixture:
        """The plan of least loss within a share of the dense cost.

        Raises:
            BudgetError: no plan costs so little.
        """

    def first_cut(self, losses: Losses) -> float:
        """A share at which no rank is cut yet, but a little below it; the target where none is cut there."""

    def figures(self, found: Mixture) -> dict[str, Any]:
        """What is worth telling of a plan's cost."""


def budget_of(context: Context) -> Budget:
    """The budget that an allocator was given."""
    if context.bytes is not None:
        return _OfBytes(context, context.bytes)
    if context.latency is not None:
        return _OfTime(context, context.latency)
    return _OfParameters(context)


class _OfRanks:
    """What is spent on ranks alone."""

    def curve(self, asked: str) -> str:
        return asked

    def first_cut(self, losses: Losses) -> float:
        return 1.0

    def figures(self, found: Mixture) -> dict[str, Any]:
        return {}


class _OfParameters(_OfRanks):
    def __init__(self, context: Context) -> None:
        self._layers, self.target = context.layers, context.keep
        check_target(self._layers, self.target)

    def solve(self, losses: Losses, share: float) -> Mixture:
        ranks = cheapest_ranks(self._layers, losses, share)
        lost = sum(float(losses[name][rank:].sum()) for name, rank in ranks.items())
        return Mixture(ranks, {}, lost, plan_params(self._layers, ranks))


class _OfBytes:
    """Every layer chooses its rank and its number format together."""

    def __init__(self, context: Context, budget: Bytes) -> None:
        from lrc_core.allocate.curves.rounding_losses import rounding_losses  # torch

        self._layers, self._vary, self._allowed = context.layers, budget.vary, budget.allowed
        self._whole = whole_bytes(context.layers)
        self._rounding = rounding_losses(context)
        self.target = budget.allowed / self._whole

    def curve(self, asked: str) -> str:
        return "sigma"  # what rounding loses is predicted on the scale of the spectra

    def solve(self, losses: Losses, share: float) -> Mixture:
        return self._within(self._hulls(losses), share)

    def first_cut(self, losses: Losses) -> float:
        # Halving ends between two percents of which only the lower has a cut. There may be others above: a layer that
        # is cut in 16 bits can be dense again in 8.
        hulls = self._hulls(losses)
        if not self._cuts(self._within(hulls, self.target)):
            return self.target
        above, below = 0, math.ceil(removed_percent(self.target) - 1e-9)
        while below - above > 1:
            middle = (above + below) // 2
            if self._cuts(self._within(hulls, keep_at(middle))):
                below = middle
            else:
                above = middle
        return max(self.target, keep_at(above))

    def figures(self, found: Mixture) -> dict[str, Any]:
        return {}

    def _hulls(self, losses: Losses) -> dict[str, list[Option]]:
        hulls = {}
        for layer in self._layers:
            rounding = self._rounding[layer.name]
            curves = Curves(losses[layer.name], rounding.dense, rounding.factors)
            hulls[layer.name] = on_hull(ways(layer, curves, self._vary))
        require_reach(smallest_cost(hulls), self._allowed, self._layers)
        return hulls

    def _within(self, hulls: Mapping[str, list[Option]], share: float) -> Mixture:
        return best_mixture(self._layers, hulls, math.floor(share * self._whole + 1e-6))

    def _cuts(self, found: Mixture) -> bool:
        return any(not is_dense(layer, found.ranks[layer.name]) for layer in self._layers)


class _OfTime(_OfRanks):
    """Every layer chooses its rank at what it was measured to take on this device."""

    def __init__(self, context: Context, budget: Latency) -> None:
        self._layers, self._times, self.target = context.layers, budget.times, budget.share
        self._dense = sum(budget.times[layer.name][layer.full_rank] for layer in self._layers)

    def solve(self, losses: Losses, share: float) -> Mixture:
        hulls = {
            layer.name: on_hull(timed_ways(layer, losses[layer.name], self._times[layer.name]))
            for layer in self._layers
        }
        return best_mixture(self._layers, hulls, require_time(hulls, share, self._dense))

    def figures(self, found: Mixture) -> dict[str, Any]:
        return {"milliseconds": found.cost / 1e6, "dense_milliseconds": 1e3 * self._dense}
