"""Figures of one spectrum, from singular values alone, and of two subspaces. numpy only, so that pages can call it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrc_core.errors import NumericalError

Spectrum = NDArray[np.float64] | NDArray[np.float32]
_FEW, _STEEP = 50, 6.0  # a fitted tail below and an exponent above these say little
_CRITICAL = 1.094  # of Stephens' modified distance for an exponential distribution with estimated mean, at 5 %


def cumulative_energy(sigma: Spectrum) -> NDArray[np.float64]:
    """Share of sum sigma^2 held by the first 1..r values, [r]; all ones for a zero matrix."""
    energy = np.cumsum(np.asarray(sigma, dtype=np.float64) ** 2)
    return energy / energy[-1] if energy.size and energy[-1] > 0 else np.ones_like(energy)


def energy_kept(sigma: Spectrum, rank: int) -> float:
    """Share of sum sigma^2 held by the first ``rank`` values."""
    return 0.0 if rank <= 0 else float(cumulative_energy(sigma)[min(rank, len(sigma)) - 1])


def energy_rank(sigma: Spectrum, share: float) -> int:
    """Smallest rank that holds at least ``share`` of the energy."""
    return int(np.searchsorted(cumulative_energy(sigma), share - 1e-12) + 1)


def half_square(sigma: Spectrum) -> NDArray[np.float64]:
    """What dropping each component costs, where the decomposition says that in nats (``loss_in_nats``)."""
    return 0.5 * np.square(np.asarray(sigma, dtype=np.float64))


def stable_rank(sigma: Spectrum) -> float:
    """sum sigma^2 / sigma_1^2: at most the rank, insensitive to tiny values."""
    values = np.asarray(sigma, dtype=np.float64)
    return float((values**2).sum() / values[0] ** 2) if values.size and values[0] > 0 else 0.0


def effective_rank(sigma: Spectrum) -> float:
    """exp of the entropy of sigma / sum sigma (Roy and Vetterli 2007)."""
    values = np.asarray(sigma, dtype=np.float64)
    total = values.sum()
    if total <= 0:
        return 0.0
    shares = values[values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def condition_number(sigma: Spectrum) -> float:
    """sigma_1 / sigma_r: by how much a matrix stretches some directions more than others; inf where sigma_r is 0."""
    values = np.asarray(sigma, dtype=np.float64)
    return float(values[0] / values[-1]) if values.size and values[-1] > 0 else float("inf")


@dataclass(frozen=True)
class PowerLaw:
    """A power law fitted to the tail of a spectrum's eigenvalues lambda = sigma^2: density ~ lambda^-alpha.

    Attributes:
        alpha: exponent; nan where nothing could be fitted. Does not depend on the scale of the spectrum.
        error: standard error of alpha, were the eigenvalues independent (they are not quite).
        tail: eigenvalues in the tail.
        distance: Kolmogorov-Smirnov distance between the tail and the fit, 0 to 1.
        warning: why the exponent should not be trusted; "" where nothing speaks against it.
    """

    alpha: float
    error: float
    tail: int
    distance: float
    warning: str = ""


def power_law(sigma: Spectrum, *, shortest_tail: int = 10) -> PowerLaw:
    """Exponent of the tail of a spectrum, as WeightWatcher reports it (Martin and Mahoney 2021).

    Clauset, Shalizi and Newman 2009: for a tail that begins at lambda_min the most likely exponent is
    1 + n / sum log(lambda / lambda_min) (eq. 3.1); of all beginnings the one with the smallest Kolmogorov-Smirnov
    distance is taken (eq. 3.9). Well-trained layers are said to have exponents of 2 to 6, heavier tails smaller ones.

    Any spectrum has a best fit. It comes with a warning where

    - the tail holds fewer than 50 values (their rule of thumb for a reliable exponent; a short tail fits anything),
    - the distance is too large. A tail that follows a power law has exponentially distributed logarithms, so
      Stephens' (1974) test for an exponential distribution with estimated mean applies, at 5 %; it replaces Clauset's
      simulations and, as the beginning was chosen to fit, rejects too rarely rather than too often,
    - the exponent is above 6: no heavy tail (a random matrix has such a fit).

    Args:
        sigma: [r] singular values, any order; zeros are ignored.
        shortest_tail: smallest number of values that a tail may have.
    """
    values = np.asarray(sigma, dtype=np.float64)
    logs = np.sort(2 * np.log(values[values > 0]))[::-1]  # of the eigenvalues, descending
    fits = _tail_fits(logs, max(2, shortest_tail))
    if not fits.size:
        nan = float("nan")
        return PowerLaw(nan, nan, len(logs), nan, "too few different values to fit a power law")
    alphas, distances, counts = fits
    best = int(distances.argmin())
    alpha, distance, tail = float(alphas[best]), float(distances[best]), int(counts[best])
    root = np.sqrt(tail)
    statistic = (distance - 0.2 / tail) * (root + 0.26 + 0.5 / root)  # Stephens 1974
    reasons = []
    if tail < _FEW:
        reasons.append(f"only {tail} values in the tail")
    if statistic > _CRITICAL:
        reasons.append(f"the tail is no power law (distance {distance:.2f})")
    if alpha > _STEEP:
        reasons.append("no heavy tail")
    return PowerLaw(alpha, (alpha - 1) / float(root), tail, distance, "; ".join(reasons))


def _tail_fits(logs: NDArray[np.float64], shortest: int) -> NDArray[np.float64]:
    """Exponent, distance and size of every tail of descending log eigenvalues: [3, tails], or empty."""
    found = []
    sums = np.cumsum(logs)
    for count in range(shortest, len(logs) + 1):
        start = logs[count - 1]
        if count < len(logs) and logs[count] == start:
            continue  # a tail takes all values equal to its smallest
        total = sums[count - 1] - count * start
        if total <= 1e-12 * count:
            continue  # all values of the tail are equal
        # Descending values have the empirical shares 1 - i/n just above and 1 - (i+1)/n just below.
        above = np.exp(-(logs[:count] - start) * count / total)
        steps = np.arange(count) / count
        distance = np.maximum(np.abs(above - steps), np.abs(steps + 1 / count - above)).max()
        found.append((1 + count / total, distance, count))
    return np.array(found).T


def principal_angles(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Angles between two subspaces in radians, ascending, [min(k1, k2)] (Bjorck and Golub 1973).

    Args:
        first: [n, k1], orthonormal columns.
        second: [n, k2], orthonormal columns of the same length.

    Raises:
        NumericalError: the bases do not fit together, or their columns are not orthonormal.
    """
    one, two = _basis(first), _basis(second)
    if one.shape[0] != two.shape[0]:
        raise NumericalError(f"Bases of {one.shape[0]} and {two.shape[0]} rows have no angles between them.")
    if one.shape[1] < two.shape[1]:
        one, two = two, one
    inner = one.T @ two  # [larger, smaller]
    cosines = np.clip(np.linalg.svd(inner, compute_uv=False), 0, 1)
    # Cosines near 1 do not tell small angles apart; the sines of what lies outside the larger space do.
    sines = np.clip(np.linalg.svd(two - one @ inner, compute_uv=False)[::-1], 0, 1)
    return np.where(cosines**2 < 0.5, np.arccos(cosines), np.arcsin(sines))


def subspace_overlap(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Mean squared cosine of the principal angles: 1 where the smaller space lies in the larger, 0 at right angles.

    Two random subspaces of n dimensions overlap by max(k1, k2) / n on average: that is what to compare with.

    Args:
        first: [n, k1], orthonormal columns; the leading singular vectors of a layer, for instance.
        second: [n, k2], orthonormal columns of the same length.

    Raises:
        NumericalError: the bases do not fit together, or their columns are not orthonormal.
    """
    return float((np.cos(principal_angles(first, second)) ** 2).mean())


def _basis(columns: NDArray[Any]) -> NDArray[np.float64]:
    found = np.asarray(columns, dtype=np.float64)
    if found.ndim != 2 or not 1 <= found.shape[1] <= found.shape[0]:
        raise NumericalError(f"A basis needs 1 to n columns of length n; it is {found.shape}.")
    if np.abs(found.T @ found - np.eye(found.shape[1])).max() > 1e-3:
        raise NumericalError("The columns of a basis are not orthonormal.", "Take them from a QR decomposition.")
    return found
