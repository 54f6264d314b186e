"""The layer-wise error model of LEMS: what a layer at a rank is predicted to cost. numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lrc_core.budget import largest_low_rank, plan_params, rank_of_share
from lrc_core.types import LinearShape

Array = NDArray[np.float64]


def depth_bias(block: int, blocks: int, alpha: float, gamma: float) -> float:
    """b = 1 + gamma h: errors made early count more, because they pass through more blocks.

    h is the tail sum of 1/(k+1)^alpha over the blocks from this one on, scaled so that the first block has 1 and the
    last one 0.

    Args:
        block: index of the block, from 0.
        blocks: how many there are.
        alpha: how fast the bias falls at the beginning; at 0 it falls linearly.
        gamma: how much more the first block counts than the last; 0 is no bias.
    """
    terms = (np.arange(blocks) + 1.0) ** -alpha
    tails = np.cumsum(terms[::-1])[::-1]
    spread = tails[0] - tails[-1]
    return float(1 + gamma * (tails[block] - tails[-1]) / spread) if spread > 0 else 1.0


def error_curve(sigma: Array, probed: int, divergence: float) -> Array:
    """e(r) = KL (1 - E(r)) / (1 - E(r0)), E(r) the share of all sigma^2 in the first r values.

    Args:
        sigma: [full rank] singular values, descending.
        probed: r0, the rank at which the divergence was measured.
        divergence: KL at that rank; what rounding makes negative counts as 0.

    Returns:
        [full rank + 1] errors by rank, that of rank r at index r.
    """
    energy = np.asarray(sigma, dtype=np.float64) ** 2
    tail = np.append(np.cumsum(energy[::-1])[::-1], 0.0)  # differences of E would lose the last digits
    return max(divergence, 0.0) * tail / max(tail[probed], 1e-6 * tail[0])


def allowed_ranks(layers: Sequence[LinearShape], allowed: int, floor: float, multiple: int) -> dict[str, list[int]]:
    """Low ranks that a plan may use: multiples of a number, at least ``floor`` of break-even, below break-even.

    Where no plan of such ranks meets the budget, as for small layers or small targets, the multiple is halved until
    one does; if that does not help, the floor goes and the multiple is tried again.

    Args:
        allowed: parameters a plan may cost, at least what rank 1 everywhere costs.
        floor: smallest rank as a share of break-even.
        multiple: what ranks are multiples of.
    """
    for share in (floor, 0.0):
        step = multiple
        while step >= 1:
            found = {layer.name: _multiples(layer, share, step) for layer in layers}
            smallest = {layer.name: min(found[layer.name], default=layer.full_rank) for layer in layers}
            if plan_params(layers, smallest) <= allowed:
                return found
            step //= 2
    return {layer.name: [1] for layer in layers}


def _multiples(layer: LinearShape, floor: float, step: int) -> list[int]:
    first = max(1, math.ceil(rank_of_share(layer, floor) / step - 1e-9)) * step
    return list(range(first, largest_low_rank(layer) + 1, step))


def biased_choices(
    layers: Sequence[LinearShape],
    curves: Mapping[str, Array],
    ranks: Mapping[str, Sequence[int]],
    alpha: float,
    gamma: float,
) -> dict[str, dict[int, float]]:
    """Predicted error of every rank a layer may have; the dense layer has none."""
    blocks = 1 + max(layer.block for layer in layers)
    found: dict[str, dict[int, float]] = {}
    for layer in layers:
        bias = depth_bias(layer.block, blocks, alpha, gamma)
        curve = curves[layer.name]
        found[layer.name] = {rank: bias * float(curve[rank]) for rank in ranks[layer.name]} | {layer.full_rank: 0.0}
    return found
