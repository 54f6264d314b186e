"""Where LLRC's logits start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lrc_core.allocate.curves.loss_curves import component_prices, dropping_order
from lrc_core.allocate.curves.sensitivity import component_sensitivity
from lrc_core.allocate.llrc.settings import LlrcSettings
from lrc_core.allocate.protocol import Context


def starting_logits(
    context: Context,
    settings: LlrcSettings,
    factors: Mapping[str, tuple[Tensor, Tensor]],
    batches: Sequence[Tensor],
) -> list[Tensor]:
    """Logits of every layer, all positive: training starts at full rank.

    ``linear``: from ``ramp_high`` for the largest singular value to ``ramp_low`` for the smallest, in every layer.
    ``sensitivity``: a component that would go at compression rate c, were components dropped in the order of their
    measured price, starts at ``ramp_low + (ramp_high - ramp_low) * c``. A steady pressure then frees parameters at a
    steady pace, and components that are only worth dropping together stand together.
    Returns [r] float32 on the CPU for every layer.
    """
    high, low = settings.ramp_high, settings.ramp_low
    if settings.ramp == "linear":
        return [torch.linspace(high, low, layer.full_rank) for layer in context.layers]
    losses = component_sensitivity(context, factors, batches)
    prices = {layer.name: component_prices(layer, losses[layer.name]) for layer in context.layers}
    rates = dropping_order(context.layers, prices)
    return [low + (high - low) * torch.from_numpy(rates[layer.name]).float() for layer in context.layers]
