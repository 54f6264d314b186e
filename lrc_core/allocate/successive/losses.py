"""What a round of measured slopes says about the loss of every component. numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def measured_losses(predicted: Array, slopes: Array, kept: int, groups: int) -> Array:
    """Loss of having every component dropped instead of kept, seen from a compressed model.

    A second-order step of one mask m from where it stands, with slope g = dKL/dm and the predicted curvature 2 p: a
    kept component (m = 1) costs -g + p when it is dropped, a dropped one (m = 0) costs -g - p for not being there. For
    a loss that is quadratic and separable, sum_i p_i (1 - m_i)^2, both are p again.

    Within each group of neighbours the sum of these is taken, not below zero, and spread in proportion to p, since a
    single component's slope is mostly noise.

    Args:
        predicted: [r] p, not negative, in the order of the spectrum.
        slopes: [r] g, nats per token.
        kept: how many components, from the first on, are on; r in a dense layer.
        groups: into how many groups the whole spectrum would be cut; no group holds kept and dropped components.

    Returns:
        [r] measured losses, not negative.
    """
    single = np.where(np.arange(len(predicted)) < kept, predicted - slopes, -predicted - slopes)
    size = max(1, round(len(predicted) / groups))
    pooled = np.empty_like(predicted)
    for side in (np.arange(kept), np.arange(kept, len(predicted))):
        for group in np.array_split(side, max(1, len(side) // size)):
            total = predicted[group].sum()
            ratio = max(0.0, single[group].sum()) / total if total > 0 else 0.0
            pooled[group] = ratio * predicted[group]
    return pooled
