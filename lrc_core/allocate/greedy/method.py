"""Loss-curve greedy, the rank selection of LLM-RS: convex hulls of probed curves, cheapest loss per parameter first.

One layer at a time is truncated at each ratio of a grid, all others dense: the probes of STRS, and in the same file.
What a layer loses at each ratio has a lower convex hull with the dense layer as its last point; from the dense model
on, the step along a hull that costs least per saved parameter is taken until the budget is met. On hulls that is the
Lagrangian optimum.

Choices made here: the probed quantity is the KL divergence from the dense model unless cross-entropy is asked for,
which is what LLM-RS and STRS measure but tells layers apart less well; the last step goes only as far as the budget
asks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lrc_core.allocate.curves.loss_curves import lower_hull
from lrc_core.allocate.probing.grid import ProbeText, ratio_grid
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import (
    check_target,
    dense_ranks,
    fit_budget,
    is_dense,
    layer_params,
    plan_params,
    rank_of_share,
    whole_rank_of_share,
)
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.settings import setting
from lrc_core.types import LinearShape


@dataclass(frozen=True)
class GreedySettings:
    """Settings of the loss-curve greedy; grid and windows are those of STRS, whose probes serve both."""

    measure: str = setting(
        "kl",
        "Measure",
        "kl: divergence of the predictions from the dense model's; loss: cross-entropy. Every probe measures both.",
        choices=("kl", "loss"),
    )
    windows: int = setting(32, "Probe windows", "Token windows of every probe.", minimum=1, maximum=4096)
    window: int = setting(2048, "Window", "Tokens in a probe window.", minimum=2, maximum=65536)
    lowest: float = setting(0.4, "Lowest ratio", "Smallest ratio probed.", minimum=0.01, maximum=0.99)
    highest: float = setting(0.9, "Highest ratio", "Largest ratio probed.", minimum=0.01, maximum=0.99)
    step: float = setting(0.1, "Ratio step", "Distance between probed ratios.", minimum=0.01, maximum=0.5)


ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="greedy",
        label="Loss-curve greedy",
        summary="Follows the convex hull of each layer's probed curve, cheapest loss per saved parameter first.",
        source="LLM-RS (LLM Rank Selection)",
        color="#5f7a8a",
        implementation="lrc_core.allocate.greedy.method:allocate",
        settings_class=GreedySettings,
        presets={"quick": {"windows": 4, "window": 256}, "standard": {"windows": 8, "window": 512}, "paper": {}},
        tiny={"windows": 2, "window": 12, "lowest": 0.4, "step": 0.4},
    )
)


@dataclass(frozen=True)
class HullStep:
    """One segment of a layer's hull, from its larger to its smaller rank.

    Attributes:
        price: loss per saved parameter.
        layer: the layer.
        start: rank before the step.
        end: rank after it.
    """

    price: float
    layer: LinearShape
    start: int
    end: int


def allocate(context: Context, settings: GreedySettings) -> Allocation:
    """Greedy ranks; see :class:`~lrc_core.allocate.protocol.Allocator`. Finished probes survive a cancel."""
    from lrc_core.allocate.probing.probes import BASE, probe_layers  # torch

    ratios = ratio_grid(settings.lowest, settings.highest, settings.step)
    wanted = [(layer, whole_rank_of_share(layer, ratio)) for layer in context.layers for ratio in ratios]
    effects = probe_layers(context, ProbeText(settings.windows, settings.window), wanted)
    curves: dict[str, dict[int, float]] = {layer.name: {} for layer in context.layers}
    for layer, rank in wanted:
        found = effects[layer.name, rank]
        loss = found.divergence if settings.measure == "kl" else found.loss - effects[BASE].loss
        curves[layer.name][rank] = loss
    return Allocation(choose(context.layers, curves, context.keep), details={"probes": len(wanted)})


def choose(layers: Sequence[LinearShape], curves: Mapping[str, Mapping[int, float]], keep: float) -> dict[str, int]:
    """The plan where the budget is met.

    Args:
        curves: loss of every layer at every probed rank; dense it is 0.

    Raises:
        BudgetError: the target is impossible.
    """
    allowed = check_target(layers, keep)
    ranks = dense_ranks(layers)
    over = plan_params(layers, ranks) - allowed
    for step in hull_steps(layers, curves):
        if over <= 0:
            break
        ranks[step.layer.name] = max(step.end, _rank_saving(step, over))
        over = plan_params(layers, ranks) - allowed
    return fit_budget(layers, ranks, keep)


def hull_steps(layers: Sequence[LinearShape], curves: Mapping[str, Mapping[int, float]]) -> list[HullStep]:
    """All segments of all hulls, cheapest first; along one layer prices rise towards smaller ranks."""
    found = []
    for layer in layers:
        low = {rank: loss for rank, loss in sorted(curves[layer.name].items()) if not is_dense(layer, rank)}
        points = {**low, layer.full_rank: 0.0}
        ranks = list(points)
        costs = np.array([layer_params(layer, rank) for rank in ranks], dtype=np.float64)
        losses = np.array(list(points.values()))
        for end, start in pairwise(lower_hull(costs, losses)):
            price = (losses[end] - losses[start]) / (costs[start] - costs[end])
            found.append(HullStep(float(price), layer, ranks[start], ranks[end]))
    return sorted(found, key=lambda step: (step.price, step.layer.name, -step.start))


def _rank_saving(step: HullStep, wanted: int) -> int:
    """The largest rank that saves ``wanted`` parameters against the step's start; below 0 where none does."""
    left = layer_params(step.layer, step.start) - wanted
    return math.floor(rank_of_share(step.layer, max(left, 0) / step.layer.params) + 1e-9)
