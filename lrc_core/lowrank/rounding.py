"""Linears whose matrices are rounded to a number format: the forward pass runs on the numbers that come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lrc_core.formats.grids import Format
from lrc_core.formats.rounding import blocks_of, from_blocks
from lrc_core.models.blocks.linears import bias_of, weight_of

_PACKED = "packed"


@dataclass(frozen=True)
class Packed:
    """What the matrices of a rounded layer are stored as.

    Attributes:
        form: the format.
        parts: by parameter of the layer, uint8 [rows, blocks of a row, bytes of a block], on the CPU.
    """

    form: Format
    parts: Mapping[str, Tensor]


def packed_in(module: nn.Module) -> Packed | None:
    """What a layer is stored as; None where it is not rounded, or where that was let go."""
    found: Packed | None = vars(module).get(_PACKED)
    return found


def let_go(module: nn.Module) -> None:
    """Forget what a layer is stored as, which takes up to half of what its numbers take in 16 bits."""
    vars(module).pop(_PACKED, None)


def round_into(module: nn.Module, form: Format, **parts: Tensor) -> None:
    """Put matrices into a layer as the numbers that come back of a format, and remember what they are stored as.

    Args:
        module: the layer; its parameters keep their dtype and device.
        parts: [m, n] by parameter.
    """
    vars(module)[_PACKED] = Packed(form, {name: blocks_of(part, form) for name, part in parts.items()})
    unpack_into(module)


@torch.no_grad()
def unpack_into(module: nn.Module) -> None:
    """Set what a layer computes with to the numbers that it is stored as, in the dtype that it has now."""
    if (packed := packed_in(module)) is not None:
        for name, blocks in packed.parts.items():
            parameter, turned = module.get_parameter(name), isinstance(module, Conv1D)
            numbers = from_blocks(blocks, packed.form, parameter.shape[0 if turned else 1])
            numbers = numbers.T.contiguous() if turned else numbers
            parameter.data = numbers.to(parameter.device, parameter.dtype)


def rounded_linear(module: nn.Module, form: Format) -> nn.Module:
    """A dense linear with its weight on the grid of a format, of the same class, dtype and device as the original.

    Args:
        module: nn.Linear or Conv1D, whose rows [out, in] are cut into blocks; left as it is.
    """
    weight, bias = weight_of(module), bias_of(module)
    rows, width = weight.shape
    with torch.device("meta"):
        made = Conv1D(rows, width) if isinstance(module, Conv1D) else nn.Linear(width, rows, bias=bias is not None)
    made.weight = nn.Parameter(module.get_parameter("weight"), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    round_into(made, form, weight=weight)
    return made.train(module.training)


def unit_columns(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product of factors [m, k] and [k, n], with columns of length 1 in ``left``, before they are rounded.

    Components share the scale of a block in the left factor, and there only those of one length are rounded alike. A
    component of zeros stays as it is.
    """
    lengths = torch.linalg.vector_norm(left, dim=0)
    lengths = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
    return left / lengths, right * lengths[:, None]
