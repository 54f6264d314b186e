"""The registries, filled, and what their entries are called. Loads no torch."""

from __future__ import annotations

from lrc_core.names import (
    GREY,
    decomposition_color,
    decomposition_label,
    in_order,
    learns,
    method_color,
    method_label,
    split_variant,
)
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS

__all__ = [
    "ALLOCATORS",
    "DECOMPOSITIONS",
    "GREY",
    "decomposition_color",
    "decomposition_label",
    "in_order",
    "learns",
    "method_color",
    "method_label",
    "split_variant",
]
