"""Figures of one spectrum, from singular values alone. numpy only, so that pages can call them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Spectrum = NDArray[np.float64] | NDArray[np.float32]


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
