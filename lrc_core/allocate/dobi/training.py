"""The training loop of Dobi-SVD: truncation positions, their masks and losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lrc_core.allocate.dobi.settings import DobiSettings
from lrc_core.allocate.masks.driver import RankTraining
from lrc_core.allocate.masks.training import load_factors, tick_figures
from lrc_core.allocate.protocol import Context
from lrc_core.budget import break_even, is_dense, rank_of_share
from lrc_core.lowrank.masked import MaskedLinear

_FLAT = 1e-6  # share of the largest slope of a soft step below which its gradient is not computed


def soft_step(position: Tensor, components: int, sharpness: float) -> Tensor:
    """0.5 tanh(beta (k - i)) + 0.5 for i = 1, ..., r (equation of the differentiable truncation).

    Args:
        position: k, scalar.
        components: r.
        sharpness: beta.
    """
    places = torch.arange(1, components + 1, device=position.device, dtype=position.dtype)
    return 0.5 * torch.tanh(sharpness * (position - places)) + 0.5


def sloping(mask: Tensor) -> Tensor:
    """[r] booleans: components whose mask has a slope worth computing, 4 m (1 - m) of the largest one."""
    return 4 * mask * (1 - mask) > _FLAT


def budget_term(costs: Tensor, params: Tensor, target: float) -> Tensor:
    """|sum min(cost, mn) / sum mn - target|, the cost of a pair being k (m + n).

    Args:
        costs: [layers] parameters of every layer stored at its k.
        params: [layers] mn.
        target: share to keep.
    """
    return (torch.minimum(costs, params).sum() / params.sum() - target).abs()


def cosine_rate(step: int, high: float, low: float, period: int) -> float:
    """From ``high`` to ``low`` in ``period`` steps, and back."""
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * step / period))


class PositionTraining(RankTraining[DobiSettings]):
    """One run of Dobi-SVD's rank learning."""

    def __init__(self, context: Context, settings: DobiSettings) -> None:
        super().__init__(context, settings, "text" if settings.task == "perplexity" else settings.task)
        self.factors = load_factors(context)
        self.params = self._per_layer([layer.params for layer in self.layers])
        self.highest = self._per_layer(self.sizes)
        unit = [break_even(layer) if settings.unit == "break_even" else 1.0 for layer in self.layers]
        self.unit = self._per_layer(unit)
        self.places = torch.nn.Parameter(self._start())  # k in units, [layers]
        self.optimizer = torch.optim.Adam([self.places], lr=settings.learning_rate)
        self._resume()

    def _per_layer(self, values: list[int] | list[float]) -> Tensor:
        return torch.tensor([float(value) for value in values], device=self.device)

    def _start(self) -> Tensor:
        """Every layer at the target."""
        wanted = self._per_layer([rank_of_share(layer, self.context.keep) for layer in self.layers])
        return wanted.clamp_min(1) / self.unit

    # -- the run -------------------------------------------------------------------------------------------------

    def _total(self) -> int:
        return self.settings.steps

    def _step(self, masked: dict[str, MaskedLinear]) -> dict[str, float]:
        """One optimizer step; returns the figures a live view shows."""
        settings = self.settings
        positions = self.places * self.unit  # k, [layers]
        self._set_masks(masked, positions)
        task = self._task(masked)
        budget = budget_term(torch.stack(self._soft_params(positions.unbind())), self.params, self.context.keep)
        loss = task + settings.budget_weight * budget
        rate = cosine_rate(self.step, settings.learning_rate, settings.lowest_rate, settings.rate_period)
        self.optimizer.param_groups[0]["lr"] = rate
        self._descend(loss, [self.places])
        with torch.no_grad():  # back into 1..r
            self.places.copy_((self.places * self.unit).clamp_min(1).minimum(self.highest) / self.unit)
        return tick_figures({"loss": loss, "task": task, "budget": budget})

    def _set_masks(self, masked: dict[str, MaskedLinear], positions: Tensor) -> None:
        ranks = self.count()
        for layer, position in zip(self.layers, positions.unbind(), strict=True):
            module, mask = masked[layer.name], soft_step(position, layer.full_rank, self.settings.sharpness)
            module.mask, module.trained = mask, sloping(mask.detach())
            module.run_dense = self.settings.dense_switch and is_dense(layer, ranks[layer.name])

    def _task(self, masked: dict[str, MaskedLinear]) -> Tensor:
        loss = super()._task(masked)
        return loss.exp() if self.settings.task == "perplexity" else loss

    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """[components of all layers] the soft steps as they stand, read as how likely every component is kept."""
        positions = (self.places * self.unit).unbind()
        steps = zip(self.layers, positions, strict=True)
        return torch.cat([soft_step(k, layer.full_rank, self.settings.sharpness) for layer, k in steps])

    # -- counting ---------------------------------------------------------------------------------

    def count(self) -> dict[str, int]:
        """Rank of every layer as it stands: k, rounded."""
        values = (self.places.detach() * self.unit).tolist()
        return {
            layer.name: max(1, min(round(value), layer.full_rank))
            for layer, value in zip(self.layers, values, strict=True)
        }

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {"places": self.places.detach().cpu(), "optimizer": self.optimizer.state_dict(), "step": self.step}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.step = int(state["step"])
        self.places.data.copy_(state["places"])
        self.optimizer.load_state_dict(state["optimizer"])
