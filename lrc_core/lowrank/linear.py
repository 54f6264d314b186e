"""A linear layer of low rank: as a pair of factors, or as pivot rows and coefficients."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrc_core.lowrank.pivots import output_rows


def product(inputs: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """``functional.linear``, [..., n] by [m, n] to [..., m], and one token on a processor as matrix times vector.

    In 16 bits that reads a matrix up to 1.4 times as fast, and comes to the same numbers (docs/speed.md).
    """
    if inputs.numel() != inputs.shape[-1] or inputs.device.type != "cpu":
        return functional.linear(inputs, matrix, bias)
    token = inputs.reshape(-1)
    outputs = torch.mv(matrix, token) if bias is None else torch.addmv(bias, matrix, token)
    return outputs.view(*inputs.shape[:-1], -1)


class LowRankLinear(nn.Module):
    """y = (x right^T) left^T + bias.

    Args:
        left: [m, k].
        right: [k, n].
        bias: [m] or None; never compressed.
    """

    def __init__(self, left: Tensor, right: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.left = nn.Parameter(left, requires_grad=False)
        self.right = nn.Parameter(right, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def in_features(self) -> int:
        """n."""
        return self.right.shape[1]

    @property
    def out_features(self) -> int:
        """m."""
        return self.left.shape[0]

    @property
    def rank(self) -> int:
        """k."""
        return self.left.shape[1]

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., n] to [..., m]."""
        return product(product(inputs, self.right), self.left, self.bias)

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"


class PivotedLinear(nn.Module):
    """y_P = rows x, y_rest = coefficients y_P, put in order; plus bias. See :mod:`lrc_core.lowrank.pivots`.

    Args:
        rows: [k, n], k rows of the weight itself.
        coefficients: [m - k, k] of the other rows, in their order.
        pivots: [k] which rows those are, ascending; whole numbers.
        bias: [m] or None; never compressed.
    """

    pivots: Tensor
    places: Tensor

    def __init__(self, rows: Tensor, coefficients: Tensor, pivots: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows, requires_grad=False)
        self.coefficients = nn.Parameter(coefficients, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_buffer("pivots", pivots.to(rows.device, torch.int32))
        places = output_rows(pivots.long(), rows.shape[0] + coefficients.shape[0])
        self.register_buffer("places", places.to(rows.device), persistent=False)

    @property
    def in_features(self) -> int:
        """n."""
        return self.rows.shape[1]

    @property
    def out_features(self) -> int:
        """m."""
        return self.rows.shape[0] + self.coefficients.shape[0]

    @property
    def rank(self) -> int:
        """k."""
        return self.rows.shape[0]

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., n] to [..., m]."""
        stored = product(inputs, self.rows)
        combined = product(stored, self.coefficients)
        # Both written where they belong: joining them first and reading the rows in order takes twice as long.
        outputs = stored.new_empty(*stored.shape[:-1], self.out_features)
        outputs.index_copy_(-1, self.places[: self.rank], stored)
        outputs.index_copy_(-1, self.places[self.rank :], combined)
        return outputs if self.bias is None else outputs + self.bias

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"
