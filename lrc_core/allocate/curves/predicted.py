"""Predicted loss of dropping each component, before anything is compressed; shared by allocators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrc_core.allocate.protocol import Context
from lrc_core.decompose import IN_NATS
from lrc_core.decompose.measures import half_square

CURVES = ("auto", "sigma", "sensitivity")
CURVE_HELP = (
    "sigma: half the discarded sigma^2, which is a loss on the two-sided decomposition only; sensitivity: the "
    "measured Fisher information of every component, on any decomposition; auto: sigma where it is a loss."
)


@dataclass(frozen=True)
class Measuring:
    """How sensitivity is measured where sigma^2 is no loss.

    Attributes:
        batches: how many are read.
        batch: windows in one.
        window: tokens in a window.
    """

    batches: int
    batch: int
    window: int


def predicted_losses(context: Context, curve: str, measuring: Measuring) -> dict[str, NDArray[np.float64]]:
    """For every layer [r]: predicted loss, in nats per token, of dropping each component.

    Args:
        curve: one of :data:`CURVES`.
        measuring: used by ``sensitivity`` only.
    """
    if curve == "auto":
        curve = "sigma" if context.decomposition in IN_NATS else "sensitivity"
    if curve == "sigma":
        return {
            layer.name: half_square(context.source.sigma(layer.name, layer.block).double().cpu().numpy())
            for layer in context.layers
        }
    return _measured(context, measuring)


def _measured(context: Context, measuring: Measuring) -> dict[str, NDArray[np.float64]]:
    from lrc_core.allocate.curves.sensitivity import component_sensitivity  # torch
    from lrc_core.lowrank.apply import compute_factors

    windows = context.windows(measuring.batches * measuring.batch, measuring.window, context.seed)
    factors = {layer.name: compute_factors(context.model, layer, context.source) for layer in context.layers}
    return component_sensitivity(context, factors, windows.split(measuring.batch))
