"""Linears whose matrices are rounded to a number format: the forward pass runs on the numbers that come back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrc_core.formats.grids import BF16, Format
from lrc_core.formats.rounding import on_grid
from lrc_core.models.blocks.linears import bias_of, weight_of


def rounded_linear(module: nn.Module, form: Format) -> nn.Linear:
    """A dense linear with its weight on the grid of a format, in the dtype and on the device of the original.

    Args:
        module: nn.Linear or Conv1D, whose rows [out, in] are cut into blocks; left as it is.
        form: the format.
    """
    weight, bias = on_grid(weight_of(module), form), bias_of(module)
    with torch.device("meta"):
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made.train(module.training)


def rounded_pair(left: Tensor, right: Tensor, form: Format) -> tuple[Tensor, Tensor]:
    """A pair of factors on the grid of a format.

    The components of the left factor are first brought to one length, which the right one takes over: components share
    the scale of a block in the left factor, and there only those of one length are rounded alike.

    Args:
        left: [m, k], float32.
        right: [k, n].
        form: the format.
    """
    if form is BF16:
        return left, right
    left, right = balanced(left, right)
    return on_grid(left, form), on_grid(right, form)


def balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product, with columns of length 1 in ``left`` [m, k]; a component of zeros stays as it is."""
    lengths = torch.linalg.vector_norm(left, dim=0)
    lengths = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
    return left / lengths, right * lengths[:, None]
