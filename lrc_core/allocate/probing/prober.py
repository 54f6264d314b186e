"""Measuring what the truncation of a single layer does, from cached hidden states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lrc_core.budget import is_dense
from lrc_core.errors import NumericalError
from lrc_core.lowrank.apply import FactorSource, low_rank_layer
from lrc_core.models.blocks.linears import get_module, swapped
from lrc_core.models.blocks.partial import block_inputs, logits_from
from lrc_core.models.token_loss import divergences, log_normalisers, token_losses
from lrc_core.types import LinearShape


def token_loss(logits: Tensor, tokens: Tensor) -> float:
    """Mean next-token cross-entropy in nats.

    Args:
        logits: [batch, window, vocab].
        tokens: [batch, window].
    """
    return float(token_losses(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).double().mean())


@dataclass(frozen=True)
class Effect:
    """What a change of the model does on the probe windows.

    Attributes:
        loss: mean next-token cross-entropy in nats.
        divergence: mean KL divergence of its predictions from the dense model's in nats, KL(dense || changed).
    """

    loss: float
    divergence: float


class DensePredictions:
    """The dense model's predictions, and how far others are from them.

    Args:
        logits: [batch, window, vocab] of the dense model.
        tokens: [batch, window].
        temperature: divides all logits before the divergence; below 1 it looks at the likeliest tokens more.
        skipped: positions at the start of every window that the divergence leaves out.
    """

    def __init__(self, logits: Tensor, tokens: Tensor, temperature: float = 1.0, skipped: int = 0) -> None:
        self._tokens, self._temperature, self._skipped = tokens, temperature, skipped
        kept = logits[:, skipped:].clone() if skipped else logits  # a view would keep all of them in memory
        self._wanted = kept.flatten(0, 1)
        self._normalisers = log_normalisers(self._wanted, temperature)

    @torch.no_grad()
    def effect(self, logits: Tensor) -> Effect:
        """Loss and divergence of other logits [batch, window, vocab] on the same tokens."""
        own = logits[:, self._skipped :].flatten(0, 1)
        found, normalisers = divergences(own, self._wanted, self._normalisers, self._temperature)
        if self._temperature != 1 or self._skipped:
            loss = token_loss(logits, self._tokens)
        else:  # the normalisers are the larger part of the cross-entropy
            labels = logits[:, :-1].gather(2, self._tokens[:, 1:, None])[..., 0].float()
            loss = float((normalisers.view(self._tokens.shape)[:, :-1] - labels).double().mean())
        return Effect(loss, float(found.double().mean()))


def checked(effect: Effect, what: str) -> Effect:
    """The effect, if it is finite.

    Raises:
        NumericalError: it is not; says with ``what``.
    """
    if not (math.isfinite(effect.loss) and math.isfinite(effect.divergence)):
        raise NumericalError(f"The loss is not finite with {what}.", "Compute in float32.")
    return effect


class LayerProber:
    """The model with one layer at another rank, everything else as it is.

    The model runs once as it is; a probe re-runs only the blocks from the probed one on, from cached hidden states.

    Args:
        model: a causal language model, dense or with a plan swapped in; left as it was found.
        source: factors of its layers.
        windows: [n, window] token ids of all probes; they run as one batch.
        dense: the dense modules of layers that are compressed in ``model``; by default what the model holds.
    """

    def __init__(
        self, model: nn.Module, source: FactorSource, windows: Tensor, dense: Mapping[str, nn.Module] | None = None
    ) -> None:
        self._model, self._source, self._dense = model, source, dense or {}
        self._tokens = windows.to(next(model.parameters()).device)
        self._inputs = block_inputs(model, self._tokens)[0]
        self._factors_of: str | None = None

    @torch.no_grad()
    def logits(self, layer: LinearShape, rank: int) -> Tensor:
        """Logits [n, window, vocab] with ``layer`` at ``rank``; at or above break-even: with it dense."""
        module = get_module(self._model, layer.name)
        probed = self._at_rank(layer, rank, self._dense.get(layer.name, module))
        with swapped(self._model, [(layer.name, probed)]):
            return logits_from(self._model, self._tokens, layer.block, self._inputs[layer.block])

    def loss(self, layer: LinearShape, rank: int) -> float:
        """Mean token loss with ``layer`` at ``rank``.

        Raises:
            NumericalError: the loss is not finite; names the layer.
        """
        loss = token_loss(self.logits(layer, rank), self._tokens)
        return checked(Effect(loss, 0.0), f"{layer.name} at rank {rank}").loss

    def effect(self, layer: LinearShape, rank: int, reference: DensePredictions) -> Effect:
        """Loss and divergence with ``layer`` at ``rank``.

        Raises:
            NumericalError: one of them is not finite; names the layer.
        """
        return checked(reference.effect(self.logits(layer, rank)), f"{layer.name} at rank {rank}")

    def _at_rank(self, layer: LinearShape, rank: int, dense: nn.Module) -> nn.Module:
        if is_dense(layer, rank):
            return dense
        if self._factors_of != layer.name:  # probes of a layer come together: read its factors once
            self._factors, self._factors_of = self._source.factors(layer.name, layer.block), layer.name
        return low_rank_layer(dense, self._factors, slice(0, rank))
