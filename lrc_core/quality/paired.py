"""Is one model better than another on the SAME windows and items? Exact and paired tests. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LEVEL = 0.05
"""Below it a p-value is more than chance."""
_DRAWS = 20_000


@dataclass(frozen=True)
class Paired:
    """A difference between two models and how sure it is.

    Attributes:
        difference: of the first minus the second: accuracy, or log-perplexity in nats.
        stderr: its standard error over pairs; None with fewer than two.
        p: two-sided p-value of "no difference".
        pairs: items or windows.
    """

    difference: float
    stderr: float | None
    p: float
    pairs: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def mcnemar(one: Sequence[int], other: Sequence[int]) -> Paired:
    """Exact McNemar test: under "no difference" each item that only one model gets right is a fair coin.

    p = min(1, 2 P[Binomial(b + c, 1/2) <= min(b, c)]), b and c being the items that only the first and only the
    second model gets right (McNemar 1947; the exact form is a sign test).

    Args:
        one: 0 or 1 for every item.
        other: of the other model, in the same order.

    Raises:
        ValueError: the lists differ in length or are empty.
    """
    values = _differences(one, other)
    gained, lost = int((values > 0).sum()), int((values < 0).sum())
    return Paired(float(values.mean()), _stderr(values), sign_test(gained, lost), len(values))


def mean_accuracy(tasks: Mapping[str, tuple[Sequence[int], Sequence[int]]]) -> Paired:
    """The difference of two models' mean accuracy over tasks, paired within each task.

    With equally many items in every task the mean is that of all items and McNemar's test is exact. Otherwise a task
    with fewer items weighs more an item, and the distribution under "no difference" (every discordant item a fair
    coin) is drawn 20,000 times.

    Args:
        tasks: outcomes of both models by task.

    Raises:
        ValueError: no tasks, or lists that do not match.
    """
    if not tasks:
        raise ValueError("no tasks")
    values = [_differences(one, other) for one, other in tasks.values()]
    difference = float(np.mean([part.mean() for part in values]))
    errors = [_stderr(part) for part in values]
    known = [error for error in errors if error is not None]
    stderr = math.sqrt(sum(error**2 for error in known)) / len(values) if len(known) == len(values) else None
    count = sum(len(part) for part in values)
    if len({len(part) for part in values}) == 1:
        gained, lost = (sum(int((part == sign).sum()) for part in values) for sign in (1, -1))
        return Paired(difference, stderr, sign_test(gained, lost), count)
    generator = np.random.default_rng(0)
    drawn = np.zeros(_DRAWS)
    for part in values:
        coins = int((part != 0).sum())
        drawn += (2.0 * generator.binomial(coins, 0.5, _DRAWS) - coins) / len(part) / len(values)
    extreme = int((np.abs(drawn) >= abs(difference) - 1e-12).sum())
    return Paired(difference, stderr, (extreme + 1) / (_DRAWS + 1), count)


def log_perplexity(one: Sequence[float], other: Sequence[float], tokens: Sequence[int]) -> Paired:
    """Paired t-test of log-perplexity over windows.

    The difference is sum(l1 - l2) / sum(tokens); its standard error is that of a ratio estimate, which with windows of
    equal length is the usual paired one.

    Args:
        one: summed loss of every window in nats.
        other: of the other model on the same windows.
        tokens: scored tokens of every window.

    Raises:
        ValueError: lists of different length, or empty.
    """
    count = len(tokens)
    if not count or len(one) != count or len(other) != count:
        raise ValueError(f"windows do not match: {len(one)}, {len(other)}, {count}")
    weights = np.asarray(tokens, dtype=np.float64)
    values = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    difference = float(values.sum() / weights.sum())
    if count < 2:
        return Paired(difference, None, 1.0, count)
    rest = values - difference * weights
    stderr = float(math.sqrt(count / (count - 1) * float((rest**2).sum())) / weights.sum())
    return Paired(difference, stderr, t_test(difference, stderr, count - 1), count)


def _differences(one: Sequence[int], other: Sequence[int]) -> np.ndarray:
    if not len(one) or len(one) != len(other):
        raise ValueError(f"items do not match: {len(one)} and {len(other)}")
    return np.asarray(one, dtype=np.int64) - np.asarray(other, dtype=np.int64)


def _stderr(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def sign_test(gained: int, lost: int) -> float:
    """Two-sided p = min(1, 2 P[Binomial(gained + lost, 1/2) <= min(gained, lost)])."""
    coins = gained + lost
    if not coins:
        return 1.0
    ways = tail = 1  # of exactly, and of at most, that many heads; whole numbers, each from the one before
    for heads in range(min(gained, lost)):
        ways = ways * (coins - heads) // (heads + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**coins)


def normal_test(value: float, stderr: float | None) -> float | None:
    """Two-sided p-value of "no difference" where a standard error is all that is known; None where not even that is."""
    if stderr is None:
        return None
    return math.erfc(abs(value) / stderr / math.sqrt(2)) if stderr else float(not value)


def t_test(value: float, stderr: float, freedom: int) -> float:
    """Two-sided p-value of "no difference" of a mean with so many degrees of freedom."""
    if stderr <= 1e-15 * max(1.0, abs(value)):
        return 1.0 if abs(value) < 1e-12 else 0.0
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(value / stderr)))
