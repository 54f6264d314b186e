"""How a matrix of rank k may be stored, and what that costs.

A rank-k matrix W of m x n has k(m+n-k) degrees of freedom. **Pairs**, W = L R, store k(m+n) numbers: L can be
multiplied by any invertible k x k matrix from the right and R by its inverse from the left, so k*k of them say nothing.
**Pivots** make that block the identity: k of the rows of W are stored as they are, and each of the other m-k as its
k coefficients in them (PIFA, arXiv 2501.19090; SkipCat, arXiv 2512.13494). That costs k(m+n-k) numbers and k small
indices, is the same matrix, and costs mn at full rank: below full rank it always saves.

The formulas take and give plain numbers, arrays and tensors alike, so that a loss can be differentiated through them.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from lrc_core.errors import BudgetError
from lrc_core.types import Storage


class StorageLaw(Protocol):
    """What a layer of m rows and n columns costs at rank k. Multiplications per token are as many as parameters."""

    @property
    def name(self) -> Storage:
        """As plans and command lines have it."""

    @property
    def label(self) -> str:
        """As the interface shows it."""

    @property
    def summary(self) -> str:
        """What is stored, in a sentence."""

    def params(self, m: int, n: int, rank: Any) -> Any:
        """Parameters at a rank, also where they are more than mn."""

    def slope(self, m: int, n: int, rank: Any) -> Any:
        """Derivative of :meth:`params` with respect to the rank."""

    def dense_from(self, m: int, n: int) -> float:
        """The rank, whole or not, at which the cost is mn: break-even for pairs, min(m, n) for pivots."""

    def rank_of_share(self, m: int, n: int, share: float) -> float:
        """The rank, whole or not, whose cost is that share of mn; the inverse of :meth:`params`."""

    def indices(self, rank: int) -> int:
        """Small whole numbers stored beside the parameters."""


class _Pair:
    """k(m+n)."""

    name: Storage = "pair"
    label = "Pairs"
    summary = "Two factors, k(m + n) parameters: what papers count. Saves below rank mn / (m + n)."

    def params(self, m: int, n: int, rank: Any) -> Any:
        return rank * (m + n)

    def slope(self, m: int, n: int, rank: Any) -> Any:
        return rank * 0 + (m + n)

    def dense_from(self, m: int, n: int) -> float:
        return m * n / (m + n)

    def rank_of_share(self, m: int, n: int, share: float) -> float:
        return share * self.dense_from(m, n)

    def indices(self, rank: int) -> int:
        return 0


class _Pivoted:
    """k(m+n-k)."""

    name: Storage = "pivoted"
    label = "Pivots"
    summary = "k of the rows, and the others as combinations of them: k(m + n - k) parameters. Saves at every rank."

    def params(self, m: int, n: int, rank: Any) -> Any:
        return rank * (m + n - rank)

    def slope(self, m: int, n: int, rank: Any) -> Any:
        return m + n - 2 * rank

    def dense_from(self, m: int, n: int) -> float:
        return float(min(m, n))

    def rank_of_share(self, m: int, n: int, share: float) -> float:
        # The smaller root of k^2 - (m+n)k + share mn, in the form that loses no digits where the share is small.
        product = min(share, 1.0) * m * n
        return 2 * product / (m + n + math.sqrt((m + n) ** 2 - 4 * product))

    def indices(self, rank: int) -> int:
        return rank


LAWS: dict[str, StorageLaw] = {law.name: law for law in (_Pair(), _Pivoted())}
"""By name, in the order in which they are offered."""


def storage_law(name: str) -> StorageLaw:
    """A law by name.

    Raises:
        BudgetError: there is no such law; names those there are.
    """
    try:
        return LAWS[name]
    except KeyError:
        raise BudgetError(f"There is no storage {name[:60]!r}.", f"Known: {', '.join(LAWS)}.") from None
