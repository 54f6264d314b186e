"""A linear whose singular components are multiplied by a trainable mask; only the mask gets a gradient.

At the ranks that mask training starts from it is cheaper to run x through both factors than to rebuild the weight at
every step, and a custom backward pass avoids keeping the masked copy of the hidden activations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.models.linears import get_module, replace_module


class _MaskedProduct(torch.autograd.Function):
    """y = ((x right^T) * mask) left^T + bias with gradients for x and the mask only."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, mask: Tensor, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        hidden = inputs.reshape(-1, inputs.shape[-1]) @ right.T  # [tokens, r]
        weights = mask.to(hidden.dtype)
        ctx.save_for_backward(hidden, weights, left, right)
        outputs = (hidden * weights) @ left.T
        if bias is not None:
            outputs = outputs + bias
        return outputs.view(*inputs.shape[:-1], left.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weights, left, right = ctx.saved_tensors
        grad_outputs = grads[0].reshape(-1, grads[0].shape[-1])
        grad_hidden = grad_outputs @ left  # [tokens, r]
        grad_mask = (grad_hidden * hidden).sum(0, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        grad_inputs = None
        if ctx.needs_input_grad[0]:
            grad_inputs = ((grad_hidden * weights) @ right).view(*grads[0].shape[:-1], right.shape[1])
        return grad_inputs, grad_mask, None, None, None


class MaskedLinear(nn.Module):
    """A linear as full-rank factors with a mask that is set before every step.

    Args:
        dense: the original module, used when ``mask`` is None (the layer counts as dense).
        left: [m, r] in the compute dtype.
        right: [r, n].
    """

    def __init__(self, dense: nn.Module, left: Tensor, right: Tensor) -> None:
        super().__init__()
        self.dense = dense
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.mask: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., n] to [..., m]."""
        if self.mask is None:
            outputs: Tensor = self.dense(inputs)
            return outputs
        bias = getattr(self.dense, "bias", None)
        product: Tensor = _MaskedProduct.apply(inputs, self.mask, self.left, self.right, bias)
        return product


@contextmanager
def masked_layers(model: nn.Module, factors: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[dict[str, MaskedLinear]]:
    """The model with the named linears masked; the original modules are put back at the end.

    Args:
        model: a causal language model.
        factors: left and right of every layer to mask, on the model's device in its dtype.
    """
    masked = {name: MaskedLinear(get_module(model, name), left, right) for name, (left, right) in factors.items()}
    try:
        for name, module in masked.items():
            replace_module(model, name, module)
        yield masked
    finally:
        for name, module in masked.items():
            replace_module(model, name, module.dense)
