"""What is probed, and on what. No torch; shared by allocators."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ProbeText:
    """What probes run on, and how they look at it.

    Attributes:
        windows: how many token windows.
        window: tokens in each.
        temperature: divides the logits before the divergence.
        offset: positions at the start of a window that the divergence leaves out.
    """

    windows: int
    window: int
    temperature: float = 1.0
    offset: int = 0

    @property
    def skipped(self) -> int:
        """Positions left out of every window: the offset, or an eighth of a window that is no longer than it.

        An eighth is the share that 256 of 2048 tokens are.
        """
        return self.offset if self.window > self.offset else self.window // 8

    @property
    def file_name(self) -> str:
        """One file for all probes of one kind."""
        return f"probes-{self.windows}x{self.window}-t{self.temperature:g}-from{self.skipped}.jsonl"


def ratio_grid(lowest: float, highest: float, step: float) -> list[float]:
    """Ratios from the lowest to the highest, ascending; the lowest alone where the highest is below it."""
    count = math.floor((highest - lowest) / step + 1e-6) + 1
    return [round(lowest + i * step, 6) for i in range(max(count, 1))]
