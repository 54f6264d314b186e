"""The multiple-choice knapsack: one rank for every layer, least total error, within a number of parameters.

Solved exactly as an integer program by HiGHS (scipy.optimize.milp). Shared by allocators; no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrc_core.budget import layer_params
from lrc_core.errors import BudgetError, NumericalError
from lrc_core.types import LinearShape

Choices = Mapping[str, Mapping[int, float]]
"""For every layer by name: the error of each rank it may have; a rank at or above break-even is the dense layer."""
_LARGEST = 1e4  # of the scaled errors: the solver's absolute gap of 1e-6 is then no gap
_SECONDS = 300


@dataclass(frozen=True)
class Solution:
    """The best plan.

    Attributes:
        ranks: rank of every layer.
        error: total of its errors.
        proven: whether the solver showed that nothing is better, and did not run out of time.
    """

    ranks: dict[str, int]
    error: float
    proven: bool


def best_plan(layers: Sequence[LinearShape], choices: Choices, allowed: int) -> Solution:
    """The plan of least total error among all that cost at most ``allowed``.

    Args:
        choices: what each of them may be.
        allowed: parameters.

    Raises:
        BudgetError: even the cheapest choices cost more.
        NumericalError: the solver failed, or an error is not finite.
    """
    options = [sorted(choices[layer.name].items()) for layer in layers]
    costs = [
        np.array([layer_params(layer, rank) for rank, _ in found]) for layer, found in zip(layers, options, strict=True)
    ]
    smallest = sum(int(cost.min()) for cost in costs)
    if smallest > allowed:
        raise BudgetError(
            f"The cheapest choices cost {smallest} parameters, but {allowed} are allowed.", "Allow smaller ranks."
        )
    errors = [np.array([error for _, error in found], dtype=np.float64) for found in options]
    if not all(np.isfinite(error).all() for error in errors):
        raise NumericalError("An error of the knapsack is not finite.", "Compute in float32.")
    picked, proven = _solved(costs, errors, allowed)
    ranks = {layer.name: options[i][j][0] for i, (layer, j) in enumerate(zip(layers, picked, strict=True))}
    return Solution(ranks, float(sum(error[j] for error, j in zip(errors, picked, strict=True))), proven)


def gains(layers: Sequence[LinearShape], choices: Choices, ranks: Mapping[str, int]) -> dict[str, float]:
    """Error that each layer would lose per parameter on its way to the next larger choice; 0 where there is none.

    The order in which to spend what a plan leaves of its budget.
    """
    found = {}
    for layer in layers:
        rank, errors = ranks[layer.name], choices[layer.name]
        larger = min((other for other in errors if other > rank), default=rank)
        cost = layer_params(layer, larger) - layer_params(layer, rank)
        found[layer.name] = (errors[rank] - errors[larger]) / cost if cost else 0.0
    return found


def _solved(
    costs: Sequence[NDArray[np.int64]], errors: Sequence[NDArray[np.float64]], allowed: int
) -> tuple[list[int], bool]:
    """Index of the choice of every layer, and whether it is proven to be the best."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    sizes = [len(cost) for cost in costs]
    total, unit = sum(sizes), int(np.gcd.reduce(np.concatenate(costs)))
    one_each = csr_matrix((np.ones(total), (np.repeat(np.arange(len(sizes)), sizes), np.arange(total))))
    flat = np.concatenate([error - error.min() for error in errors])
    spent = csr_matrix(np.concatenate(costs)[None] / unit)
    limit = allowed // unit
    while True:
        result = milp(
            flat * (_LARGEST / max(flat.max(), 1e-300)),
            constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(spent, -np.inf, limit)],
            integrality=np.ones(total),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0.0, "time_limit": _SECONDS},
        )
        if result.x is None:
            raise NumericalError(f"The knapsack was not solved: {result.message}")
        picked = [int(part.argmax()) for part in np.split(result.x, np.cumsum(sizes)[:-1])]
        over = sum(int(cost[j]) for cost, j in zip(costs, picked, strict=True)) - allowed
        if over <= 0:
            return picked, result.status == 0
        limit -= -(-over // unit)  # the solver's tolerance let a hair more through than whole numbers allow
