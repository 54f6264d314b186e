"""D-Rank: ranks from the effective rank of every spectrum (arXiv 2509.25622).

A layer's information density e is its effective rank, the exponential of the entropy of its energy shares
sigma^2 / sum sigma^2, taken from the decomposition in use (the paper's is the whitened one). With w = m + n parameters
a rank, minimising sum e/k under sum w k = B gives k = sqrt(e/w) B / sum sqrt(e w).

How the formula is applied, in the authors' code and here to single matrices:

- Every kind of matrix (query, ..., down) has a budget of its own, the same share of each (``scope=kind``); the formula
  then divides it among the blocks. ``scope=model`` divides one budget among all matrices.
- The authors may decompose several blocks together, to share a basis. Here every matrix stands alone, its group size 1,
  which is also how they treat what they do not share (attention output and down).
- Query and key then give a share of what they have to value (``rebalance``), in equal parts for all blocks. The
  authors' code takes 0.2 for LLaMA and Llama 2 and 0.1 with grouped-query attention. What value layers cannot take up
  goes back to where it came from. Families with one fused matrix for all three have nothing to rebalance.
- No matrix is given more than its dense cost, which is rank break-even; the formula knows no such limit (the code
  clips ranks to min(m, n), beyond which nothing is gained but parameters are lost). A clipped layer's surplus goes to
  the others by the same formula, and that layer stays dense: the optimum of the same problem with limits.
- The code also falls back to uniform ranks for a kind where these discard less sigma^2, and always for gate. That is
  not done here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrc_core.allocate.curves.waterfill import by_kind, filled
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import fit_budget, layer_params, params_per_rank, whole_rank_of_share
from lrc_core.decompose import ALL
from lrc_core.decompose.measures import effective_rank
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.settings import setting
from lrc_core.types import LinearShape

_QUERY_KEY = ("q_proj", "k_proj", "query", "key", "q", "k", "wq", "wk")
_VALUE = ("v_proj", "value", "v", "wv")


@dataclass(frozen=True)
class DrankSettings:
    """Settings of D-Rank."""

    scope: str = setting(
        "kind",
        "Budget of",
        "kind: every kind of matrix (query, ..., down) keeps the same share and divides it among its blocks (the "
        "authors'); model: all matrices divide one budget.",
        choices=("kind", "model"),
    )
    rebalance: float = setting(
        0.2,
        "Rebalancing",
        "Share of their parameters that query and key give to value: 0.2 in the authors' code, 0.1 for models with "
        "grouped-query attention, 0 is off.",
        minimum=0,
        maximum=0.9,
    )


ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="drank",
        label="D-Rank",
        summary="Gives more rank to layers whose energy is spread over more directions; needs the spectra only.",
        source="arXiv 2509.25622",
        color="#8c6d31",
        implementation="lrc_core.allocate.drank.method:allocate",
        settings_class=DrankSettings,
        layer_local=ALL,
    )
)


def allocate(context: Context, settings: DrankSettings) -> Allocation:
    """D-Rank's ranks; see :class:`~lrc_core.allocate.protocol.Allocator`."""
    density = {
        # float64 before the square: the smallest values would underflow otherwise.
        layer.name: effective_rank(np.asarray(context.source.sigma(layer.name, layer.block), dtype=np.float64) ** 2)
        for layer in context.layers
    }
    costs = density_costs(context.layers, density, context.keep, scope=settings.scope)
    costs = rebalanced(context.layers, costs, settings.rebalance)
    return Allocation(_fitted(context.layers, density, costs, context.keep), details={"effective_ranks": density})


def density_costs(
    layers: Sequence[LinearShape], density: Mapping[str, float], keep: float, *, scope: str = "kind"
) -> dict[str, float]:
    """Parameters for every layer by the closed form, between rank 1 and dense, before they are whole ranks.

    Args:
        density: effective rank of every layer.
        scope: ``kind`` (a budget for each kind of matrix) or ``model``.
    """
    costs: dict[str, float] = {}
    for group in by_kind(layers).values() if scope == "kind" else (layers,):
        lower, upper = _limits(group)
        weights = np.array([math.sqrt(density[la.name] * params_per_rank(la, 0)) for la in group])
        shares = filled(weights, keep * upper.sum(), lower, upper)
        costs.update(zip((layer.name for layer in group), shares.tolist(), strict=True))
    return costs


def rebalanced(layers: Sequence[LinearShape], costs: Mapping[str, float], share: float) -> dict[str, float]:
    """Take a share of what query and key layers have and spread it evenly over the value layers.

    A value layer takes what it needs to be dense at most; the even raise of the others grows by what it leaves. What
    no value layer can take goes back to the givers in proportion to what they gave. The total stays what it was.

    Args:
        costs: parameters of every layer.
        share: what query and key give, 0 to 1; no layer falls below rank 1.
    """
    found = dict(costs)
    givers = [layer for layer in layers if layer.kind.split(".")[-1] in _QUERY_KEY]
    takers = [layer for layer in layers if layer.kind.split(".")[-1] in _VALUE]
    if not (givers and takers and share > 0):
        return found
    given = {la.name: min(share * found[la.name], max(0.0, found[la.name] - layer_params(la, 1))) for la in givers}
    room = np.array([max(0.0, layer.params - found[layer.name]) for layer in takers])
    raises = filled(np.ones(len(takers)), sum(given.values()), np.zeros(len(takers)), room)
    for layer, more in zip(takers, raises.tolist(), strict=True):
        found[layer.name] += more
    taken = float(raises.sum()) / max(sum(given.values()), 1e-300)
    for name, amount in given.items():
        found[name] -= taken * amount
    return found


def _limits(layers: Sequence[LinearShape]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lower = np.array([layer_params(layer, 1) for layer in layers], dtype=np.float64)
    return lower, np.array([layer.params for layer in layers], dtype=np.float64)


def _fitted(
    layers: Sequence[LinearShape], density: Mapping[str, float], costs: Mapping[str, float], keep: float
) -> dict[str, int]:
    """Whole ranks within the budget; the remainder goes first to where one more rank lowers sum e/k the most."""
    ranks, gain = {}, {}
    for layer in layers:
        if costs[layer.name] >= layer.params * (1 - 1e-9):
            ranks[layer.name] = layer.full_rank
        else:
            ranks[layer.name] = whole_rank_of_share(layer, costs[layer.name] / layer.params)
        rank = ranks[layer.name]
        gain[layer.name] = density[layer.name] / (rank * (rank + 1) * max(1, params_per_rank(layer, rank)))
    return fit_budget(layers, ranks, keep, gain)
