"""A linear layer held as two factors."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


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
        return functional.linear(functional.linear(inputs, self.right), self.left, self.bias)

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"
