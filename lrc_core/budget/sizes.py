"""A size as a share kept, a share removed or a percent: the only place where one becomes another.

``keep`` is the share of the block linears' parameters kept; the interface shows what is removed, in percent.
"""

from __future__ import annotations

USUAL_KEEP = 0.8
"""The share kept that is shown where nobody chose one."""


def removed_share(keep: float) -> float:
    """Share removed where ``keep`` is kept."""
    return 1 - keep


def kept_share(removed: float) -> float:
    """Share kept where ``removed`` is removed."""
    return 1 - removed


def removed_percent(keep: float) -> float:
    """Percent removed where ``keep`` is kept, without the noise of the subtraction: 0.93 -> 7.0."""
    return round(100 * (1 - keep), 6)


def whole_percent(keep: float) -> int:
    """Whole percent removed, by which recorded plans are named and sliders move: 0.8 -> 20."""
    return round(100 * (1 - keep))


def keep_at(percent: float) -> float:
    """Share kept where so many percent are removed, the very number that a user types: 7 -> 0.93 (1 - 0.07 is not)."""
    return size_key(1 - percent / 100)


def size_key(share: float) -> float:
    """A share to the digits that tell sizes apart, to group by."""
    return round(float(share), 6)


def same_size(one: float, other: float) -> bool:
    """Whether two shares are the same target; both kept or both removed."""
    return abs(one - other) < 1e-6


def within(achieved: float, keep: float) -> bool:
    """Whether what a plan keeps is within a target."""
    return achieved < keep or same_size(achieved, keep)


def same_percent(one: float, other: float) -> bool:
    """Whether what was recorded at a whole percent stands for a target: at most half a percent lies between."""
    return abs(one - other) < 0.0051
