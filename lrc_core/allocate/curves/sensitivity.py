"""How much the loss reacts to each singular component, from gradients at the dense model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lrc_core.allocate.protocol import Context
from lrc_core.errors import CancelledError, NumericalError
from lrc_core.models.blocks.hooks import hooked
from lrc_core.models.blocks.linears import get_module
from lrc_core.types import Progress

Pair = tuple[Tensor, Tensor]


def component_sensitivity(
    context: Context, factors: Mapping[str, Pair], batches: Sequence[Tensor]
) -> dict[str, NDArray[np.float64]]:
    """Diagonal of the Fisher information with respect to the mask of every component, per token.

    With y = sum_i m_i u_i h_i (h = right x, u the columns of left) the derivative of a token's loss with respect to
    m_i is h_i (u_i . dL/dy). Its mean square under labels drawn from the model's own predictions is the Fisher
    diagonal, and half of it the second-order estimate of the KL divergence from dropping component i. Whitened
    factors make the h_i uncorrelated, so that estimates of single components add up.

    Args:
        context: its model is left as it was found; its seed is for the sampled labels.
        factors: left [m, r] and right [r, n] of every layer, on its device.
        batches: token ids [batch, window] each.

    Returns:
        For every layer [r] estimates of the loss of dropping each component (half the Fisher diagonal).
    """
    generator = torch.Generator().manual_seed(context.seed)

    def sampled_loss(logits: Tensor, _: Tensor) -> Tensor:
        flat = logits.flatten(0, 1)
        with torch.no_grad():
            # The Gumbel-max trick draws from the softmax without normalising; the draw is made on the CPU so that
            # one seed means the same labels on every device.
            noise = torch.empty(flat.shape, dtype=torch.float32).exponential_(generator=generator).log_().neg_()
            labels = (flat.float() + noise.to(flat.device)).argmax(-1)
        return nn.functional.cross_entropy(flat.float(), labels, reduction="sum")

    with _summed(context, factors, Tensor.square) as sums:
        _run(context, batches, sampled_loss)
    tokens = sum(batch.numel() for batch in batches)
    return {name: (total / (2 * tokens)).double().cpu().numpy() for name, total in sums.items()}


def component_slopes(
    context: Context, factors: Mapping[str, Pair], batches: Sequence[Tensor]
) -> dict[str, NDArray[np.float64]]:
    """Derivative of the mean next-token loss with respect to the mask of every component.

    The sum over tokens of the mask gradients of :func:`component_sensitivity`, with the text's own next tokens as
    labels. It equals left_i^T (dL/dW) right_i^T, in any scaling of the factors: with W = U S V^T L^{-1} that is
    sigma_i u_i^T H v_i, H the gradient in the decomposition's coordinates. No weight gradient is formed.

    Args:
        context: its model is left as it was found.
        factors: left [m, r] and right [r, n] of every layer, on its device.
        batches: token ids [batch, window] each.

    Returns:
        For every layer [r] slopes in nats per predicted token; minus a slope is what dropping that component changes
        the loss by, to first order.

    Raises:
        NumericalError: a slope is not finite; names the layer.
    """

    def next_token_loss(logits: Tensor, batch: Tensor) -> Tensor:
        predicted = logits[:, :-1].flatten(0, 1).float()
        return nn.functional.cross_entropy(predicted, batch[:, 1:].flatten(), reduction="sum")

    with _summed(context, factors, Tensor.clone) as sums:
        _run(context, batches, next_token_loss)
    tokens = sum(batch[:, 1:].numel() for batch in batches)
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise NumericalError(f"The gradient at {name} is not finite.", "Compute in float32.")
    return {name: (total / tokens).double().cpu().numpy() for name, total in sums.items()}


def _run(context: Context, batches: Sequence[Tensor], loss_of: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Backward passes of a loss, from logits [batch, window, vocab] and tokens [batch, window], over all batches.

    Gradients flow through activations only.
    """
    model = context.model
    device = next(model.parameters()).device
    for step, batch in enumerate(batches):
        if context.should_stop():
            raise CancelledError("Measuring the sensitivity of components was cancelled.")
        tokens = batch.to(device)
        with torch.enable_grad():
            embedded = model.get_input_embeddings()(tokens).detach().requires_grad_()  # type: ignore[operator]
            # A copy: some families add positions to it in place, which a leaf does not bear.
            loss = loss_of(model(inputs_embeds=embedded.clone(), use_cache=False).logits, tokens)
        torch.autograd.backward(loss, inputs=[embedded])
        context.on_progress(Progress("measuring component sensitivity", step + 1, len(batches)))


@contextmanager
def _summed(
    context: Context, factors: Mapping[str, Pair], power: Callable[[Tensor], Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Sums over tokens of a function of the mask gradients [tokens, r], during backward passes inside the context.

    Yields:
        For every layer [r] float32 on its device, added to in place.
    """
    sums = {
        layer.name: torch.zeros(layer.full_rank, dtype=torch.float32, device=factors[layer.name][0].device)
        for layer in context.layers
    }

    def hook(name: str) -> Any:
        left, right = factors[name]

        def on_forward(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            inputs = args[0].detach()

            def on_gradient(grad: Tensor) -> None:
                hidden = inputs.reshape(-1, inputs.shape[-1]) @ right.T
                slopes = (grad.reshape(-1, grad.shape[-1]) @ left) * hidden
                sums[name].add_(power(slopes.float()).sum(0))

            output.register_hook(on_gradient)

        return on_forward

    with hooked(get_module(context.model, name).register_forward_hook(hook(name)) for name in sums):
        yield sums
