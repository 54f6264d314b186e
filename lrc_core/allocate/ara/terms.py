"""Masks, loss terms and the finish of ARA, each a pure function (arXiv 2510.19389, section 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lrc_core.budget import break_even, dense_ranks, largest_low_rank, rank_of_share
from lrc_core.types import LinearShape


def cut_rank(layer: LinearShape, reach: float) -> int:
    """r0, the components that are kept for training: ``reach`` times break-even, at most all of them."""
    return min(layer.full_rank, math.ceil(reach * break_even(layer) - 1e-9))


def staircase_levels(count: int) -> Tensor:
    """c [count]: 1, ..., 0 in equal steps."""
    return torch.tensor([(count - 1 - i) / (count - 1) for i in range(count)])


def stairs_above(components: int, count: int) -> Tensor:
    """[components]: for component j (from 1) the last level i with j <= floor(r0 c_i).

    M_ij = 1[j <= floor(r0 c_i)] does not increase in i, so column j of p^T M is the cumulated probability up to that
    level, and the matrix is never made.
    """
    reached = [components * (count - 1 - i) // (count - 1) for i in range(count)]
    return torch.tensor([sum(j <= rank for rank in reached) - 1 for j in range(1, components + 1)])


def starting_theta(share: float, count: int) -> Tensor:
    """[count] logits of two heights whose mean level is ``share`` exactly.

    Levels from the share up have one height, those below it another; the mass w of the upper ones solves
    w mean(upper) + (1 - w) mean(lower) = share.

    Args:
        share: a in (0, 1).
        count: number of levels.
    """
    levels = [(count - 1 - i) / (count - 1) for i in range(count)]
    upper, lower = [c for c in levels if c >= share], [c for c in levels if c < share]
    high, low = sum(upper) / len(upper), sum(lower) / len(lower)
    mass = (share - low) / (high - low)
    heights = [math.log(mass / len(upper))] * len(upper) + [math.log((1 - mass) / len(lower))] * len(lower)
    return torch.tensor(heights)


def straight_through(soft: Tensor, rank: int) -> Tensor:
    """The first ``rank`` components on, with the gradient of the probabilities ``soft`` [r0]."""
    hard = torch.zeros_like(soft, requires_grad=False)
    hard[:rank] = 1
    # The difference first: it is exactly zero, and the mask exactly 0 or 1.
    return hard + (soft - soft.detach())


def counted_shares(ratios: Tensor, latch: bool) -> Tensor:
    """min(R, 1) of every layer; without the latch with the gradient of R, so that dense layers feel the budget too."""
    capped = ratios.clamp(max=1)
    return capped if latch else capped.detach() + (ratios - ratios.detach())


def budget_term(kept: Tensor, params: Tensor, target: float) -> Tensor:
    """(sum P R / sum P - target)^2.

    Args:
        kept: [layers] R, at most 1.
        params: [layers] P.
        target: share to keep.
    """
    return ((kept * params).sum() / params.sum() - target).square()


def guidance_term(ratios: Tensor, errors: Tensor) -> Tensor:
    """Mean over layers of (1 - R) where R > 1 - g, with R at most 1 (equation of the full-rank guidance loss).

    Args:
        ratios: [layers] R.
        errors: [layers] g, root of the discarded share of sigma^2 at the layer's rank.
    """
    capped = ratios.clamp(max=1)
    return ((1 - capped) * (capped.detach() > 1 - errors)).mean()


def guidance_errors(sigma: Tensor) -> Tensor:
    """g at every rank 0..r: the root of the share of sigma^2 that is discarded there, [r + 1]."""
    energy = sigma.double().square()
    discarded = torch.cat([energy.flip(0).cumsum(0).flip(0), energy.new_zeros(1)])
    return (discarded / energy.sum().clamp_min(1e-300)).sqrt().float()


def running_ranks(layers: Sequence[LinearShape], ratios: Mapping[str, float]) -> dict[str, int]:
    """What a plan would store now: a layer at R >= 1 is dense, any other keeps its rounded rank below break-even."""
    full = dense_ranks(layers)
    return {
        layer.name: full[layer.name]
        if ratios[layer.name] >= 1
        else _low_rank(layer, round(rank_of_share(layer, ratios[layer.name])))
        for layer in layers
    }


def final_ranks(
    layers: Sequence[LinearShape], ratios: Mapping[str, float], keep: float, dense_above: float
) -> tuple[dict[str, int], float]:
    """Ranks that meet a target: nearly dense layers become dense, all others are scaled by one factor.

    f = 1 - (R_total - target) sum P / sum over compressed layers of P R.

    Args:
        ratios: learned R of every layer.
        keep: the target.
        dense_above: R from which a layer is stored dense.

    Returns:
        Floored ranks, and f. Where dense layers alone exceed the target f is negative and every other layer is at
        rank 1.
    """
    low = [layer for layer in layers if ratios[layer.name] < dense_above]
    compressed = sum(layer.params * ratios[layer.name] for layer in low)
    total = sum(layer.params for layer in layers)
    dense = total - sum(layer.params for layer in low)
    if not low:
        return dense_ranks(layers), 1.0
    factor = 1 - (compressed + dense - keep * total) / compressed
    ranks = dense_ranks(layers)
    for layer in low:
        ranks[layer.name] = _low_rank(
            layer, math.floor(rank_of_share(layer, max(0.0, factor * ratios[layer.name])) + 1e-9)
        )
    return ranks, factor


def _low_rank(layer: LinearShape, rank: int) -> int:
    return max(1, min(rank, largest_low_rank(layer)))
