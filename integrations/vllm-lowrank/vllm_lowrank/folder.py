"""What ``quantization_config`` of an exported folder says of its layers, and what of it vLLM cannot run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm_lowrank.blocks import BLOCK_BYTES
from vllm_lowrank.errors import RefusedFolderError

FORMATS = (1, 2)
"""Versions of the format that are read; the second has packed layers."""
STORAGES = ("pair", "pivoted")


@dataclass(frozen=True)
class FolderMatrix:
    """One linear of the model as the folder holds it.

    Attributes:
        name: in the folder, such as ``model.layers.0.self_attn.q_proj``.
        rows: m of its matrix [m, n].
        rank: k of its factors; None of a matrix that is stored whole.
        pivoted: whether its factors are pivot rows and coefficients.
        form: the format that its matrices are packed in; "" where they are plain.
    """

    name: str
    rows: int
    rank: int | None = None
    pivoted: bool = False
    form: str = ""

    @property
    def inner(self) -> int:
        """Rows of what is multiplied with the input: k, or m of a whole matrix."""
        return self.rows if self.rank is None else self.rank

    @property
    def outer(self) -> tuple[int, int] | None:
        """Shape of what is multiplied with that; None of a whole matrix."""
        return None if self.rank is None else (self.rows - self.rank * self.pivoted, self.rank)


@dataclass(frozen=True)
class FolderLayout:
    """The layers that are not stored as their architecture has them.

    Attributes:
        storage: ``pair`` or ``pivoted``.
        ranks: by name in the folder.
        pairs: layers that are pairs where the others are pivoted.
        packed: format by name, of layers of low rank and of whole ones.
    """

    storage: str
    ranks: Mapping[str, int]
    pairs: frozenset[str] = frozenset()
    packed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_block(cls, block: Mapping[str, Any]) -> FolderLayout:
        """Read the block.

        Raises:
            RefusedFolderError: it asks for something that vLLM cannot run, or this package cannot read.
        """
        _refuse(block)
        ranks = {str(name): int(rank) for name, rank in dict(block.get("ranks", {})).items()}
        packed = {str(name): str(form) for name, form in dict(block.get("packed", {})).items()}
        return cls(str(block.get("storage", "pair")), ranks, frozenset(block.get("pairs", ())), packed)

    def touches(self, names: Sequence[str]) -> bool:
        """Whether one of the layers is stored in a way of its own."""
        return any(name in self.ranks or name in self.packed for name in names)

    def matrix(self, name: str, rows: int) -> FolderMatrix:
        """How a layer of that many outputs is stored."""
        rank = self.ranks.get(name)
        pivoted = rank is not None and self.storage == "pivoted" and name not in self.pairs
        return FolderMatrix(name, rows, rank, pivoted, self.packed.get(name, ""))

    def renamed(self, rename: Callable[[str], str]) -> FolderLayout:
        """The same with other names, where a program calls the model's layers otherwise than its files do."""
        return FolderLayout(
            self.storage,
            {rename(name): rank for name, rank in self.ranks.items()},
            frozenset(map(rename, self.pairs)),
            {rename(name): form for name, form in self.packed.items()},
        )

    def parts_of(
        self, prefix: str, fused: Mapping[str, Sequence[str]], rows: Sequence[int]
    ) -> list[FolderMatrix] | None:
        """What one layer of vLLM holds, in the order of its outputs; None where all of it is stored as usual.

        Args:
            prefix: the layer's name in vLLM, such as ``model.layers.0.self_attn.qkv_proj``.
            fused: leaves of names in the folder by the leaf of the layer that vLLM makes of them.
            rows: outputs of each part.

        Raises:
            RefusedFolderError: the files and vLLM divide the layer in ways that do not fit.
        """
        names = names_of(prefix, fused)
        if not self.touches(names):
            return None
        if len(names) == 1 and prefix.rpartition(".")[2] in fused:  # one matrix in the files, in the order of vLLM's
            rows = [sum(rows)]
        if len(names) != len(rows):
            raise RefusedFolderError(
                f"{prefix} is {len(names)} layers in the folder and {len(rows)} in vLLM, which does not say how their "
                "rows are ordered."
            )
        return [self.matrix(name, count) for name, count in zip(names, rows, strict=True)]


def names_of(prefix: str, fused: Mapping[str, Sequence[str]]) -> list[str]:
    """Names in the folder of the layers that one layer of vLLM holds."""
    parent, dot, leaf = prefix.rpartition(".")
    return [f"{parent}{dot}{name}" for name in fused.get(leaf, [leaf])]


def _refuse(block: Mapping[str, Any]) -> None:
    if (version := block.get("format")) not in FORMATS:
        raise RefusedFolderError(
            f"The folder has version {version} of the low-rank format; this package reads 1 and 2.",
            "Install the vllm-lowrank that belongs to the program that wrote it.",
        )
    if (storage := block.get("storage", "pair")) not in STORAGES:
        raise RefusedFolderError(f"The folder stores its layers as {storage!r}; {' and '.join(STORAGES)} are known.")
    if pruned := block.get("pruned"):
        raise RefusedFolderError(
            f"{len(pruned)} layers of the folder are pruned ({next(iter(pruned))} for one); vLLM gives every block "
            "the same number of heads and channels."
        )
    if unknown := sorted(set(dict(block.get("packed", {})).values()) - set(BLOCK_BYTES)):
        raise RefusedFolderError(f"Layers are packed as {', '.join(unknown)}; {', '.join(BLOCK_BYTES)} are known.")
    if block.get("experts"):
        raise RefusedFolderError("The folder is a mixture of experts; vLLM's kernels want them stacked and whole.")
