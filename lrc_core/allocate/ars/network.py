"""ARS's hypernetwork and its loss terms (NAACL 2024, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_INPUT, _HIDDEN = 32, 64


class Hypernetwork(nn.Module):
    """Logits of every layer's mask from fixed random inputs: GRU over layers, norm, GELU, one linear head a layer.

    Args:
        sizes: components of every layer, in the order of the layers.
        start: added to every logit.
        seed: of inputs and initial weights; the global random state is left alone.
    """

    inputs: Tensor

    def __init__(self, sizes: Sequence[int], start: float, seed: int) -> None:
        super().__init__()
        self.start = start
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.register_buffer("inputs", torch.randn(1, len(sizes), _INPUT))
            self.gru = nn.GRU(_INPUT, _HIDDEN, batch_first=True, bidirectional=True)
            self.norm = nn.LayerNorm(2 * _HIDDEN)
            self.heads = nn.ModuleList(nn.Linear(2 * _HIDDEN, size) for size in sizes)

    def forward(self) -> list[Tensor]:
        """[r] logits for every layer."""
        hidden = nn.functional.gelu(self.norm(self.gru(self.inputs)[0][0]))  # [layers, 2 hidden]
        return [head(state) + self.start for head, state in zip(self.heads, hidden, strict=True)]


def alignment(masks: Sequence[Tensor], energies: Sequence[Tensor]) -> Tensor:
    """R_align: mean over layers of sum ((m - m_sorted) sigma)^2 / sum sigma^2.

    m_sorted keeps as many components as m, the largest ones.

    Args:
        masks: [r] of every layer, 0 or 1 with a gradient.
        energies: [r] sigma^2 over its sum, of every layer.
    """
    parts = []
    for mask, energy in zip(masks, energies, strict=True):
        wanted = torch.zeros_like(mask, requires_grad=False)
        wanted[: int(mask.detach().sum())] = 1
        parts.append(((mask - wanted).square() * energy).sum())
    return torch.stack(parts).mean()


def ratio_penalty(share: Tensor, target: float) -> Tensor:
    """R(m) = log(max(T, pT) / pT) of the kept share T against the target pT; flat below it."""
    return torch.log(share.clamp_min(target) / target)
