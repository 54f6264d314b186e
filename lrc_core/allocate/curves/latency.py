"""Ranks within a time: what was measured at some ranks, read at all of them. numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lrc_core.allocate.curves.mixtures import Option, Ways, smallest_cost
from lrc_core.budget import largest_low_rank
from lrc_core.errors import BudgetError
from lrc_core.formats.grids import BF16
from lrc_core.types import LinearShape

Array = NDArray[np.float64]


def timed_ways(layer: LinearShape, losses: Array, times: Mapping[int, float]) -> Ways:
    """Every rank of a layer with its time in nanoseconds, and the dense layer.

    Between measured ranks the time is a straight line. A larger rank that was measured to be faster (noise, or a size
    that suits the device) is averaged with its neighbours until times rise: the nearest curve that does.

    Args:
        losses: [r] predicted loss of dropping each component.
        times: seconds by rank; the full rank is the dense layer.
    """
    known = np.array(sorted(rank for rank in times if rank != layer.full_rank))
    ranks = np.arange(layer.rank_multiple, largest_low_rank(layer) + 1, layer.rank_multiple)
    if not len(known):
        ranks = ranks[:0]
    rising = _rising(np.array([times[int(rank)] for rank in known]))
    seconds = np.interp(ranks, known, rising) if len(ranks) else np.zeros(0)
    tail = np.concatenate([np.cumsum(losses[::-1])[::-1], [0.0]])
    ranks = np.append(ranks, layer.full_rank)
    costs = np.ceil(1e9 * np.append(seconds, times[layer.full_rank])).astype(np.int64)
    lost = np.append(tail[ranks[:-1]], 0.0)
    order = np.lexsort((lost, costs))
    return Ways(costs[order], lost[order], ranks[order], np.full(len(ranks), BF16.name)[order])


def _rising(values: Array) -> Array:
    """The nearest values in the sense of least squares that never fall (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values.tolist():
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (one, many), (other, more) = pools[-2:]
            pools[-2:] = [((one * many + other * more) / (many + more), many + more)]
    return np.repeat([value for value, _ in pools], [count for _, count in pools])


def require_time(hulls: Mapping[str, Sequence[Option]], share: float, dense: float) -> int:
    """Nanoseconds that a share of the dense time allows.

    Args:
        hulls: of every layer, see :func:`~lrc_core.allocate.curves.mixtures.on_hull`.
        share: of the dense time.
        dense: seconds of all layers.

    Raises:
        BudgetError: even the fastest choices take longer; says the smallest possible share.
    """
    allowed = math.floor(1e9 * share * dense) + len(hulls) * (share >= 1)  # every layer's time was rounded up
    fastest = smallest_cost(hulls)
    if fastest > allowed:
        least = math.ceil(1e3 * fastest / (1e9 * dense)) / 1e3
        raise BudgetError(
            f"{share:g} of the dense time cannot be reached on this device: the fastest possible is {least:g}.",
            f"Ask for at least latency:{least:g}.",
        )
    return allowed
