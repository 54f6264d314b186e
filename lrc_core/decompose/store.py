"""Factors and spectra on disk: one safetensors file a block, read lazily layer by layer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lrc_core.decompose.factorise import Factors
from lrc_core.errors import ResourceError, RunError

_DONE = "complete.json"


class FactorStore:
    """The factors of every block linear of one model under one decomposition.

    Args:
        folder: where the files lie; created when first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def complete(self) -> bool:
        """Whether every block has been written."""
        return (self.folder / _DONE).exists()

    @property
    def description(self) -> dict[str, Any]:
        """What the factors were made from, as given to :meth:`finish`."""
        data: dict[str, Any] = json.loads((self.folder / _DONE).read_text(encoding="utf-8"))
        return data

    def has_block(self, block: int) -> bool:
        """Whether a block has been written (files appear whole or not at all)."""
        return self._file(block).exists()

    def write_block(self, block: int, factors: Mapping[str, Factors]) -> None:
        """Store one block's factors.

        Raises:
            ResourceError: the disk is full.
        """
        tensors = {
            f"{name}.{part}": getattr(found, part).contiguous().cpu()
            for name, found in factors.items()
            for part in ("left", "right", "sigma")
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self._file(block).with_suffix(".tmp")
        try:
            save_file(tensors, str(temporary))
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise ResourceError(
                f"Cannot write the factors of block {block} to {self.folder}: {error}.",
                "Free some disk space (`lrc doctor --clean` removes cached decompositions).",
            ) from error
        temporary.replace(self._file(block))

    def finish(self, description: Mapping[str, Any]) -> None:
        """Mark the store complete and say what it was made from."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / (_DONE + ".tmp")
        temporary.write_text(json.dumps(dict(description), indent=1), encoding="utf-8")
        temporary.replace(self.folder / _DONE)

    def factors(self, name: str, block: int) -> Factors:
        """Factors of one layer.

        Raises:
            RunError: the file is missing or damaged.
        """
        return Factors(*(self._tensor(name, block, part) for part in ("left", "right", "sigma")))

    def sigma(self, name: str, block: int) -> Tensor:
        """[r] singular values of one layer, descending."""
        return self._tensor(name, block, "sigma")

    def delete(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, block: int) -> Path:
        return self.folder / f"block-{block:04d}.safetensors"

    def _tensor(self, name: str, block: int, part: str) -> Tensor:
        path = self._file(block)
        try:
            with safe_open(str(path), "pt") as file:
                tensor: Tensor = file.get_tensor(f"{name}.{part}")
                return tensor
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"The cached factors of {name} in {path} cannot be read: {error}.",
                "Remove the cached decomposition (`lrc doctor --clean`) and run again.",
            ) from error


@dataclass(frozen=True)
class DiskCost:
    """What a decomposition will take on disk.

    Attributes:
        bytes: size of all factors in float32.
        free: free bytes where they will lie.
    """

    bytes: int
    free: int


def disk_cost(shapes: list[tuple[int, int]], folder: Path) -> DiskCost:
    """Size of full-rank factors, said before they are computed.

    Args:
        shapes: (m, n) of every layer.
        folder: where they will lie (its nearest existing parent is asked for free space).
    """
    size = sum((min(m, n) * (m + n) + min(m, n)) * torch.finfo(torch.float32).bits // 8 for m, n in shapes)
    parent = folder
    while not parent.exists():
        parent = parent.parent
    return DiskCost(size, shutil.disk_usage(parent).free)
