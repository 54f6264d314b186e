"""The number formats that a matrix can be stored in, and what they take. No torch, no numpy.

A block format of llama.cpp cuts every row into blocks of 32 numbers and keeps a scale, sometimes a lowest value as
well, for each block. Its bits per weight count those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lrc_core.errors import UnknownNameError


@dataclass(frozen=True)
class Format:
    """How the numbers of a matrix are stored.

    Attributes:
        name: as llama.cpp calls it.
        block: numbers that share a scale; 1 where every number stands for itself.
        block_bytes: what a block takes, its scale included.
    """

    name: str
    block: int
    block_bytes: int

    @property
    def bits(self) -> float:
        """Bits a weight, in rows of whole blocks."""
        return 8 * self.block_bytes / self.block

    def fits(self, width: int) -> bool:
        """Whether rows of that width are whole blocks, which llama.cpp asks of every matrix."""
        return width % self.block == 0

    def bytes_of(self, rows: Any, width: Any) -> Any:
        """Bytes of a matrix, or of arrays of them; a row's last block counts whole, however little of it is used."""
        return rows * -(-width // self.block) * self.block_bytes


BF16 = Format("bf16", 1, 2)
"""16 bits: what the other formats are compared with."""
Q8_0, Q5_1, Q4_0 = Format("Q8_0", 32, 34), Format("Q5_1", 32, 24), Format("Q4_0", 32, 18)
FORMATS = {found.name: found for found in (BF16, Q8_0, Q5_1, Q4_0)}
QUANTISED = (Q8_0.name, Q5_1.name, Q4_0.name)
"""Formats of fewer than 16 bits, the largest first."""


def format_named(name: str) -> Format:
    """The format of that name, in upper or lower case.

    Raises:
        UnknownNameError: lists the known ones.
    """
    for found in FORMATS.values():
        if found.name.lower() == name.lower():
            return found
    raise UnknownNameError(f"There is no number format {name[:60]!r}.", f"Known: {', '.join(FORMATS)}.")


def method_of(name: str) -> str:
    """Name of a row in which every block linear is stored in a format: ``q8_0``."""
    return name.lower()


METHODS = tuple(map(method_of, QUANTISED))
"""The names of such rows, for all formats."""


def check_formats(names: Iterable[str]) -> None:
    """Refuse formats that are not known, and 16 bits, which is the dense model itself.

    Raises:
        UnknownNameError: names it.
    """
    for name in names:
        if format_named(name) is BF16:
            raise UnknownNameError(f"{BF16.name} is the dense model itself.", f"Choose among {', '.join(QUANTISED)}.")
