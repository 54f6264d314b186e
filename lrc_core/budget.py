"""The only place where ranks become parameters and ratios, and where a size is turned into another word for it.

Conventions: a rank-k factor pair of an m x n layer costs k(m+n) parameters; a layer whose factors would cost at least
as much as the dense matrix stays dense and costs mn. ``keep`` is the share of the block linears' parameters kept; the
interface shows what is removed, in percent. Embeddings, head, norms and biases are never compressed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from lrc_core.errors import BudgetError
from lrc_core.types import LinearShape

Ranks = Mapping[str, int]
"""Rank of every layer by full module name. A rank at or above the break-even means: dense."""

Shapes = Mapping[str, tuple[int, int]]
"""Rows and columns that are left of layers whose structure is pruned; what is left costs rows * columns."""

USUAL_KEEP = 0.8
"""The share kept that is shown where nobody chose one."""


def removed_share(keep: float) -> float:
    """Share removed where ``keep`` is kept."""
    return 1 - keep


def kept_share(removed: float) -> float:
    """Share kept where ``removed`` is removed."""
    return 1 - removed


def removed_percent(keep: float) -> float:
    """Percent removed where ``keep`` is kept, without the noise of the subtraction: 0.93 -> 7.0."""
    return round(100 * (1 - keep), 6)


def whole_percent(keep: float) -> int:
    """Whole percent removed, by which recorded plans are named and sliders move: 0.8 -> 20."""
    return round(100 * (1 - keep))


def keep_at(percent: float) -> float:
    """Share kept where so many percent are removed, the very number that a user types: 7 -> 0.93 (1 - 0.07 is not)."""
    return size_key(1 - percent / 100)


def size_key(share: float) -> float:
    """A share to the digits that tell sizes apart, to group by."""
    return round(float(share), 6)


def same_size(one: float, other: float) -> bool:
    """Whether two shares are the same target; both kept or both removed."""
    return abs(one - other) < 1e-6


def within(achieved: float, keep: float) -> bool:
    """Whether what a plan keeps is within a target."""
    return achieved < keep or same_size(achieved, keep)


def same_percent(one: float, other: float) -> bool:
    """Whether what was recorded at a whole percent stands for a target: at most half a percent lies between."""
    return abs(one - other) < 0.0051


def break_even(layer: LinearShape) -> float:
    """k* = mn/(m+n), the rank at which factors cost what the dense matrix costs."""
    return layer.params / (layer.out_features + layer.in_features)


def is_dense(layer: LinearShape, rank: int) -> bool:
    """Whether a layer of that rank is stored dense."""
    return rank * (layer.out_features + layer.in_features) >= layer.params


def largest_low_rank(layer: LinearShape) -> int:
    """The largest rank that still saves parameters (0 when none does)."""
    return math.ceil(break_even(layer)) - 1


def factor_params(layer: LinearShape, rank: int) -> int:
    """k(m+n): parameters of two factors of that rank, also where they are more than the layer's own."""
    return rank * (layer.out_features + layer.in_features)


def layer_params(layer: LinearShape, rank: int) -> int:
    """Parameters of a layer kept at ``rank``: min(k(m+n), mn)."""
    return min(rank * (layer.out_features + layer.in_features), layer.params)


def layer_ratio(layer: LinearShape, rank: int, shape: tuple[int, int] | None = None) -> float:
    """Share R of the layer that is kept, in (0, 1]; ``shape`` is what pruning leaves of it."""
    return (layer_params(layer, rank) if shape is None else math.prod(shape)) / layer.params


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


def whole_model_ratio(linear_ratio: float, params_linear: int, params_total: int) -> float:
    """Share of ALL parameters kept (the denominator of LLRC): what is not a block linear is kept whole."""
    return 1 - (1 - linear_ratio) * params_linear / params_total


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


def check_target(layers: Sequence[LinearShape], keep: float) -> int:
    """Parameters that a target allows.

    Args:
        layers: the block linears.
        keep: share to keep, in (0, 1].

    Raises:
        BudgetError: not a number in (0, 1], or below the smallest plan (every layer at rank 1).
    """
    if not (isinstance(keep, int | float) and math.isfinite(keep) and 0 < keep <= 1):
        raise BudgetError(
            f"The share to keep must be above 0 and at most 1, not {keep}.", "A compression of 20 % keeps 0.8."
        )
    total = sum(layer.params for layer in layers)
    allowed = math.floor(keep * total + 1e-9 * total)
    smallest = plan_params(layers, {layer.name: 1 for layer in layers})
    if allowed < smallest:
        raise BudgetError(
            f"Keeping {keep:.4f} is impossible: rank 1 in every layer already keeps {smallest / total:.4f}.",
            f"Ask for at least {smallest / total:.4f}.",
        )
    return allowed


def uniform_ranks(layers: Sequence[LinearShape], keep: float) -> dict[str, int]:
    """k = floor(keep * mn/(m+n)) for every layer, at least 1; the dense model at keep 1."""
    if keep >= 1:
        return dense_ranks(layers)
    return {layer.name: max(1, math.floor(keep * break_even(layer) + 1e-9)) for layer in layers}


def fit_budget(
    layers: Sequence[LinearShape], ranks: Ranks, keep: float, priority: Mapping[str, float] | None = None
) -> dict[str, int]:
    """Make ranks meet a target: never above it, and at least 99.5 % of it used or within one rank of a layer.

    Ranks that are too large are scaled down by one common factor (low-rank layers first, dense ones only when that is
    not enough); what is left over is spent one rank at a time, layers of the highest priority first.

    Args:
        layers: the block linears.
        ranks: wanted ranks.
        keep: share of parameters to keep.
        priority: larger is served first when the remainder is spent; by default the layer with the smallest ratio.

    Raises:
        BudgetError: the target is impossible.
    """
    allowed = check_target(layers, keep)
    if keep >= 1:
        return dense_ranks(layers)
    fitted = normalised(layers, ranks)
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
    return {layer.name: 1 for layer in layers}


def _scaled(layers: Sequence[LinearShape], ranks: Ranks, factor: float) -> dict[str, int]:
    return {
        layer.name: ranks[layer.name]
        if is_dense(layer, ranks[layer.name])
        else max(1, math.floor(factor * ranks[layer.name] + 1e-9))
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
            step = layer_params(layer, ranks[layer.name] + 1) - layer_params(layer, ranks[layer.name])
            if step <= left:
                ranks[layer.name] += 1
                left -= step
                spent = True
        if not spent:
            break
    ranks.update(normalised(layers, ranks))
