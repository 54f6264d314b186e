"""Plans made by hand: some ranks are locked, the rest of the budget is spent on the other layers. numpy only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lrc_core.allocate.curves.loss_curves import Array, cheapest_ranks
from lrc_core.budget import Ranks, check_target, dense_ranks, fit_budget, normalised, plan_params
from lrc_core.errors import BudgetError
from lrc_core.types import LinearShape

HAND = "hand"
"""Method of a plan that was made or changed by hand."""


def spend_rest(
    layers: Sequence[LinearShape],
    ranks: Ranks,
    locked: Collection[str],
    keep: float,
    losses: Mapping[str, Array] | None = None,
) -> dict[str, int]:
    """Ranks within a budget that leave locked layers as they are.

    Args:
        ranks: of every layer; what is not locked is a wish at most.
        locked: names of the layers that keep their rank.
        losses: for every layer [r], predicted loss of dropping each component: the other layers then get the ranks of
            least predicted loss. None where no loss is known: they keep their proportions.

    Raises:
        BudgetError: the locked layers leave too little for the others, or the target is impossible.
    """
    allowed = check_target(layers, keep)
    wanted = normalised(layers, ranks)
    held = [layer for layer in layers if layer.name in locked]
    free = [layer for layer in layers if layer.name not in locked]
    left = allowed - plan_params(held, wanted)
    least = plan_params(free, {layer.name: 1 for layer in free})
    if left < least:
        total = sum(layer.params for layer in layers)
        raise BudgetError(
            f"The {len(held)} locked layers keep {100 * plan_params(held, wanted) / total:.1f} % of all parameters, "
            f"which leaves too little of {100 * keep:.1f} % for the other {len(free)}.",
            "Unlock some layers, lower their ranks, or keep more.",
        )
    result = {layer.name: wanted[layer.name] for layer in held}
    if not free:
        return result
    share = left / sum(layer.params for layer in free)
    if share >= 1:
        return result | dense_ranks(free)
    share -= 1e-9  # the budget must not grow by rounding
    if losses is not None:
        return result | cheapest_ranks(free, losses, max(share, least / sum(layer.params for layer in free)))
    return result | _in_proportion(free, wanted, left, share)


def _in_proportion(layers: Sequence[LinearShape], ranks: Ranks, allowed: int, keep: float) -> dict[str, int]:
    """All ranks times the largest common factor that fits, then single ranks while any fits."""
    low, high = 0.0, float(max(layer.full_rank for layer in layers))
    for _ in range(60):
        middle = (low + high) / 2
        if plan_params(layers, _scaled(layers, ranks, middle)) <= allowed:
            low = middle
        else:
            high = middle
    scaled = _scaled(layers, ranks, low)
    priority = {layer.name: ranks[layer.name] / scaled[layer.name] for layer in layers}
    return fit_budget(layers, scaled, keep, priority)


def _scaled(layers: Sequence[LinearShape], ranks: Ranks, factor: float) -> dict[str, int]:
    return normalised(
        layers, {layer.name: min(layer.full_rank, max(1, int(factor * ranks[layer.name]))) for layer in layers}
    )
