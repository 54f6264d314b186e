"""The terms of LLRC's loss, each a pure function of tensors (arXiv 2512.13733, section 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_LOG_RATIO_FLOOR = 0.4  # p of the authors' code: below p times the target count the log-ratio loss is flat


def mean_logit(logits: Sequence[Tensor]) -> Tensor:
    """L_comp of the paper: the mean logit of every layer, averaged over layers. Unbounded below."""
    return torch.stack([part.mean() for part in logits]).mean()


def weighted_logit(logits: Sequence[Tensor], costs: Sequence[float]) -> Tensor:
    """L_comp with one price per parameter: the mean logit, every component weighted by the parameters it costs.

    The paper's mean over layers presses equally on every layer, hence nine times harder on a parameter of a 192 x 576
    layer than on one of a 1536 x 576 layer.

    Args:
        logits: [r] of every layer.
        costs: parameters of a component of every layer: m + n of a pair, max(m, n) of pivots.
    """
    weighted = torch.stack([part.sum() * cost for part, cost in zip(logits, costs, strict=True)]).sum()
    return weighted / sum(part.numel() * cost for part, cost in zip(logits, costs, strict=True))


def log_ratio(kept: Tensor, target: float) -> Tensor:
    """L_comp of the authors' code, from ARS: log(max(T, pT*)/(pT*)) of the kept share T against the target T*.

    Args:
        kept: scalar, differentiable share of parameters under the masks.
        target: share to keep.
    """
    floor = _LOG_RATIO_FLOOR * target
    return torch.log(kept.clamp_min(floor) / floor)


def total_variation(masks: Sequence[Tensor]) -> Tensor:
    """L_TV: mean of abs(m_{i+1} - m_i) in every layer, summed over layers."""
    return torch.stack([part.diff().abs().mean() for part in masks]).sum()


def oscillating_alpha(step: int, low: float, high: float, period: int) -> float:
    """Cyclical annealing of the compression weight: a cosine from ``high`` to ``low`` and back every ``period``."""
    return low + (high - low) * 0.5 * (1 + math.cos(2 * math.pi * step / period))
