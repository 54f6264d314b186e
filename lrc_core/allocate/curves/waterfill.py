"""Dividing an amount in proportion to weights within limits. numpy only; shared by allocators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lrc_core.types import LinearShape

Array = NDArray[np.float64]


def filled(weights: Array, amount: float, lower: Array, upper: Array) -> Array:
    """Shares clip(t * weight, lower, upper) with the t at which they sum to ``amount`` (water-filling).

    What a share that meets its upper limit leaves over goes to the others in proportion to their weights. For weights
    sqrt(e w) these are the costs c = w k that minimise sum e/k under sum c = amount and the limits: there every free
    share has the same derivative, and one held at a limit would only lose by moving into the range.

    Args:
        weights: [n], not negative; where all are 0 the upper limits take their place.
        amount: what to divide; all lower (or upper) limits where it is too little (or too much).
        lower: [n], not negative.
        upper: [n], at least ``lower``.

    Returns:
        [n]; their sum is never above ``amount`` unless the lower limits are. Shares of weight 0 stay at their lower
        limit, even where that leaves a part of the amount undivided.
    """
    weights = weights if weights.any() else upper
    positive = weights > 0
    if not positive.any() or amount <= lower.sum():
        return lower.copy()
    low, high = 0.0, float((upper[positive] / weights[positive]).max())
    if np.clip(high * weights, lower, upper).sum() <= amount:
        return np.clip(high * weights, lower, upper)
    for _ in range(100):
        middle = (low + high) / 2
        if np.clip(middle * weights, lower, upper).sum() <= amount:
            low = middle
        else:
            high = middle
    return np.clip(low * weights, lower, upper)


def by_kind(layers: Sequence[LinearShape]) -> Mapping[str, list[LinearShape]]:
    """Layers of each kind (the path inside the block: query, key, up, ...), in the order of their first appearance."""
    groups: dict[str, list[LinearShape]] = {}
    for layer in layers:
        groups.setdefault(layer.kind, []).append(layer)
    return groups
