"""Whole plans: what they cost, and ranks that meet a target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from lrc_core.budget.layers import (
    Shapes,
    is_dense,
    largest_low_rank,
    layer_params,
    layer_ratio,
    next_rank,
    smallest_rank,
    snapped_rank,
    whole_rank_of_share,
)
from lrc_core.errors import BudgetError
from lrc_core.types import LinearShape, ModelCard

Ranks = Mapping[str, int]
"""Rank of every layer by full module name. A rank at or above the break-even means: dense."""


def plan_params(layers: Iterable[LinearShape], ranks: Ranks, shapes: Shapes | None = None) -> int:
    """Parameters of all block linears under ``ranks``; those in ``shapes`` are pruned to that and have no rank."""
    left = shapes or {}
    return sum(
        math.prod(left[layer.name]) if layer.name in left else layer_params(layer, ranks[layer.name])
        for layer in layers
    )


def keep_ratio(layers: Sequence[LinearShape], ranks: Ranks, shapes: Shapes | None = None) -> float:
    """Share of the block linears' parameters kept (the denominator of ARA, SVD-LLM, LEMS, Dobi-SVD)."""
    return plan_params(layers, ranks, shapes) / sum(layer.params for layer in layers)


def whole_model_ratio(linear_ratio: float, card: ModelCard) -> float:
    """Share of ALL parameters kept (the denominator of LLRC): what is not a block linear is kept whole."""
    return 1 - (1 - linear_ratio) * card.params_linear / card.params_total


def dense_ranks(layers: Iterable[LinearShape]) -> dict[str, int]:
    """The dense model as ranks."""
    return {layer.name: layer.full_rank for layer in layers}


def normalised(layers: Iterable[LinearShape], ranks: Ranks) -> dict[str, int]:
    """Ranks with every dense layer written as its full rank and every other at least 1.

    Raises:
        BudgetError: a layer is missing or its rank is below 0 or above min(m, n).
    """
    result = {}
    for layer in layers:
        if layer.name not in ranks:
            raise BudgetError(f"No rank is given for layer {layer.name}.")
        rank = int(ranks[layer.name])
        if not 0 <= rank <= layer.full_rank:
            raise BudgetError(f"Rank {rank} of {layer.name} is outside 0..{layer.full_rank}.")
        result[layer.name] = layer.full_rank if is_dense(layer, rank) else max(1, rank)
    return result


def check_keep(keep: float) -> None:
    """Refuse a share that no model can keep, whatever its smallest plan is.

    Raises:
        BudgetError: not a number above 0 and at most 1.
    """
    if not (isinstance(keep, int | float) and math.isfinite(keep) and 0 < keep <= 1):
        raise BudgetError(
            f"The share to keep must be above 0 and at most 1, not {keep}.", "A compression of 20 % keeps 0.8."
        )


def check_target(layers: Sequence[LinearShape], keep: float) -> int:
    """Parameters that a target allows.

    Args:
        keep: share to keep, in (0, 1].

    Raises:
        BudgetError: not a number in (0, 1], or below the smallest plan (every layer at rank 1).
    """
    check_keep(keep)
    total = sum(layer.params for layer in layers)
    allowed = math.floor(keep * total + 1e-9 * total)
    smallest = plan_params(layers, {layer.name: smallest_rank(layer) for layer in layers})
    if allowed < smallest:
        least = max((layer.rank_multiple for layer in layers), default=1)
        raise BudgetError(
            f"Keeping {keep:.4f} is impossible: rank {least} in every layer already keeps {smallest / total:.4f}.",
            f"Ask for at least {smallest / total:.4f}{'' if least == 1 else ', or for a smaller rank multiple'}.",
        )
    return allowed


def uniform_ranks(layers: Sequence[LinearShape], keep: float) -> dict[str, int]:
    """The rank of every layer that costs ``keep`` of it, rounded down, at least 1; the dense model at keep 1."""
    if keep >= 1:
        return dense_ranks(layers)
    return {layer.name: whole_rank_of_share(layer, keep) for layer in layers}


def fit_budget(
    layers: Sequence[LinearShape], ranks: Ranks, keep: float, priority: Mapping[str, float] | None = None
) -> dict[str, int]:
    """Make ranks meet a target: never above it, and at least 99.5 % of it used or within one rank of a layer.

    Ranks that are too large are scaled down by one common factor (low-rank layers first, dense ones only when that is
    not enough); what is left over is spent one rank at a time, layers of the highest priority first. Where layers
    have a rank multiple, ranks are rounded down to it and grow by it.

    Args:
        priority: larger is served first when the remainder is spent; by default the layer with the smallest ratio.

    Raises:
        BudgetError: the target is impossible.
    """
    allowed = check_target(layers, keep)
    if keep >= 1:
        return dense_ranks(layers)
    wanted = normalised(layers, ranks)
    fitted = {layer.name: snapped_rank(layer, wanted[layer.name]) for layer in layers}
    if plan_params(layers, fitted) > allowed:
        fitted = _shrunk(layers, fitted, allowed)
    _spend_remainder(layers, fitted, allowed, priority)
    return fitted


def _shrunk(layers: Sequence[LinearShape], ranks: dict[str, int], allowed: int) -> dict[str, int]:
    """Scale low-rank layers by the largest common factor that fits; if none does, let dense layers take part."""
    for capped in (ranks, {layer.name: min(ranks[layer.name], largest_low_rank(layer)) for layer in layers}):
        low, high = 0.0, 1.0
        if plan_params(layers, _scaled(layers, capped, low)) > allowed:
            continue
        for _ in range(50):
            middle = (low + high) / 2
            if plan_params(layers, _scaled(layers, capped, middle)) <= allowed:
                low = middle
            else:
                high = middle
        return _scaled(layers, capped, low)
    return {layer.name: smallest_rank(layer) for layer in layers}


def _scaled(layers: Sequence[LinearShape], ranks: Ranks, factor: float) -> dict[str, int]:
    return {
        layer.name: ranks[layer.name]
        if is_dense(layer, ranks[layer.name])
        else snapped_rank(layer, max(1, math.floor(factor * ranks[layer.name] + 1e-9)))
        for layer in layers
    }


def _spend_remainder(
    layers: Sequence[LinearShape], ranks: dict[str, int], allowed: int, priority: Mapping[str, float] | None
) -> None:
    """Add ranks in place while any still fits. Each round visits the layers once, so the remainder is spread."""
    left = allowed - plan_params(layers, ranks)
    while True:
        order = sorted(
            (layer for layer in layers if not is_dense(layer, ranks[layer.name])),
            key=lambda layer: (
                -priority[layer.name] if priority else layer_ratio(layer, ranks[layer.name]),
                layer.name,
            ),
        )
        spent = False
        for layer in order:
            rank = next_rank(layer, ranks[layer.name])
            step = layer_params(layer, rank) - layer_params(layer, ranks[layer.name])
            if step <= left:
                ranks[layer.name] = rank
                left -= step
                spent = True
        if not spent:
            break
    ranks.update(normalised(layers, ranks))
