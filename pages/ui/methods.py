"""The registries, filled: importing this registers every method and decomposition. Loads no torch."""

from __future__ import annotations

import lrc_core.allocate
import lrc_core.decompose
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS

GREY = "#7b8c94"


def method_label(name: str) -> str:
    """The registered label; ``Dense``, or the name for a method that this version does not know."""
    return ALLOCATORS.get(name).label if name in ALLOCATORS else {"dense": "Dense"}.get(name, name)


def method_color(name: str) -> str:
    """The registered colour; grey for the dense model and for unknown methods."""
    return ALLOCATORS.get(name).color if name in ALLOCATORS else GREY


def learns(name: str) -> bool:
    """Whether a method trains, and so records plans on its way."""
    return name in ALLOCATORS and ALLOCATORS.get(name).learns


def decomposition_label(name: str) -> str:
    """The registered label; the name for a decomposition that this version does not know."""
    return DECOMPOSITIONS.get(name).label if name in DECOMPOSITIONS else name


def decomposition_color(name: str) -> str:
    """The registered colour; grey for a decomposition that this version does not know."""
    return DECOMPOSITIONS.get(name).color if name in DECOMPOSITIONS else GREY


__all__ = [
    "ALLOCATORS",
    "DECOMPOSITIONS",
    "GREY",
    "decomposition_color",
    "decomposition_label",
    "learns",
    "lrc_core",
    "method_color",
    "method_label",
]
