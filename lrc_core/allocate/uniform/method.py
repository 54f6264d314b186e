"""Uniform: the same share of every layer. The baseline of every paper."""

from __future__ import annotations

from dataclasses import dataclass

from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import fit_budget, uniform_ranks
from lrc_core.decompose import ALL
from lrc_core.registry import ALLOCATORS, MethodEntry


@dataclass(frozen=True)
class UniformSettings:
    """No settings."""


ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="uniform",
        label="Uniform",
        summary="Keeps the same share of every layer; what is lost to rounding is spent one rank at a time.",
        source="k = floor(keep * mn/(m+n))",
        color="#999999",
        implementation="lrc_core.allocate.uniform.method:allocate",
        settings_class=UniformSettings,
        arithmetic=True,
        layer_local=ALL,
    )
)


def allocate(context: Context, _: UniformSettings) -> Allocation:
    """Uniform ranks; see :class:`~lrc_core.allocate.protocol.Allocator`."""
    return Allocation(fit_budget(context.layers, uniform_ranks(context.layers, context.keep), context.keep))
