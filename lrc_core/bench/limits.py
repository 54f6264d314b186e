"""What a device can do at most, and which of that a pass of a model needs most: launches, bytes or arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from lrc_core.lowrank.timing import seconds_of

_LARGE, _SQUARE, _LAUNCHES, _TRIES = 8192, 1536, 200, 5


@dataclass(frozen=True)
class Rates:
    """The best of a few tries on this device, in this precision.

    Attributes:
        bytes_per_s: read by a product of one row with a matrix beyond every cache.
        flops_per_s: of a product of two square matrices, two for a multiplication.
        launch_s: one operation on a handful of numbers.
    """

    bytes_per_s: float
    flops_per_s: float
    launch_s: float


@dataclass(frozen=True)
class Need:
    """What one pass of a model needs.

    Attributes:
        bytes: read from memory: weights once, the cache once.
        flops: two for a multiplication.
        launches: operations.
    """

    bytes: int
    flops: int
    launches: int

    def floors(self, rates: Rates) -> dict[str, float]:
        """Seconds that each of them takes alone at the device's best."""
        return {
            "launch": self.launches * rates.launch_s,
            "bytes": self.bytes / rates.bytes_per_s,
            "arithmetic": self.flops / rates.flops_per_s,
        }

    def limit(self, rates: Rates) -> str:
        """Which of them takes longest."""
        floors = self.floors(rates)
        return max(floors, key=lambda name: floors[name])


@torch.no_grad()
def measured_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Measure a device; takes a second or two."""
    row, large = (
        torch.ones(1, _LARGE, device=device, dtype=dtype),
        torch.ones(_LARGE, _LARGE, device=device, dtype=dtype),
    )
    square, few = (torch.ones(size, size, device=device, dtype=dtype) for size in (_SQUARE, 8))
    reading = _best(lambda: functional.linear(row, large), device)
    multiplying = _best(lambda: torch.mm(square, square), device)
    launching = _best(lambda: [functional.linear(few, few) for _ in range(_LAUNCHES)], device)
    return Rates(large.numel() * large.element_size() / reading, 2 * _SQUARE**3 / multiplying, launching / _LAUNCHES)


def _best(action: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest try."""
    return min(seconds_of(action, device) for _ in range(_TRIES))


class Launches(TorchDispatchMode):
    """Counts the operations that reach the device inside a with-block; views do not."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))
