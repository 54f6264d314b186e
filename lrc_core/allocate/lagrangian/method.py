"""Lagrangian allocation: the plan of least predicted loss, from the spectra alone.

Half the discarded sigma^2 of the two-sided decomposition estimates what a truncation adds to the loss, in nats for
every layer. The loss curves' convex hulls, with the dense layer as their last point, and one multiplier then give the
optimum for any budget (Shoham and Gersho 1988; Everett 1963) in milliseconds. On other decompositions sigma^2 is not
comparable between layers; there the loss of every component is measured from gradients instead.

A budget in bytes is spent in the same way on ranks and number formats at once: the loss of rounding is the same form,
so both stand on one scale, and the hulls are over all ways to store a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lrc_core.allocate.curves.loss_curves import cheapest_ranks
from lrc_core.allocate.curves.mixtures import Curves, best_mixture, on_hull, ways
from lrc_core.allocate.curves.predicted import CURVE_HELP, CURVES, Measuring, predicted_losses
from lrc_core.allocate.protocol import Allocation, Bytes, Context
from lrc_core.budget import check_target, dense_ranks
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.settings import setting


@dataclass(frozen=True)
class LagrangianSettings:
    """Settings of the Lagrangian allocation."""

    curve: str = setting("auto", "Loss curve", CURVE_HELP, choices=CURVES)
    batches: int = setting(16, "Batches", "Batches for the measured sensitivity (unused by sigma).", minimum=1)
    batch: int = setting(4, "Batch", "Windows in a batch.", minimum=1, maximum=1024)
    window: int = setting(256, "Window", "Tokens in a window.", minimum=2, maximum=65536)


ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="lagrangian",
        label="Lagrangian",
        summary="Spends the budget where the predicted loss per parameter is highest; closed form, no training.",
        source="Everett 1963; Shoham and Gersho 1988; loss curves of K-FAC SVD",
        color="#56b4e9",
        implementation="lrc_core.allocate.lagrangian.method:allocate",
        settings_class=LagrangianSettings,
        layer_local=("kfac",),
        by_bytes=True,
        tiny={"batches": 4, "batch": 2, "window": 12},
    )
)


def allocate(context: Context, settings: LagrangianSettings) -> Allocation:
    """The cheapest plan; see :class:`~lrc_core.allocate.protocol.Allocator`."""
    if context.bytes is not None:
        return _within_bytes(context, context.bytes)
    check_target(context.layers, context.keep)
    if context.keep >= 1:
        return Allocation(dense_ranks(context.layers))
    losses = predicted_losses(context, settings.curve, Measuring(settings.batches, settings.batch, settings.window))
    ranks = cheapest_ranks(context.layers, losses, context.keep)
    details = {"predicted_loss_increase": _lost(losses, ranks)}
    if any(layer.rank_multiple > 1 for layer in context.layers):
        free = [replace(layer, rank_multiple=1) for layer in context.layers]
        details["predicted_loss_at_any_rank"] = _lost(losses, cheapest_ranks(free, losses, context.keep))
    return Allocation(ranks, details=details)


def _lost(losses: Mapping[str, NDArray[np.float64]], ranks: Mapping[str, int]) -> float:
    """Predicted loss of everything beyond the ranks, in nats per token."""
    return sum(float(losses[name][rank:].sum()) for name, rank in ranks.items())


def _within_bytes(context: Context, budget: Bytes) -> Allocation:
    """The cheapest rank and format of every layer."""
    losses = predicted_losses(context, "sigma", Measuring(0, 0, 0))
    from lrc_core.allocate.curves.rounding_losses import rounding_losses  # torch

    rounding = rounding_losses(context)
    hulls = {}
    for layer in context.layers:
        of_layer = rounding[layer.name]
        curves = Curves(losses[layer.name], of_layer.dense, of_layer.factors)
        hulls[layer.name] = on_hull(ways(layer, curves, budget.vary))
    found = best_mixture(context.layers, hulls, budget.allowed)
    return Allocation(found.ranks, details={"predicted_loss_increase": found.loss}, formats=found.formats)
