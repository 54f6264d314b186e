"""Lagrangian allocation: the plan of least predicted loss, from the spectra alone.

Half the discarded sigma^2 of the two-sided decomposition estimates what a truncation adds to the loss, in nats for
every layer. The loss curves' convex hulls, with the dense layer as their last point, and one multiplier then give the
optimum for any budget (Shoham and Gersho 1988; Everett 1963) in milliseconds. On other decompositions sigma^2 is not
comparable between layers; there the loss of every component is measured from gradients instead.

A budget in bytes is spent in the same way on ranks and number formats at once: the loss of rounding is the same form,
so both stand on one scale, and the hulls are over all ways to store a layer. A budget in time is spent on ranks, at
what each was measured to take on this device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lrc_core.allocate.curves.budgeted import budget_of
from lrc_core.allocate.curves.predicted import CURVE_HELP, CURVES, Measuring, predicted_losses
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import dense_ranks
from lrc_core.decompose import IN_NATS
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
        layer_local=IN_NATS,
        by_bytes=True,
        tiny={"batches": 4, "batch": 2, "window": 12},
    )
)


def allocate(context: Context, settings: LagrangianSettings) -> Allocation:
    """The cheapest plan; see :class:`~lrc_core.allocate.protocol.Allocator`."""
    budget = budget_of(context)
    if budget.target >= 1:
        return Allocation(dense_ranks(context.layers))
    measuring = Measuring(settings.batches, settings.batch, settings.window)
    losses = predicted_losses(context, budget.curve(settings.curve), measuring)
    found = budget.solve(losses, budget.target)
    details = {"predicted_loss_increase": found.loss, **budget.figures(found)}
    if any(layer.rank_multiple > 1 for layer in context.layers):
        free = replace(context, layers=tuple(replace(layer, rank_multiple=1) for layer in context.layers))
        details["predicted_loss_at_any_rank"] = budget_of(free).solve(losses, budget.target).loss
    return Allocation(found.ranks, details=details, formats=found.formats or None)
