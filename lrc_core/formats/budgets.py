"""Budgets other than parameters, as the user says them.

In bytes: a share of the block linears' bytes in 16 bits, or megabytes of the model. In time: a share of what the block
linears take dense on this device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lrc_core.errors import BudgetError
from lrc_core.formats.sizes import rest_bytes, whole_bytes
from lrc_core.types import LinearShape, ModelCard

SHARE, MEGABYTES, LATENCY = "bytes", "mb", "latency"
BOTH, BITS, RANKS = "both", "bits", "ranks"
VARY_WORDS = {BOTH: "ranks and formats", BITS: "formats alone", RANKS: "ranks alone"}
VARY = tuple(VARY_WORDS)
"""What a method may choose within bytes: ranks and number formats, formats of dense layers, or ranks in 16 bits."""
_REMEDY = "Say bytes:0.45 (a share of the block linears' bytes in 16 bits) or mb:250 (megabytes of the whole model)."


@dataclass(frozen=True)
class ByteBudget:
    """A budget in bytes.

    Attributes:
        unit: :data:`SHARE` or :data:`MEGABYTES`.
        value: a share in (0, 1], or megabytes of 10^6 bytes.
    """

    unit: str
    value: float

    def __str__(self) -> str:
        """As it is read."""
        return f"{self.unit}:{self.value:g}"

    @property
    def words(self) -> str:
        """``45 % of the bytes``, ``250 MB``."""
        return f"{100 * self.value:g} % of the bytes" if self.unit == SHARE else f"{self.value:g} MB"

    def allowed(self, card: ModelCard) -> int:
        """Bytes that the block linears of a model may take.

        Raises:
            BudgetError: what is not a block linear takes all of it; says how much that is.
        """
        if self.unit == SHARE:
            return math.floor(self.value * whole_bytes(card.layers) + 1e-6)
        rest = rest_bytes(card)
        left = math.floor(self.value * 1e6) - rest
        if left <= 0:
            raise BudgetError(
                f"{self.value:g} MB are too few: embeddings, head and norms of this model, which are kept in 16 bits, "
                f"take {rest / 1e6:.1f} MB.",
                "Allow more.",
            )
        return left


def byte_budget(text: str) -> ByteBudget:
    """A budget from its words.

    Raises:
        BudgetError: an unknown unit, or a value that is no share or no size.
    """
    unit, _, number = text.strip().partition(":")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    most = 1.0 if unit == SHARE else math.inf
    if unit not in (SHARE, MEGABYTES) or not (math.isfinite(value) and 0 < value <= most):
        raise BudgetError(f"{text[:60]!r} is no budget in bytes.", _REMEDY)
    return ByteBudget(unit, value)


def latency_share(text: str) -> float | None:
    """The share of ``latency:0.7``, of the time that the block linears take dense; None of a budget in bytes.

    Raises:
        BudgetError: what stands there is no share.
    """
    unit, _, number = text.strip().partition(":")
    if unit != LATENCY:
        return None
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if not (math.isfinite(share) and 0 < share <= 1):
        raise BudgetError(f"{text[:60]!r} is no budget in time.", "Say latency:0.7, a share of what dense layers take.")
    return share


def budget_words(text: str) -> str:
    """Any budget in words: ``45 % of the bytes``, ``250 MB``, ``70 % of the time``.

    Raises:
        BudgetError: it is none.
    """
    share = latency_share(text)
    return byte_budget(text).words if share is None else f"{100 * share:g} % of the time"


def require_reach(smallest: int, allowed: int, layers: Sequence[LinearShape]) -> None:
    """Refuse a budget that the smallest choices are above.

    Args:
        smallest: bytes of the block linears at the smallest choices.
        allowed: bytes that they may take.

    Raises:
        BudgetError: says the smallest possible share.
    """
    if smallest > allowed:
        whole = whole_bytes(layers)
        least = math.ceil(1e4 * smallest / whole) / 1e4
        raise BudgetError(
            f"{allowed / whole:.4f} of the block linears' bytes are too few: the smallest possible is {least:g}.",
            f"Ask for at least bytes:{least:g}.",
        )
