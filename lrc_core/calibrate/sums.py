"""Sums of the outer products of rows, [n, n]: what second moments of inputs and of gradients are collected in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_STRIP = 512
"""Rows of the sum that are added to at once: beside a sum of 8192 x 8192 this needs 0.05 GB, all at once 0.8 GB."""

_FEW = 256
"""Rows whose copies stay in a processor's cache."""


@contextmanager
def exact_products(dtype: torch.dtype) -> Iterator[None]:
    """Let products of numbers that ARE bfloat16 run on bfloat16 units with float32 sums: as exact, and 2.7x as fast."""
    before = torch.get_float32_matmul_precision()
    if dtype == torch.bfloat16:
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def square_sum(features: int, device: torch.device) -> Tensor:
    """Zeros [n, n] to add to, in float64 where the device has it."""
    wide = torch.float32 if device.type == "mps" else torch.float64
    return torch.zeros(features, features, dtype=wide, device=device)


def add_square(total: Tensor, rows: Tensor) -> None:
    """Add rows^T rows to what lies on and above the diagonal of a sum; the rest is unspecified until :func:`mirror`.

    Args:
        total: [n, n] of :func:`square_sum`.
        rows: [tokens, n]; multiplied in float32, or as they are if they are bfloat16.
    """
    wide = rows.float()
    with exact_products(rows.dtype):
        for start in range(0, len(total), _STRIP):
            total[start : start + _STRIP, start:] += wide[:, start : start + _STRIP].T @ wide[:, start:]


def add_absolute(total: Tensor, rows: Tensor) -> None:
    """Add the absolute values of rows [tokens, n] to sums [n]; a few rows at once is eight times as fast as all."""
    for some in rows.split(_FEW):
        total += some.float().abs().sum(0)


def add_products(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left^T right to a sum [m, n], every part of it; [tokens, m] and [tokens, n] of one dtype."""
    one, two = left.float(), right.float()
    with exact_products(left.dtype):
        for start in range(0, len(total), _STRIP):
            total[start : start + _STRIP] += one[:, start : start + _STRIP].T @ two


def mirror(total: Tensor) -> Tensor:
    """The same matrix with what lies below its diagonal equal to what lies above, in place."""
    for start in range(0, len(total), _STRIP):
        end = start + _STRIP
        total[end:, start:end] = total[start:end, end:].T
    return total
