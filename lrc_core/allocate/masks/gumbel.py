"""Binary masks that can be trained: the straight-through Gumbel-sigmoid and its noise."""

from __future__ import annotations

import torch
from torch import Tensor

_SATURATED = 1e-3  # share of the largest slope of a sigmoid below which its gradient is not computed


def gumbel_sigmoid(logits: Tensor, noise: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Straight-through Gumbel-sigmoid: 0 or 1 forward, the gradient of the sigmoid backward.

    Args:
        logits: [r].
        noise: [r].
        temperature: tau > 0.

    Returns:
        The mask [r], and the probabilities [r] that it was rounded from, without gradient.
    """
    soft = torch.sigmoid((logits + noise) / temperature)
    probabilities = soft.detach()
    hard = (probabilities > 0.5).to(soft.dtype)
    # The difference first: it is exactly zero, and the mask exactly 0 or 1.
    return hard + (soft - probabilities), probabilities


def undecided(probabilities: Tensor) -> Tensor:
    """[r] booleans: components whose sigmoid is not saturated, so that its gradient is worth computing.

    A component at probability p passes on p(1-p)/tau of its gradient; where that is below a thousandth of the largest
    possible slope it is left out.
    """
    return probabilities * (1 - probabilities) > _SATURATED * 0.25


def on_probability(logits: Tensor, kind: str) -> Tensor:
    """[r] probabilities that a draw of noise switches a component on: P(logit + noise > 0).

    1 - exp(-exp(logit)) with one Gumbel variable, sigmoid(logit) with the difference of two; without noise 0 or 1.
    """
    if kind == "none":
        return (logits > 0).to(logits.dtype)
    return -torch.expm1(-logits.exp()) if kind == "gumbel" else torch.sigmoid(logits)


def draw_noise(kind: str, size: int, generator: torch.Generator) -> Tensor:
    """[size] float32 noise on the CPU: ``gumbel`` (one variable), ``logistic`` (the difference of two) or ``none``."""
    if kind == "none":
        return torch.zeros(size)
    first = torch.empty(size).exponential_(generator=generator).log_().neg_()
    if kind == "gumbel":
        return first
    return first - torch.empty(size).exponential_(generator=generator).log_().neg_()
