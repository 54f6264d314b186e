"""Rounding matrices to a number format and back, on the exact grids of llama.cpp (by gguf-py). torch at the edges only.

A row whose width is no multiple of the block is padded with zeros, and the padding is stored: it counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrc_core.errors import NumericalError
from lrc_core.formats.grids import BF16, Format

Array = NDArray[np.float32]


def packed(matrix: Array, form: Format) -> NDArray[np.uint8]:
    """A matrix as it lies in a file.

    Args:
        matrix: [m, n] float32.

    Returns:
        [m, bytes of a row].

    Raises:
        NumericalError: a number is not finite.
    """
    from gguf import GGMLQuantizationType, quants

    if not np.isfinite(matrix).all():
        raise NumericalError("A matrix that is to be rounded holds a number that is not finite.", "Check the model.")
    spare = -matrix.shape[1] % form.block
    padded = np.pad(matrix, ((0, 0), (0, spare))) if spare else matrix
    found: NDArray[np.uint8] = quants.quantize(
        np.ascontiguousarray(padded, dtype=np.float32), GGMLQuantizationType[form.name.upper()]
    )
    return found


def unpacked(data: NDArray[np.uint8], form: Format, width: int) -> Array:
    """The numbers of a packed matrix, [m, width] float32, without the padding."""
    from gguf import GGMLQuantizationType, quants

    found: Array = quants.dequantize(data, GGMLQuantizationType[form.name.upper()])
    return np.ascontiguousarray(found[:, :width])


def blocks_of(matrix: Any, form: Format) -> Any:
    """A torch matrix [m, n] as a block format stores it: uint8 [m, blocks of a row, bytes of a block], on the CPU.

    Raises:
        NumericalError: a number is not finite.
    """
    import torch

    data = packed(matrix.detach().float().cpu().numpy(), form)
    return torch.from_numpy(data).view(len(data), -1, form.block_bytes)


def from_blocks(blocks: Any, form: Format, width: int) -> Any:
    """The numbers [m, width] that blocks stand for; float32, on the CPU."""
    import torch

    return torch.from_numpy(unpacked(blocks.flatten(1).numpy(), form, width))


def on_grid(matrix: Any, form: Format) -> Any:
    """A torch matrix [m, n] on the grid of a format, in the dtype and on the device that it had.

    In ``bf16`` it stays as it is: 16 bits are what a model is held in, or would be.

    Raises:
        NumericalError: a number is not finite.
    """
    if form is BF16:
        return matrix
    return from_blocks(blocks_of(matrix, form), form, matrix.shape[1]).to(matrix.device, matrix.dtype)
