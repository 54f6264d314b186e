"""Factors and spectra of a whole model on disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lrc_core.budget import factor_params, stored
from lrc_core.decompose.blockfiles import BlockFiles
from lrc_core.decompose.factorise import Factors
from lrc_core.types import LinearShape

_PARTS = ("left", "right", "sigma")


class FactorStore(BlockFiles):
    """The factors of every block linear of one model under one decomposition, read layer by layer."""

    def write_factors(self, block: int, factors: Mapping[str, Factors]) -> None:
        """Store one block's factors, by full module name.

        Raises:
            ResourceError: the disk is full.
        """
        self.write(
            block, {f"{name}.{part}": getattr(found, part) for name, found in factors.items() for part in _PARTS}
        )

    def factors(self, name: str, block: int) -> Factors:
        """Factors of one layer at every rank.

        Raises:
            RunError: the file is missing or damaged.
        """
        return Factors(*(self.read(block, f"{name}.{part}") for part in _PARTS))

    def sigma(self, name: str, block: int) -> Tensor:
        """[r] singular values of one layer, descending."""
        return self.read(block, f"{name}.sigma")


@dataclass(frozen=True)
class DiskCost:
    """What a decomposition takes on disk.

    Attributes:
        bytes: size of all factors in float32.
        free: free bytes where they will lie.
    """

    bytes: int
    free: int


def disk_cost(layers: Sequence[LinearShape], folder: Path) -> DiskCost:
    """Size of the full-rank factors of a model, said before they are computed.

    Args:
        folder: where the factors will lie (its nearest existing parent is asked for free space).
    """
    pairs = stored(layers, "pair")
    numbers = sum(factor_params(layer, layer.full_rank) + layer.full_rank for layer in pairs)
    parent = folder
    while not parent.exists():
        parent = parent.parent
    return DiskCost(4 * numbers, shutil.disk_usage(parent).free)
