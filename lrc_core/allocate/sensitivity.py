"""How much the loss reacts to each singular component, from gradients at the dense model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lrc_core.errors import CancelledError
from lrc_core.models.linears import get_module
from lrc_core.types import LinearShape, OnProgress, Progress, ShouldStop

Pair = tuple[Tensor, Tensor]


def component_sensitivity(
    model: nn.Module,
    layers: Sequence[LinearShape],
    factors: Mapping[str, Pair],
    batches: Sequence[Tensor],
    *,
    seed: int,
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> dict[str, NDArray[np.float64]]:
    """Diagonal of the Fisher information with respect to the mask of every component, per token.

    With y = sum_i m_i u_i h_i (h = right x, u the columns of left) the derivative of a token's loss with respect to
    m_i is h_i (u_i . dL/dy). Its mean square under labels drawn from the model's own predictions is the Fisher
    diagonal, and half of it the second-order estimate of the KL divergence from dropping component i. Whitened
    factors make the h_i uncorrelated, so that estimates of single components add up.

    Args:
        model: a causal language model; left as it was found.
        layers: its block linears.
        factors: left [m, r] and right [r, n] of every layer, on the model's device.
        batches: token ids [batch, window] each.
        seed: for the sampled labels.
        on_progress: told after every batch.
        should_stop: asked before every batch.

    Returns:
        For every layer [r] estimates of the loss of dropping each component (half the Fisher diagonal).

    Raises:
        CancelledError: ``should_stop`` said so.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    sums = {layer.name: torch.zeros(layer.full_rank, dtype=torch.float32, device=device) for layer in layers}
    tokens = 0
    with _gradient_hooks(model, factors, sums):
        for step, batch in enumerate(batches):
            if should_stop():
                raise CancelledError("Measuring the sensitivity of components was cancelled.")
            _backward_sampled(model, batch.to(device), generator)
            tokens += batch.numel()
            on_progress(Progress("measuring component sensitivity", step + 1, len(batches)))
    return {name: (total / (2 * tokens)).double().cpu().numpy() for name, total in sums.items()}


def _backward_sampled(model: nn.Module, batch: Tensor, generator: torch.Generator) -> None:
    """Backward pass of the summed loss on labels drawn from the model; gradients flow through activations only."""
    with torch.enable_grad():
        embedded = model.get_input_embeddings()(batch).detach().requires_grad_()  # type: ignore[operator]
        logits = model(inputs_embeds=embedded, use_cache=False).logits.flatten(0, 1)
        with torch.no_grad():
            # The Gumbel-max trick draws from the softmax without normalising; the draw is made on the CPU so that
            # one seed means the same labels on every device.
            noise = torch.empty(logits.shape, dtype=torch.float32).exponential_(generator=generator).log_().neg_()
            labels = (logits.float() + noise.to(logits.device)).argmax(-1)
        loss = nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
    torch.autograd.backward(loss, inputs=[embedded])


@contextmanager
def _gradient_hooks(model: nn.Module, factors: Mapping[str, Pair], sums: Mapping[str, Tensor]) -> Iterator[None]:
    """Add squared mask gradients to ``sums`` during backward passes inside the context."""

    def hook(name: str) -> Any:
        left, right = factors[name]

        def on_forward(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            inputs = args[0].detach()

            def on_gradient(grad: Tensor) -> None:
                hidden = inputs.reshape(-1, inputs.shape[-1]) @ right.T
                slopes = (grad.reshape(-1, grad.shape[-1]) @ left) * hidden
                sums[name].add_(slopes.float().square().sum(0))

            output.register_hook(on_gradient)

        return on_forward

    handles = [get_module(model, name).register_forward_hook(hook(name)) for name in sums]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
