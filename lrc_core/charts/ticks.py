"""Where the ticks of an axis stand. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that span a range, about ``count`` of them."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(step * number, 10) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten around a range; powers of ten alone where the range is wide."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors: Sequence[float] = (1, 2, 5) if last - first <= 3 else (1,)
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    start = max((number for number, tick in enumerate(ticks) if tick <= low * 1.0001), default=0)
    end = next((number for number, tick in enumerate(ticks) if tick >= high * 0.9999), len(ticks) - 1)
    return ticks[start : end + 1]
