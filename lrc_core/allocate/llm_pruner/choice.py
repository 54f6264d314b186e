"""Which units stay: the authors' ratio per module or one ranking of all, made to meet the budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lrc_core.budget import check_target
from lrc_core.errors import BudgetError
from lrc_core.types import LinearShape

if TYPE_CHECKING:
    from lrc_core.lowrank.coupling import CoupledUnits

Kept = dict[str, list[int]]


def whole_blocks(blocks: int, first: float, last: float) -> set[int]:
    """Blocks that are left whole: shares of the depth at both ends, rounded."""
    return {*range(round(first * blocks)), *range(blocks - round(last * blocks), blocks)}


def choose_units(
    sets: Sequence[CoupledUnits],
    scores: Mapping[str, NDArray[np.float64]],
    layers: Sequence[LinearShape],
    keep: float,
    *,
    ranking: str,
) -> Kept:
    """The units that every set keeps, ascending; never above the budget, and no unit that was dropped fits any more.

    Args:
        sets: what may be pruned.
        scores: [count] importance of the units by the set's name.
        keep: share of their parameters to keep.
        ranking: ``uniform`` or ``global``.

    Raises:
        BudgetError: the target is impossible, as every set keeps one unit and other layers stay whole.
    """
    allowed = check_target(layers, keep)
    check_smallest(sets, layers, keep)
    left = allowed - sum(layer.params for layer in layers) + sum(units.count * units.params for units in sets)
    order = {units.name: np.argsort(-scores[units.name], kind="stable") for units in sets}
    counts = _global_counts(sets, scores, left) if ranking == "global" else _uniform_counts(sets, left)
    _spend(sets, scores, order, counts, left, ranking)
    return {units.name: sorted(order[units.name][: counts[units.name]].tolist()) for units in sets}


def check_smallest(sets: Sequence[CoupledUnits], layers: Sequence[LinearShape], keep: float) -> None:
    """Refuse a target below the smallest plan.

    Raises:
        BudgetError: names the smallest share.
    """
    if not sets:
        raise BudgetError(
            "No head or channel of this model can be pruned: either the layout of its blocks is not known, or all of "
            "them are to stay whole.",
            "Lower first_whole and last_whole, or choose a method that learns ranks.",
        )
    total = sum(layer.params for layer in layers)
    smallest = total - sum((units.count - 1) * units.params for units in sets)
    if check_target(layers, keep) < smallest:
        least = math.ceil(1e4 * smallest / total) / 1e4
        raise BudgetError(
            f"Keeping {keep:.4f} is impossible by pruning heads and channels here: one of each in every block that is "
            f"pruned, and all that cannot be pruned, already keep {smallest / total:.4f}.",
            f"Ask for at least {least:.4f}, or let the outer blocks be pruned (first_whole and last_whole at 0).",
        )


def _uniform_counts(sets: Sequence[CoupledUnits], left: int) -> dict[str, int]:
    """The smallest common pruning ratio that fits.

    Rounded as the authors' code does: of MLP channels at least the ratio goes, of heads at most.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _params(sets, _at_ratio(sets, middle)) > left:
            low = middle
        else:
            high = middle
    return _at_ratio(sets, high)


def _at_ratio(sets: Sequence[CoupledUnits], ratio: float) -> dict[str, int]:
    return {
        units.name: max(
            1,
            units.count - math.floor(ratio * units.count + 1e-9)
            if units.kind == "heads"
            else math.floor((1 - ratio) * units.count + 1e-9),
        )
        for units in sets
    }


def _params(sets: Sequence[CoupledUnits], counts: Mapping[str, int]) -> int:
    return sum(counts[units.name] * units.params for units in sets)


def _global_counts(
    sets: Sequence[CoupledUnits], scores: Mapping[str, NDArray[np.float64]], left: int
) -> dict[str, int]:
    """Drop what is least important per parameter, wherever it is, until the rest fits; the best of a set stays."""
    counts = {units.name: units.count for units in sets}
    params = {units.name: units.params for units in sets}
    ranked = sorted(
        (score / units.params, units.name) for units in sets for score in np.sort(scores[units.name]).tolist()[:-1]
    )
    used = _params(sets, counts)
    for _, name in ranked:
        if used <= left:
            break
        counts[name] -= 1
        used -= params[name]
    return counts


def _spend(
    sets: Sequence[CoupledUnits],
    scores: Mapping[str, NDArray[np.float64]],
    order: Mapping[str, NDArray[np.int64]],
    counts: dict[str, int],
    left: int,
    ranking: str,
) -> None:
    """Take units back, in place, while any still fits. Each round visits the sets once, so the remainder is spread."""
    left -= _params(sets, counts)

    def place(units: CoupledUnits) -> tuple[float, float, str]:
        """Uniform: the set with the smallest share first; then, and globally at once, what matters most."""
        count = counts[units.name]
        share = count / units.count if ranking == "uniform" else 0.0
        return share, -scores[units.name][order[units.name][count]] / units.params, units.name

    spent = True
    while spent:
        spent = False
        for units in sorted((units for units in sets if counts[units.name] < units.count), key=place):
            if units.params <= left:
                counts[units.name] += 1
                left -= units.params
                spent = True
