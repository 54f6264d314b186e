"""Matrices in the block formats of llama.cpp (Q8_0, Q5_1, Q4_0), and the numbers that they stand for."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK, BLOCK_BYTES = 32, {"Q8_0": 34, "Q5_1": 24, "Q4_0": 18}
"""Numbers that share a scale, and what they take; a row's last block is filled up with zeros."""


def numbers_of(blocks: Tensor, form: str, width: int) -> Tensor:
    """The numbers [m, width] of a packed matrix, uint8 [m, blocks of a row, bytes of a block]; float32.

    Raises:
        ValueError: a number is not finite, so the file is damaged.
    """
    halves = blocks[..., : 4 if form == "Q5_1" else 2].contiguous().view(torch.float16).float()
    scale, lowest = halves[..., :1], halves[..., 1:]
    if form == "Q8_0":
        numbers = scale * blocks[..., 2:].contiguous().view(torch.int8)
    else:
        levels = torch.cat([blocks[..., -16:] & 15, blocks[..., -16:] >> 4], -1).float()
        numbers = scale * (levels + 16 * _fifth_bits(blocks)) + lowest if form == "Q5_1" else scale * (levels - 8)
    if not numbers.isfinite().all():
        raise ValueError(f"Blocks of {form} hold numbers that are not finite. Copy the folder again.")
    return numbers.flatten(1)[:, :width]


def _fifth_bits(blocks: Tensor) -> Tensor:
    places = torch.arange(8, dtype=torch.uint8, device=blocks.device)
    return (blocks[..., 4:8, None] >> places & 1).flatten(-2)
