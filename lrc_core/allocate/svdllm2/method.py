"""SVD-LLM V2's heterogeneous compression ratios (arXiv 2503.12340, section 3.1).

All matrices of one kind (query, key, value, output, gate, up, down) are a group, and every group loses the same share
R of its parameters. Within a group each matrix is first imagined at the uniform rank; L is its theoretical truncation
loss there, the Frobenius norm of the output error, which is the root of the discarded sum of sigma^2. The removed
share of matrix i is then R len(group) (1/log L_i) / sum_j (1/log L_j): the more a truncation costs, the less is
removed, but only as the logarithm of the cost.

Where the paper is silent:

- The logarithm depends on the unit of L. The paper's is the sum over its calibration set, 256 windows of 2,048 tokens;
  spectra here are means over tokens, so they are scaled by that many (``tokens``). Squared or not makes no difference:
  log L^2 = 2 log L. Spectra that are not output errors (of the weight itself, of the loss) are treated alike, the
  number then being no more than a unit.
- A loss at or below 1 has no positive logarithm, and one just above 1 would take all of the group's reduction. So
  where the smallest loss of a group is below e, the group's losses are expressed in a unit in which it is exactly e:
  the smallest logarithm of a group is never below 1, the order of the losses always decides the order of the removed
  shares, and nothing jumps as a loss passes 1 or e. A group that loses nothing at all is cut uniformly.
- A matrix cannot lose more than leaves it rank 1; what it cannot lose is taken from the others of its group in
  proportion. Matrices of one kind but different sizes are weighted by their parameters.
- The rule never calls for a dense layer; only rounding to the budget can leave one.

The paper's other half, two eigendecompositions in place of Cholesky's, changes how factors are computed and not the
ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrc_core.allocate.curves.waterfill import by_kind, filled
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import (
    fit_budget,
    kept_share,
    layer_params,
    removed_share,
    uniform_ranks,
    whole_rank_of_share,
)
from lrc_core.decompose import ALL
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.settings import setting
from lrc_core.types import LinearShape


@dataclass(frozen=True)
class SvdLlm2Settings:
    """Settings of SVD-LLM V2."""

    tokens: int = setting(
        256 * 2048,
        "Tokens of the loss",
        "The loss is a sum over that many tokens; the paper calibrates on 256 windows of 2,048. More tokens make all "
        "logarithms larger, and so the plan more uniform.",
        minimum=1,
    )


ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="svdllm2",
        label="SVD-LLM V2",
        summary="Removes less from layers that a uniform cut would hurt more, kind by kind; needs the spectra only.",
        source="arXiv 2503.12340, section 3.1",
        color="#7a68a6",
        implementation="lrc_core.allocate.svdllm2.method:allocate",
        settings_class=SvdLlm2Settings,
        layer_local=ALL,
    )
)


def allocate(context: Context, settings: SvdLlm2Settings) -> Allocation:
    """SVD-LLM V2's ranks; see :class:`~lrc_core.allocate.protocol.Allocator`."""
    losses = {}
    for layer in context.layers:
        rank = uniform_ranks([layer], context.keep)[layer.name]
        sigma = np.asarray(context.source.sigma(layer.name, layer.block), dtype=np.float64)
        losses[layer.name] = math.sqrt(settings.tokens * float((sigma[rank:] ** 2).sum()))
    removed = removed_shares(context.layers, losses, context.keep)
    ranks = {
        # The largest rank that costs at most what the layer keeps.
        layer.name: whole_rank_of_share(layer, kept_share(removed[layer.name]))
        for layer in context.layers
    }
    return Allocation(
        fit_budget(context.layers, ranks, context.keep), details={"losses": losses, "removed_shares": removed}
    )


def removed_shares(layers: Sequence[LinearShape], losses: Mapping[str, float], keep: float) -> dict[str, float]:
    """Share of every layer to remove, in [0, 1).

    Args:
        losses: theoretical truncation loss of every layer at the uniform rank, not negative.
    """
    found: dict[str, float] = {}
    for group in by_kind(layers).values():
        params = np.array([layer.params for layer in group], dtype=np.float64)
        most = np.array([max(0, layer.params - layer_params(layer, 1)) for layer in group], dtype=np.float64)
        weights = params / logarithms(np.array([losses[layer.name] for layer in group]))
        removed = filled(weights, removed_share(keep) * params.sum(), np.zeros(len(group)), most)
        found.update(zip((layer.name for layer in group), (removed / params).tolist(), strict=True))
    return found


def logarithms(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """log L of a group, in a unit in which the smallest is at least 1.

    A loss of exactly 0 counts as 1e-12 of the group's largest; all ones where every loss is 0.
    """
    largest = losses.max()
    if largest <= 0:
        return np.ones_like(losses)
    logs = np.log(np.maximum(losses, 1e-12 * largest))
    found: NDArray[np.float64] = logs + max(0.0, 1.0 - float(logs.min()))
    return found
