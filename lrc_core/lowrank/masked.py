"""A linear whose singular components are multiplied by a trainable mask; only the mask gets a gradient.

x runs through factors: at the ranks that mask training starts from that is cheaper than to rebuild the weight at every
step. Which factors depends on the mask. With few components switched off it is the dense weight minus those; with many,
only those still on. Components that neither change the output nor need a gradient are not computed at all, and a
custom backward pass avoids keeping the masked copy of the hidden activations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.models.blocks.linears import bias_of, get_module, swapped, weight_of


class _MaskedProduct(torch.autograd.Function):
    """y = [x W^T +] ((x right^T) * mask) left^T + bias with gradients for x and the mask only."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, mask: Tensor, left: Tensor, right: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        hidden = rows @ right.T  # [tokens, components]
        coefficients = mask.to(hidden.dtype)
        ctx.save_for_backward(hidden, coefficients, left, right, weight)
        outputs = (hidden * coefficients) @ left.T
        if weight is not None:
            outputs = outputs.addmm_(rows, weight.T)
        if bias is not None:
            outputs = outputs.add_(bias)
        return outputs.view(*inputs.shape[:-1], left.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        hidden, coefficients, left, right, weight = ctx.saved_tensors
        grad_outputs = grads[0].reshape(-1, grads[0].shape[-1])
        grad_hidden = grad_outputs @ left  # [tokens, components]
        grad_mask = (grad_hidden * hidden).sum(0, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        grad_inputs = None
        if ctx.needs_input_grad[0]:
            grad_inputs = (grad_hidden * coefficients) @ right
            if weight is not None:
                grad_inputs = grad_inputs.addmm_(grad_outputs, weight)
            grad_inputs = grad_inputs.view(*grads[0].shape[:-1], right.shape[1])
        return grad_inputs, grad_mask, None, None, None, None


class _DenseProduct(torch.autograd.Function):
    """The dense layer's output, with the gradient that a mask of ones on its components would get there.

    dL/dm_j = sum over tokens of (right x)_j (left^T dL/dy)_j holds whatever the mask is worth, so the factors are
    needed in the backward pass only.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, mask: Tensor, left: Tensor, right: Tensor, dense: nn.Module) -> Tensor:
        ctx.save_for_backward(inputs, left, right, weight_of(dense))
        outputs: Tensor = dense(inputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        inputs, left, right, weight = ctx.saved_tensors
        grad_mask = None
        if ctx.needs_input_grad[1]:
            hidden = inputs.reshape(-1, inputs.shape[-1]) @ right.T  # [tokens, components]
            slopes = grads[0].reshape(-1, grads[0].shape[-1]) @ left
            grad_mask = (slopes * hidden).sum(0, dtype=torch.float32)
        return grads[0] @ weight if ctx.needs_input_grad[0] else None, grad_mask, None, None, None


class MaskedLinear(nn.Module):
    """A linear as factors with a mask that is set before every step.

    Factors may be cut to r < min(m, n) components, but then ``trained`` must stay None: leaving components out may go
    by the dense weight minus those that are off, which is right for factors of full rank only.

    Args:
        dense: the original module, used as it is when ``mask`` is None (the layer counts as dense).
        left: [m, r] in the compute dtype.
        right: [r, n].

    Attributes:
        mask: [r], what each component is multiplied by, or None.
        trained: [r] booleans: components whose mask needs a gradient; None for all of them.
        run_dense: put out what the dense module does and still give the mask a gradient, the one it has at the dense
            layer (straight-through).
    """

    left: Tensor
    right: Tensor

    def __init__(self, dense: nn.Module, left: Tensor, right: Tensor) -> None:
        super().__init__()
        self.dense = dense
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.mask: Tensor | None = None
        self.trained: Tensor | None = None
        self.run_dense = False

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., n] to [..., m]."""
        if self.mask is None:
            outputs: Tensor = self.dense(inputs)
            return outputs
        mask = self.mask.to(self.left.device)  # masks of all layers are made on one device
        trained = torch.ones_like(mask, dtype=torch.bool) if self.trained is None else self.trained.to(mask.device)
        if self.run_dense:
            kept = slice(None) if self.trained is None else trained.nonzero()[:, 0]
            return _DenseProduct.apply(inputs, mask[kept], self.left[:, kept], self.right[kept], self.dense)
        values = mask.detach()
        on, changed = (trained | (values != 0)).nonzero()[:, 0], (trained | (values != 1)).nonzero()[:, 0]
        weight = weight_of(self.dense)
        dense_work = weight.numel() / sum(weight.shape)  # in components: how many take as long as the dense product
        if len(on) <= len(changed) + dense_work:
            return self._product(inputs, mask, on, None)
        return self._product(inputs, mask - 1, changed, weight)

    def _product(self, inputs: Tensor, mask: Tensor, chosen: Tensor, weight: Tensor | None) -> Tensor:
        left, right = self.left, self.right
        if len(chosen) < len(mask):
            left, right, mask = left[:, chosen], right[chosen], mask[chosen]
        outputs: Tensor = _MaskedProduct.apply(inputs, mask, left, right, weight, bias_of(self.dense))
        return outputs


@contextmanager
def masked_layers(model: nn.Module, factors: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[dict[str, MaskedLinear]]:
    """The model with the named linears masked; the original modules are put back at the end.

    Args:
        factors: left and right of every layer to mask, on its device in its dtype.
    """
    masked = {name: MaskedLinear(get_module(model, name), left, right) for name, (left, right) in factors.items()}
    with swapped(model, masked.items()):
        yield masked


@contextmanager
def without_masks(masked: Mapping[str, MaskedLinear]) -> Iterator[None]:
    """The dense model for the duration of a with-block: masks are taken off and put back."""
    masks = {name: module.mask for name, module in masked.items()}
    for module in masked.values():
        module.mask = None
    try:
        yield
    finally:
        for name, module in masked.items():
            module.mask = masks[name]
