"""A linear of 8-bit weights that PyTorch has a kernel for on processors: the one quantised form that can be timed."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RowwiseInt8(nn.Module):
    """y = scale * (x W^T) + bias with W in whole numbers of 8 bits, a scale for each row; computed in bfloat16.

    Args:
        weight: [m, n] int8.
        scale: [m].
        bias: [m] or None.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale.to(torch.bfloat16), requires_grad=False)
        self.bias = bias

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., n] to [..., m]."""
        rows = inputs.flatten(0, -2).to(torch.bfloat16)
        product: Tensor = torch._weight_int8pack_mm(rows, self.weight, self.scale)
        outputs = product.to(inputs.dtype).unflatten(0, inputs.shape[:-1])
        return outputs if self.bias is None else outputs + self.bias


def rowwise_int8(weight: Tensor, bias: Tensor | None) -> RowwiseInt8:
    """The nearest whole numbers to a weight [m, n], each row over its largest entry."""
    scale = weight.float().abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return RowwiseInt8((weight.float() / scale[:, None]).round().to(torch.int8), scale, bias)
